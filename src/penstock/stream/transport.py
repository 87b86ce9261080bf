"""The transport of a stream's bytes: an async function, or a server's direct writer.

A stream passes its chunks to an async function, or a host iterates it (see
`penstock.stream.event_stream`). The transport knows heads, frames and sockets, and no events; the
stream knows events only.

A server may also offer a `DirectWriter`: a healthy client's events then bypass the channel, the
writer's task, the framework and the server's own layers. Penstock's server offers it
(`penstock.hypercorn`). The first bytes of each stream always take the ordinary path, and later
bytes are written directly only if the callable that sends the response is the server's own. So
anything between the two, such as ASGI middleware, gets every byte: it may change, count or sign
them.
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

# The entry of an ASGI scope's "extensions" in which a server offers a function with no arguments,
# which returns a `trio.CancelScope` for the application to enter. The scope is cancelled when the
# client disconnects, so that no task needs to wait in ``receive`` for that.
DISCONNECT_SCOPE: Final = "penstock.disconnect_scope"

# The entry of the "extensions" in which a server offers its `DirectWriter`.
DIRECT_WRITER: Final = "penstock.direct_writer"


# Bytes: copying up to this many is faster than writing twice.
_SMALL: Final = 2**17


@final
class Chunk:
    """Bytes for one or many clients, framed once.

    Attributes:
      data: the bytes.
      framed: the bytes as a chunk of a chunked HTTP/1.1 body.

    Spec: RFC 9112, 7.1: a chunk is its size in hexadecimal, and its bytes, each with CRLF.
    """

    __slots__ = ("data", "framed")

    def __init__(self, data: bytes) -> None:
        self.data: bytes = data
        self.framed: bytes = b"%x\r\n%b\r\n" % (len(data), data)

    @staticmethod
    def parts(data: bytes) -> list[bytes]:
        """Return the parts of such a chunk: a single part, or if it is large, no copy of it."""
        if len(data) < _SMALL:
            return [Chunk(data).framed]
        return [b"%x\r\n" % len(data), data, b"\r\n"]


class DirectWriter(Protocol):
    """Writes one response's bytes to the server, without a task switch."""

    @property
    def stalled(self) -> bool:
        """Whether the server disconnected the client because it did not read."""
        ...

    def set_sender(self, send: object) -> None:
        """Set the ASGI ``send`` that gets the response's messages unchanged.

        The sender of the response calls this before the first body message. Unless it is called
        with the server's own callable, nothing is written directly.
        """
        ...

    def try_enable(self) -> bool:
        """Enable direct writes if the response allows them, and return whether it does.

        Called after the response's first body message was sent, until it returns True.
        """
        ...

    def write_nowait(self, chunk: Chunk) -> bool:
        """Write a chunk if nothing waits before it, and return whether it was taken.

        If it was, the server writes all of it: the part for which the kernel has no room is written
        in the background, before everything that follows. If not, none of it was written.

        Cancellation:
          Synchronous, no checkpoint.
        """
        ...

    async def send(self, chunk: bytes) -> None:
        """Write a chunk after everything that waits, and wait until the kernel has all of it.

        Args:
          chunk: the bytes; may be empty, to wait for everything that was written before.

        Raises:
          trio.BrokenResourceError: the client has disconnected, or was disconnected.

        Cancellation:
          A checkpoint. The chunk is written in the background, in full and in its order, even when
          waiting for it is cancelled.
        """
        ...


def asgi_sender(
    send: Callable[[Mapping[str, Any]], Awaitable[None]],
) -> Callable[[bytes], Awaitable[None]]:
    """Return a function for `EventStream.run` that writes to an ASGI server's ``send``.

    Each chunk is one body message. The application sends ``http.response.start`` before, and the
    last ``http.response.body`` after, the stream. It cancels the stream when ``receive`` returns
    ``http.disconnect``: ASGI servers report a disconnect there, and need not raise in ``send``.

    Spec: ASGI, "Disconnected Client - send Exception": a server that does raise raises `OSError`.
    """

    async def send_chunk(chunk: bytes) -> None:
        try:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except OSError as error:
            raise trio.BrokenResourceError("the ASGI server has lost the client") from error

    return send_chunk
