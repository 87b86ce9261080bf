"""An HTTP server that answers each request with what a script says, to the byte."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import trio

OPEN = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"  # until the connection ends
CHUNKED = OPEN.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
OVER = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

Answer = Sequence[bytes | float]


class Scripted:
    """The server: what was asked of it, and where it is."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._answers: Iterator[Answer] = iter(answers)
        self.port = 0
        self.requests: list[bytes] = []
        self.gone: list[float] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    def header(self, name: str) -> list[str | None]:
        """Return a header's value in each request, None where it was not sent."""
        wanted = name.lower().encode()
        found: list[str | None] = []
        for request in self.requests:
            lines = [line.partition(b": ") for line in request.split(b"\r\n")[1:]]
            values = [value.decode() for given, _, value in lines if given.lower() == wanted]
            found.append(values[0] if values else None)
        return found

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer one request, then close; note when the client went away before that."""
        try:
            async with stream:
                request = b""
                while not _is_whole(request):
                    if not (received := await stream.receive_some()):
                        return
                    request += received
                self.requests.append(request)
                for part in next(self._answers, [OVER]):
                    if isinstance(part, bytes):
                        await stream.send_all(part)
                        continue
                    with trio.move_on_after(part):
                        while await stream.receive_some():
                            pass
                        self.gone.append(trio.current_time())
                        return
                await stream.send_eof()
                await stream.receive_some()
        except trio.BrokenResourceError:
            self.gone.append(trio.current_time())


def _is_whole(request: bytes) -> bool:
    head, end, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return bool(end) and len(body) >= (int(length[1]) if length else 0)


@asynccontextmanager
async def scripted(*answers: Answer) -> AsyncIterator[Scripted]:
    """Serve a script while the block runs: bytes to send, seconds to wait; then 204 for ever."""
    server = Scripted(answers)
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            server.port = listener.socket.getsockname()[1]
            await nursery.start(trio.serve_listeners, server.serve, [listener])
            yield server
            nursery.cancel_scope.cancel()
