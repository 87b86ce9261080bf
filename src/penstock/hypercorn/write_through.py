"""The server's offer to a response to write its bytes past the application's own layers.

It is made in each request's ``scope["extensions"]``, under `penstock.transport.WRITE_THROUGH`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio
from hypercorn.protocol.http_stream import HTTPStream

from penstock.hypercorn.http1 import HTTP1
from penstock.hypercorn.http2 import HTTP2
from penstock.transport import Chunk

if TYPE_CHECKING:
    from penstock.hypercorn.connection import Connection

__all__ = ["ResponseWriteThrough"]


@final
class ResponseWriteThrough:
    """A `penstock.transport.WriteThrough` for the response to one request on a connection.

    Hypercorn's h11 keeps no state between two chunks of a response's body, so chunks that are
    written behind it are legal, and the end of the body is still its own. On HTTP/2, where each
    byte needs the protocol's windows, nothing is taken: there this only tells who was `stalled`.
    """

    __slots__ = ("_connection", "_protocol", "_response")

    def __init__(self, connection: Connection, response: HTTPStream) -> None:
        self._connection = connection
        self._response = response
        self._protocol: HTTP1 | None = None  # once it is open

    @property
    def stalled(self) -> bool:
        """Whether the client was given up because it did not read."""
        protocol = self._connection.protocol
        if self._connection.outgoing.stalled:
            return True
        return isinstance(protocol, HTTP2) and self._response.stream_id in protocol.stalled_streams

    def opens_after(self, first: bytes) -> bool:
        """Tell whether bytes may be written through; see `WriteThrough.opens_after`."""
        self._connection.carries_stream = True
        protocol = self._connection.protocol
        if isinstance(protocol, HTTP1) and protocol.body == first:
            self._protocol = protocol
        return self._is_open()

    def write_nowait(self, chunk: Chunk) -> bool:
        """Write a chunk if nothing waits before it; see `WriteThrough.write_nowait`."""
        connection, protocol = self._connection, self._protocol
        # What follows is done for each event and client: a call of `_is_open` would cost a tenth.
        if (
            protocol is None
            or connection.gone
            or connection.outgoing.waiting
            or protocol.stream is not self._response
            or protocol.framing is None
            or self._response.closed
        ):
            return False
        chunked = protocol.framing == "chunked"
        connection.outgoing.write(chunk.framed if chunked else chunk.data)
        return not connection.gone

    async def send(self, chunk: bytes) -> None:
        """Write a chunk behind what waits; see `WriteThrough.send`."""
        if chunk and not self._is_open():
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError("the response is over")
        if chunk:
            chunked = self._protocol is not None and self._protocol.framing == "chunked"
            self._connection.outgoing.write(Chunk(chunk).framed if chunked else chunk)
        await self._connection.outgoing.flush()
        await trio.lowlevel.checkpoint()
        if self._connection.gone:
            raise trio.BrokenResourceError("the client is gone")

    def _is_open(self) -> bool:
        """Tell whether this response's body is what the connection is sending now."""
        protocol, response = self._protocol, self._response
        return (
            protocol is not None
            and protocol.stream is response
            and protocol.framing is not None
            and not response.closed
        )
