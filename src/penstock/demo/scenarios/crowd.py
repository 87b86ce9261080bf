"""A crowd of healthy clients, in a process of its own: the switch for it, and the program.

`Crowd` runs this file as a program, which reads a stream with many clients and discards it:

    python crowd.py URL COUNT SECONDS

opens COUNT clients of the URL over SECONDS. It writes the number of open clients to stdout, on a
line each time that changes, or a sentence that says why it cannot. It ends when the streams do, or
when its stdin does, which is when its parent ends. So that it starts fast and stays small, it
imports nothing but Trio.
"""

from __future__ import annotations

import logging
import os
import ssl
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import urlsplit

import trio

if TYPE_CHECKING:
    from penstock.demo.scenarios.client import ServerAddress
    from penstock.hypercorn import Settings

try:
    import resource
except ImportError:  # not a Unix
    resource = None  # type: ignore[assignment]  # asked for before each use

__all__ = ["CROWD_SIZE", "Crowd", "CrowdRefused"]

# Clients, unless fewer are asked for, and the seconds over which they connect.
CROWD_SIZE: Final = 1000
_OVER: Final = 3.0

# File descriptors for everything else, in the server and in the program.
_RESERVED_IN_SERVER: Final = 256
_RESERVED_IN_PROGRAM: Final = 32

# Seconds between two reports of the program.
_REPORT_PERIOD: Final = 0.1

_logger = logging.getLogger(__name__)


# In the server.


class CrowdRefused(Exception):
    """A crowd cannot be started; the message says why, and what would help."""


@final
class Crowd:
    """Starts and stops the program, at most one at a time.

    Args:
      nursery: returns the application's nursery, in which the process is watched.
    """

    def __init__(self, nursery: Callable[[], trio.Nursery]) -> None:
        self._nursery = nursery
        self._scope: trio.CancelScope | None = None
        self._wanted = 0
        self._open = 0
        self._error: str | None = None

    def __repr__(self) -> str:
        return f"<Crowd {self._open} of {self._wanted} open>"

    def state(self) -> dict[str, Any]:
        """Return how many clients are wanted and open, or what went wrong, as a JSON object."""
        return {
            "count": CROWD_SIZE,
            "wanted": self._wanted,
            "open": self._open,
            "error": self._error,
        }

    def start(self, count: int, address: ServerAddress, settings: Settings | None) -> None:
        """Start a crowd. Synchronous.

        Args:
          count: the number of clients.
          address: the server that they connect to.
          settings: that server's, if they are known.

        Raises:
          CrowdRefused: one is running, or a limit is too low for another.
        """
        if self._scope is not None:
            raise CrowdRefused("a crowd is running: switch it off, and wait until it has ended")
        if (why := _too_low_limit(count, settings)) is not None:
            raise CrowdRefused(why)
        scope = trio.CancelScope()
        self._nursery().start_soon(self._run, scope, count, address, name=f"crowd of {count}")
        self._scope, self._wanted, self._error = scope, count, None

    def stop(self) -> None:
        """Stop it. Synchronous: its process ends soon after."""
        self._wanted = 0
        if self._scope is not None:
            self._scope.cancel()

    async def _run(self, scope: trio.CancelScope, count: int, address: ServerAddress) -> None:
        # -P: what lies beside this file is not what the program imports.
        command = [sys.executable, "-P", __file__, f"{address.url}/sse", str(count), str(_OVER)]
        try:
            with scope:
                async with trio.open_nursery() as nursery:
                    # Ctrl-C is for the server: in a session of its own, the program gets no signal.
                    options = {
                        "stdin": subprocess.PIPE,
                        "stdout": subprocess.PIPE,
                        "check": False,
                        "start_new_session": True,
                    }
                    process = await nursery.start(partial(trio.run_process, command, **options))
                    async with process.stdin, process.stdout:
                        await self._read_reports(process.stdout)
        # The application's hub runs in the same nursery: no error may reach it.
        except* OSError as errors:
            self._error = f"the program with the clients did not start: {_first_of(errors)}"
        except* Exception as errors:
            _logger.error("Bug in the demonstration's crowd", exc_info=errors)
            self._error = f"a bug in the demonstration: {_first_of(errors)!r}"
        finally:
            self._scope, self._wanted, self._open = None, 0, 0

    async def _read_reports(self, lines: trio.abc.ReceiveStream) -> None:
        rest = b""
        async for data in lines:
            *whole, rest = (rest + data).split(b"\n")
            if whole:
                report = whole[-1].decode()
                if report.isdecimal():
                    self._open = int(report)
                else:
                    self._error = report


def _first_of(errors: BaseException) -> BaseException:
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    return errors


def _too_low_limit(count: int, settings: Settings | None) -> str | None:
    """Return which limit is too low for so many clients, in a sentence, or None."""
    if resource is not None:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit != resource.RLIM_INFINITY and limit < count + _RESERVED_IN_SERVER:
            return (
                f"this process may have {limit} files open, and {count} clients need more: "
                "raise the limit, as with `ulimit -n 4096`, before starting the server"
            )
    if settings is None:
        return None
    for name in ("max_connections", "max_connections_per_address"):
        limit = getattr(settings, name)
        if limit is not None and limit < count:
            return f"the server takes {limit} connections ({name}), and {count} clients need more"
    return None


# In the program.


class _Clients:
    """The clients.

    Attributes:
      open: how many have their stream.
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

    async def run(self, count: int, seconds: float, ended: Callable[[], None]) -> None:
        """Open the clients at an even pace, and wait until all have ended."""
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(count):
                await trio.sleep_until(start + seconds * number / count)
                nursery.start_soon(self._read, name=f"client {number}")
        ended()

    async def _read(self) -> None:
        """Read until the stream ends, for whatever reason."""
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
            pass  # the server has ended the connection, or itself


def _is_end(data: bytes) -> bool:
    """Return whether this ends with the last chunk, which is empty; events end with two LF."""
    return not data or data.endswith(b"0\r\n\r\n")


def _unverified() -> ssl.SSLContext:
    """Return a context that accepts any certificate: the server is this program's parent."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _too_few_files(count: int) -> str | None:
    """Raise the limit of open files, and return why it is too low, in a sentence, or None."""
    if resource is None:
        return None
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY or hard >= count + _RESERVED_IN_PROGRAM:
        return None
    return f"a process may have {hard} files open here, and {count} clients need as many"


async def _read_streams(url: str, count: int, seconds: float) -> None:
    clients = _Clients(url)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until_stdin_ends, nursery.cancel_scope.cancel)
        nursery.start_soon(clients.run, count, seconds, nursery.cancel_scope.cancel)
        reported = None
        while True:
            if reported != clients.open:
                reported = clients.open
                print(reported, flush=True)
            await trio.sleep(_REPORT_PERIOD)


async def _until_stdin_ends(ended: Callable[[], None]) -> None:
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
        while await stdin.receive_some():
            pass
    ended()


def _main() -> None:
    url, count, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    if (why := _too_few_files(count)) is not None:
        print(why, flush=True)
        return
    try:
        trio.run(_read_streams, url, count, seconds)
    except* BrokenPipeError:  # the parent no longer reads
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    _main()
