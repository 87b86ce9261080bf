"""Direct writes: a response's bytes go to the socket past the ASGI interface.

The server offers a writer in each request's ``scope["extensions"]``, under
`penstock.stream.transport.DIRECT_WRITER`. It works only if the response is sent by the very
``send`` that the server gave to the application: a middleware that substitutes its own ``send``
receives every byte.
"""

from __future__ import annotations

from typing import Any, Protocol, final

import trio
from hypercorn.protocol.http_stream import HTTPStream

from penstock.hypercorn.protocol.http1 import HTTP1
from penstock.hypercorn.protocol.http2 import HTTP2
from penstock.hypercorn.wire.outgoing import OutgoingBytes
from penstock.stream.transport import Chunk

__all__ = ["ResponseDirectWriter", "WritableConnection"]


class WritableConnection(Protocol):
    """What direct writes need from a connection."""

    carries_stream: bool
    """Whether a response is, or was, an event stream."""

    @property
    def closed(self) -> bool:
        """Whether the connection is closed."""
        ...

    @property
    def outgoing(self) -> OutgoingBytes:
        """The bytes to write."""
        ...

    @property
    def protocol(self) -> HTTP1 | HTTP2 | None:
        """The protocol, once it is known."""
        ...


@final
class ResponseDirectWriter:
    """A `penstock.stream.transport.DirectWriter` for one response on a connection.

    Hypercorn's h11 keeps no state between two chunks of a response's body, so chunks may be written
    behind its back, and it still writes the body's end. On HTTP/2 each byte needs the protocol's
    windows: nothing is written directly there, and this only reports whether the client `stalled`.
    """

    __slots__ = (
        *("_chunked", "_connection", "_direct", "_outgoing", "_protocol", "_response", "_send"),
    )

    def __init__(self, connection: WritableConnection, response: HTTPStream, send: Any) -> None:
        self._connection = connection
        self._response = response
        self._send = send  # what the application was given
        self._direct = False
        self._protocol: HTTP1 | None = None
        self._outgoing: OutgoingBytes | None = None  # set while direct writes are enabled
        self._chunked = True

    @property
    def stalled(self) -> bool:
        """Whether the client was disconnected because it did not read."""
        protocol = self._connection.protocol
        if self._connection.outgoing.stalled:
            return True
        return isinstance(protocol, HTTP2) and self._response.stream_id in protocol.stalled_streams

    def set_sender(self, send: object) -> None:
        """Name the callable that sends the response; see `DirectWriter.set_sender`."""
        self._direct = send == self._send

    def try_enable(self) -> bool:
        """Enable direct writes if the response allows them; see `DirectWriter.try_enable`."""
        self._connection.carries_stream = True
        protocol = self._connection.protocol
        if (
            self._direct
            and isinstance(protocol, HTTP1)
            and protocol.stream is self._response
            and protocol.framing is not None
            and not self._response.closed
        ):
            protocol.close_direct_writer = self.close
            self._protocol = protocol
            self._outgoing = self._connection.outgoing
            self._chunked = protocol.framing == "chunked"
        return self._outgoing is not None

    def close(self) -> None:
        """Write nothing more: the response is ending, or its client is gone."""
        self._outgoing = None
        if self._protocol is not None:
            self._protocol.close_direct_writer = None
            self._protocol = None

    def write_nowait(self, chunk: Chunk) -> bool:
        """Write a chunk if nothing is pending; see `DirectWriter.write_nowait`."""
        outgoing = self._outgoing
        return outgoing is not None and outgoing.write_nowait(
            chunk.framed if self._chunked else chunk.data
        )

    async def send(self, chunk: bytes) -> None:
        """Write a chunk behind the pending bytes; see `DirectWriter.send`."""
        outgoing = self._outgoing
        if chunk and outgoing is None:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError("the response is over")
        if chunk and outgoing is not None:
            # Framing is written apart, so that an event pending for many clients is stored once.
            for part in Chunk.parts(chunk) if self._chunked else [chunk]:
                outgoing.write(part)
        await self._connection.outgoing.flush()
        await trio.lowlevel.checkpoint()
        if self._connection.closed:
            raise trio.BrokenResourceError("the client is gone")
