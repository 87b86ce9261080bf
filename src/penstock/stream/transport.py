"""Where a stream's bytes go.

A stream is written to an async function that takes a chunk, or a host iterates it (see
`penstock.stream.event_stream`). What a head, a frame or a socket is stays on that side; what an
event is stays on the stream's.

A server may offer a `DirectWriter` beside either, which saves a healthy client's events the way
through the channel, the writer's task, the framework and the server's own layers. Penstock's server
does (`penstock.hypercorn`). The first bytes of each stream always take the ordinary way, and later
ones are written directly only where the callable that sends the response is the server's own.
Anything between the two, such as an ASGI middleware, is handed every byte: it may change, count or
sign them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, final

import trio

__all__ = [
    "DIRECT_WRITER",
    "DISCONNECT_SCOPE",
    "Chunk",
    "DirectWriter",
    "asgi_sender",
]

# The entry of an ASGI scope's "extensions" in which a server offers a function without arguments,
# which returns a `trio.CancelScope` for the application to enter: it is cancelled when the client
# has gone, so that no task needs to wait in ``receive`` for that.
DISCONNECT_SCOPE: Final = "penstock.disconnect_scope"

# The entry in which it offers its `DirectWriter`.
DIRECT_WRITER: Final = "penstock.direct_writer"


# Bytes that are copied in less time than it takes to write twice.
_SMALL: Final = 2**17


@final
class Chunk:
    """Bytes that may go to many clients; their framing is made once for all.

    Attributes:
      data: the bytes.
      framed: as a chunk of an HTTP/1.1 body that is sent in chunks.

    Spec: RFC 9112, 7.1: a chunk is its size in hexadecimal, and its bytes, each with CRLF.
    """

    __slots__ = ("data", "framed")

    def __init__(self, data: bytes) -> None:
        self.data: bytes = data
        self.framed: bytes = b"%x\r\n%b\r\n" % (len(data), data)

    @staticmethod
    def parts(data: bytes) -> list[bytes]:
        """Return what makes up such a chunk: one piece if it is small, else without a copy."""
        if len(data) < _SMALL:
            return [Chunk(data).framed]
        return [b"%x\r\n" % len(data), data, b"\r\n"]


class DirectWriter(Protocol):
    """A server's offer to take a response's bytes without a task switch; for one response."""

    @property
    def stalled(self) -> bool:
        """Whether the server gave the client up because it did not read."""
        ...

    def set_sender(self, send: object) -> None:
        """Name the ASGI ``send`` that the response's messages are passed to, unchanged.

        Called by whoever passes them, before the first body message. Unless it is called, and with
        the server's own callable, nothing is written directly.
        """
        ...

    def try_enable(self) -> bool:
        """Enable direct writes if the response allows them, and return whether it does.

        Called once, after the response's first body message was sent.
        """
        ...

    def write_nowait(self, chunk: Chunk) -> bool:
        """Write a chunk if nothing waits before it, and tell whether it was taken.

        Taken, it is the server's: what the kernel had no room for is written in the background, in
        front of everything that follows. Not taken, nothing of it was.

        Cancellation:
          Synchronous, no checkpoint.
        """
        ...

    async def send(self, chunk: bytes) -> None:
        """Write a chunk behind what waits, and wait until the kernel has it all.

        Args:
          chunk: may be empty, to wait for what was written before.

        Raises:
          trio.BrokenResourceError: the client is gone, or was given up.

        Cancellation:
          A checkpoint. The chunk is written in the background, in full and in its order, even when
          waiting for it is cancelled.
        """
        ...


def asgi_sender(
    send: Callable[[Mapping[str, Any]], Awaitable[None]],
) -> Callable[[bytes], Awaitable[None]]:
    """Return what `EventStream.run` writes to, over an ASGI server's ``send``.

    Each chunk is one body message. The application sends ``http.response.start`` before and the
    last ``http.response.body`` after, and cancels the stream when ``receive`` gives
    ``http.disconnect``: ASGI servers tell of a lost client there, and need not raise in ``send``.

    Spec: ASGI, "Disconnected Client - send Exception": a server that does raise raises `OSError`.
    """

    async def send_chunk(chunk: bytes) -> None:
        try:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except OSError as error:
            raise trio.BrokenResourceError("the ASGI server has lost the client") from error

    return send_chunk
