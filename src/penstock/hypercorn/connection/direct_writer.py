"""The server's offer to write a response's bytes directly, past the ASGI interface.

It is made in each request's ``scope["extensions"]``, as `penstock.stream.transport.DIRECT_WRITER`
says. It is taken only where the response is sent by the very ``send`` that the server gave the
application: a middleware that passes on another one is handed every byte.
"""

from __future__ import annotations

from typing import Any, Protocol, final

import trio
from hypercorn.protocol.http_stream import HTTPStream

from penstock.hypercorn.protocol.http1 import HTTP1
from penstock.hypercorn.protocol.http2 import HTTP2
from penstock.hypercorn.wire.outgoing import Outgoing
from penstock.stream.transport import Chunk

__all__ = ["ConnectionWriter", "ResponseDirectWriter"]


class ConnectionWriter(Protocol):
    """What direct writes need of a connection."""

    carries_stream: bool
    """Whether a response is, or was, an event stream."""

    @property
    def gone(self) -> bool:
        """Whether the connection is closed."""
        ...

    @property
    def outgoing(self) -> Outgoing:
        """What it writes to."""
        ...

    @property
    def protocol(self) -> HTTP1 | HTTP2 | None:
        """What it speaks."""
        ...


@final
class ResponseDirectWriter:
    """A `penstock.stream.transport.DirectWriter` for the response to one request on a connection.

    Hypercorn's h11 keeps no state between two chunks of a response's body, so chunks that are
    written behind it are legal, and the end of the body is still its own. On HTTP/2, where each
    byte needs the protocol's windows, nothing is taken: there this only tells who was `stalled`.
    """

    __slots__ = (
        *("_chunked", "_connection", "_direct", "_outgoing", "_protocol", "_response", "_send"),
    )

    def __init__(self, connection: ConnectionWriter, response: HTTPStream, send: Any) -> None:
        self._connection = connection
        self._response = response
        self._send = send  # what the application is given
        self._direct = False
        self._protocol: HTTP1 | None = None
        self._outgoing: Outgoing | None = None  # while it is open
        self._chunked = True

    @property
    def stalled(self) -> bool:
        """Whether the client was given up because it did not read."""
        protocol = self._connection.protocol
        if self._connection.outgoing.stalled:
            return True
        return isinstance(protocol, HTTP2) and self._response.stream_id in protocol.stalled_streams

    def set_sender(self, send: object) -> None:
        """Name what the response is sent by; see `DirectWriter.set_sender`."""
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
        """Write nothing more: the response's end comes now, or its client has gone."""
        self._outgoing = None
        if self._protocol is not None:
            self._protocol.close_direct_writer = None
            self._protocol = None

    def write_nowait(self, chunk: Chunk) -> bool:
        """Write a chunk if nothing waits before it; see `DirectWriter.write_nowait`."""
        outgoing = self._outgoing
        return outgoing is not None and outgoing.write_nowait(
            chunk.framed if self._chunked else chunk.data
        )

    async def send(self, chunk: bytes) -> None:
        """Write a chunk behind what waits; see `DirectWriter.send`."""
        outgoing = self._outgoing
        if chunk and outgoing is None:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError("the response is over")
        if chunk and outgoing is not None:
            # The frame apart, so that an event which waits for many clients is in memory once.
            for part in Chunk.parts(chunk) if self._chunked else [chunk]:
                outgoing.write(part)
        await self._connection.outgoing.flush()
        await trio.lowlevel.checkpoint()
        if self._connection.gone:
            raise trio.BrokenResourceError("the client is gone")
