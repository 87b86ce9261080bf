"""A crowd of healthy clients, as a program of its own: they read a stream, and throw it away.

    python crowd.py URL COUNT SECONDS

opens COUNT clients of the URL over SECONDS. It writes how many are open to stdout, a number on each
line, or why it cannot, a sentence; it ends when they have, or when stdin does: with who started it.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import trio

try:
    import resource
except ImportError:  # not a Unix
    resource = None  # type: ignore[assignment]

# File descriptors for everything else.
_RESERVED: Final = 32

# Seconds between two looks at how many there are.
_PERIOD: Final = 0.1


class Crowd:
    """The clients.

    Attributes:
      open: how many hear the stream.
    """

    def __init__(self, url: str) -> None:
        self.open: int = 0
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if tls else 80)
        self._tls = _unverified() if tls else None
        self._request = (
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            "Accept: text/event-stream\r\n\r\n"
        ).encode()

    async def come(self, count: int, seconds: float, gone: Callable[[], None]) -> None:
        """Open the clients at an even pace, and wait until all are gone."""
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(count):
                await trio.sleep_until(start + seconds * number / count)
                nursery.start_soon(self._listen, name=f"client {number}")
        gone()

    async def _listen(self) -> None:
        """Read until the stream is over, whoever ends it."""
        try:
            stream: Any = await trio.open_tcp_stream(self._host, self._port)
            async with stream:
                if self._tls is not None:
                    stream = trio.SSLStream(stream, self._tls, server_hostname=self._host)
                await stream.send_all(self._request)
                if not (await stream.receive_some(4096)).startswith(b"HTTP/1.1 200 "):
                    return
                self.open += 1
                try:
                    while not _is_end(await stream.receive_some(4096)):
                        pass
                finally:
                    self.open -= 1
        except (OSError, trio.BrokenResourceError):
            pass  # the server has had enough, or has gone


def _is_end(data: bytes) -> bool:
    """Tell whether the last chunk is there, which is empty; events end with empty lines of LF."""
    return not data or data.endswith(b"0\r\n\r\n")


def _unverified() -> ssl.SSLContext:
    """Return a context that takes any certificate: the server is whoever started this program."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _why_no_room(count: int) -> str | None:
    """Have as many files as there may be, and return why they are too few, or None."""
    if resource is None:
        return None
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY or hard >= count + _RESERVED:
        return None
    return f"a process may have {hard} files open here, and {count} clients need as many"


async def _run(url: str, count: int, seconds: float) -> None:
    crowd = Crowd(url)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until_stdin_ends, nursery.cancel_scope.cancel)
        nursery.start_soon(crowd.come, count, seconds, nursery.cancel_scope.cancel)
        told = None
        while True:
            if told != crowd.open:
                told = crowd.open
                print(told, flush=True)
            await trio.sleep(_PERIOD)


async def _until_stdin_ends(gone: Callable[[], None]) -> None:
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
        while await stdin.receive_some():
            pass
    gone()


def main() -> None:
    """Run until the end of the streams or of stdin."""
    url, count, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    if (why := _why_no_room(count)) is not None:
        print(why, flush=True)
        return
    try:
        trio.run(_run, url, count, seconds)
    except* BrokenPipeError:  # nobody is interested any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
