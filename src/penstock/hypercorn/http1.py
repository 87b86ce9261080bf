"""HTTP/1.1 and HTTP/1.0: Hypercorn's `H11Protocol`, and what the guarantee needs beside it.

Deviations from Hypercorn 0.18.0, `hypercorn/protocol/h11.py`:

- ``can_read``, on which `_handle_events` parks the reader of a connection whose client sent more
  than its request, is an `Ahead`: it goes on reading, within bounds, and sees the client leave.
- `stream_send` notes how the body is framed, for those who write through, and announces the end of
  a connection that a stopping server will close.
- `_check_protocol` speaks HTTP/2 on a plain port only where that was allowed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, final

import h11
from hypercorn.events import Closed
from hypercorn.events import Event as IOEvent
from hypercorn.protocol.events import EndBody, Event, Response, StreamClosed
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.utils import suppress_body

if TYPE_CHECKING:
    from penstock.hypercorn.write_through import ResponseWriteThrough

__all__ = ["HTTP1", "Ahead", "HTTP2NotSpoken", "is_too_long"]


class HTTP2NotSpoken(Exception):
    """A client began with HTTP/2 on a port that does not speak it; it has been answered."""


def is_too_long(stream: WSStream) -> bool:
    """Tell whether a WebSocket's message has passed its limit; Hypercorn says so, and reads on."""
    return stream.buffer.length > stream.buffer.max_length


@final
class HTTP1(H11Protocol):
    """One HTTP/1.x connection's protocol; made like Hypercorn's."""

    http2: bool = True  # whether it may become an HTTP/2 connection; Hypercorn's default

    framing: str | None = None
    """How the response's body is framed: "chunked", "until close", or None for neither."""

    through: ResponseWriteThrough | None = None
    """Who writes the response's body past this protocol, while it is open."""

    method: str = ""

    @property
    def receives_body(self) -> bool:
        """Whether the client is in the middle of its request's body."""
        return self.connection.their_state is h11.SEND_BODY

    async def handle(self, event: IOEvent) -> None:
        """Take bytes from the client, or its end."""
        await super().handle(event)
        if isinstance(self.stream, WSStream) and is_too_long(self.stream):
            await self.send(Closed())

    async def stream_send(self, event: Event) -> None:
        """Send a part of the response."""
        if isinstance(event, Response) and event.status_code >= 200:
            if self.context.terminated.is_set():
                event.headers.append((b"connection", b"close"))
            self.framing = self._framing(event)
        elif isinstance(event, (EndBody, StreamClosed)):
            self.framing = None
            if self.through is not None:
                self.through.close()
        await super().stream_send(event)

    def _framing(self, response: Response) -> str | None:
        """Tell what h11 will do with the body of this response, by the rules of RFC 9112, 6.3."""
        if not isinstance(self.connection, h11.Connection) or suppress_body(
            self.method, response.status_code
        ):
            return None
        if any(name.lower() == b"content-length" for name, _ in response.headers):
            return None
        return "chunked" if self.connection.their_http_version == b"1.1" else "until close"

    async def _create_stream(self, request: h11.Request) -> None:
        await super()._create_stream(request)
        if getattr(self.stream, "closed", False) is True:
            # Refused for its host (`server_names`) without an application to say that it is over.
            await self.stream_send(StreamClosed(stream_id=STREAM_ID))

    async def _check_protocol(self, event: h11.Request) -> None:
        self.method = event.method.decode("ascii").upper()
        if self.http2:
            await super()._check_protocol(event)
        elif event.method == b"PRI" and event.http_version == b"2.0":
            await self._send_error_response(505)
            raise HTTP2NotSpoken


@final
class Ahead:
    """What `H11Protocol.can_read` is here: an event whose waiter goes on listening meanwhile."""

    __slots__ = ("_read_ahead", "_set", "_wake")

    def __init__(
        self, read_ahead: Callable[[Callable[[], bool]], Awaitable[None]], wake: Callable[[], None]
    ) -> None:
        self._read_ahead = read_ahead
        self._wake = wake
        self._set = False

    async def clear(self) -> None:
        """Make `wait` wait."""
        self._set = False

    async def set(self) -> None:
        """Let the reader go on with the next request."""
        self._set = True
        self._wake()

    def is_set(self) -> bool:
        """Tell whether `wait` would return."""
        return self._set

    async def wait(self) -> None:
        """Read ahead until the event is set; raises what reading raises."""
        await self._read_ahead(self.is_set)
