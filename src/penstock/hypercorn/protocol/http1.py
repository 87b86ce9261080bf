"""HTTP/1.1 and HTTP/1.0: Hypercorn's `H11Protocol`, changed where it breaks the guarantee.

Deviations from Hypercorn 0.18.0, `hypercorn/protocol/h11.py`:

- `_handle_events` processed everything that was read at once. Here the reader yields when its time
  slice is spent.
- ``can_read``, on which `_handle_events` parks the reader of a client that sent more than its
  request, is a `ReadAheadGate`: it keeps reading, within bounds, and notices a client that leaves.
- Heads, chunk lines and trailers are limited, complete or not (h11 limits only what is incomplete).
  Requests that cannot be served are answered and logged here: see
  `penstock.hypercorn.protocol.request_head`.
- `_maybe_recycle` closed a connection whose reader had not processed the received end of a request.
- `stream_send` records the body's framing, for direct writes, and sends ``Connection: close`` if
  the server is stopping, or if the request is incomplete.
- `_check_protocol` speaks HTTP/2 on a plain port only if that is enabled, and answers an upgrade
  with invalid settings with 400.
- A WebSocket is a `penstock.hypercorn.protocol.websocket.WebSocket`.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time
from typing import Any, cast, final

import h11
from hypercorn.events import Closed, Updated
from hypercorn.protocol.events import (
    Body,
    Data,
    EndBody,
    Event,
    Request,
    Response,
    StreamClosed,
)
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.utils import suppress_body

from penstock.hypercorn.protocol.request_head import (
    RequestRefused,
    body_length,
    check_chunk,
    check_head,
    check_upgrade,
    is_websocket_handshake,
    validate_request,
)
from penstock.hypercorn.protocol.request_log import log_client_fault, write_access_log
from penstock.hypercorn.protocol.websocket import WebSocket
from penstock.hypercorn.wire.incoming import IncomingBytes
from penstock.hypercorn.wire.turns import Turn

__all__ = ["HTTP1", "HTTP2Disabled", "ReadAheadGate"]


class HTTP2Disabled(Exception):
    """A client began with HTTP/2 on a port where it is disabled; it has been answered."""


@final
class HTTP1(H11Protocol):
    """The protocol of one HTTP/1.x connection; constructed like Hypercorn's."""

    http2: bool = True  # whether the connection may switch to HTTP/2; Hypercorn's default

    framing: str | None = None
    """How the response's body is framed: "chunked", "until close", or None for neither."""

    close_direct_writer: Callable[[], None] | None = None
    """Ends direct writes of the response's body; None while there are none."""

    method: str = ""

    turn: Turn | None = None
    """The reader's share of the event loop."""

    _line: bytes = b""  # the current request's first line
    _left: int | None = 0  # body bytes that h11 has not returned yet; None for a chunked body
    _between_chunks: bool = False  # whether a chunk's line or the trailer comes next
    _in_trailer: bool = False

    @property
    def head_begun(self) -> bool:
        """Whether a part of a request's head has been received."""
        return self.connection.their_state is h11.IDLE and bool(self.connection.trailing_data[0])

    @property
    def in_body(self) -> bool:
        """Whether a part of the request's body is still to come."""
        return self.connection.their_state is h11.SEND_BODY

    async def stream_send(self, event: Event) -> None:
        """Send a part of the response."""
        if isinstance(event, Response) and event.status_code >= 200:
            self.task_group.response_begins(event)  # type: ignore[attr-defined]  # it is our RequestTasks
            # Hypercorn closes after a response that precedes the end of its request. RFC 9112, 9.6:
            # it has to announce that, or a proxy sends the next request into a closed connection.
            if self.context.terminated.is_set() or not self._is_complete:
                event.headers.append((b"connection", b"close"))
            self.framing = self._framing(event)
        elif isinstance(event, (EndBody, StreamClosed)):
            self.framing = None
            if self.close_direct_writer is not None:
                self.close_direct_writer()
        await super().stream_send(event)

    def _framing(self, response: Response) -> str | None:
        """Return how h11 will frame this response's body, by the rules of RFC 9112, 6.3."""
        if not isinstance(self.connection, h11.Connection) or suppress_body(
            self.method, response.status_code
        ):
            return None
        if any(name.lower() == b"content-length" for name, _ in response.headers):
            return None
        return "chunked" if self.connection.their_http_version == b"1.1" else "until close"

    async def _handle_events(self) -> None:
        """Handle what the client sent, one h11 event at a time."""
        try:
            while await self._handle_event():
                pass
        except RequestRefused as refusal:
            await log_client_fault(self.config, self.client, str(refusal))
            await self._answer_error(refusal.status)
        except h11.RemoteProtocolError as error:
            await self._answer_error(error.error_status_hint)

    async def _handle_event(self) -> bool:
        """Handle h11's next event, and return whether there may be another."""
        if self.turn is not None and self.turn.due:
            await self.turn.next()
        if self.connection.they_are_waiting_for_100_continue:
            headers = self.config.response_headers("h11")
            await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=headers))
        limit = self.config.h11_max_incomplete_size
        if self.head_begun:
            received = self.connection.trailing_data[0]
            self._line = received[:limit].split(b"\n", 1)[0].rstrip(b"\r")
            check_head(received, limit)
        elif self._between_chunks:
            received = self.connection.trailing_data[0]
            self._in_trailer = check_chunk(received, limit, trailer=self._in_trailer)
        event = self.connection.next_event()
        if isinstance(event, h11.Request):
            await self.send(Updated(idle=False))
            event = validate_request(event)
            self._left = body_length(event)
            self._between_chunks = self._left is None
            await self._check_protocol(event)
            await self._create_stream(event)
        elif event is h11.PAUSED:
            if self.turn is not None:
                self.turn.end()
            await self.can_read.clear()
            await self.can_read.wait()
            if self.turn is not None:
                self.turn.begin()
        elif event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed) or not self.stream:
            return False
        elif isinstance(event, h11.Data):
            self._between_chunks = event.chunk_end
            if self._left is not None:
                self._left -= len(event.data)
            await self.stream.handle(Body(stream_id=STREAM_ID, data=event.data))
        elif isinstance(event, h11.EndOfMessage):
            self._between_chunks = self._in_trailer = False
            await self.stream.handle(EndBody(stream_id=STREAM_ID))
        elif isinstance(event, Data):  # from a WebSocket
            await self.stream.handle(event)
        return True

    @property
    def _is_complete(self) -> bool:
        """Whether the whole request has been received, processed by h11 or not."""
        if not self.in_body:
            return True
        return self._left is not None and len(self.connection.trailing_data[0]) >= self._left

    async def _maybe_recycle(self) -> None:
        """Reuse the connection after a response, if the whole request has been received."""
        if self._is_complete and self.in_body:
            # The reader waits for its turn. The application has responded: discard the body here.
            while isinstance(self.connection.next_event(), h11.Data):
                pass
        await super()._maybe_recycle()

    async def _answer_error(self, status: int) -> None:
        """Answer a refused request, unless a response has begun, and close the connection."""
        if self.connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            await self.send(Updated(idle=False))  # so that the client can read the answer
            await self._send_error_response(status)
            await self._log_access(status)
        await self.send(Closed())

    async def _log_access(self, status: int) -> None:
        """Log a request that the protocol answers itself."""
        if self.stream is None:
            method, _, rest = self._line.partition(b" ")
            target, _, version = rest.rpartition(b" HTTP/")
            await write_access_log(self, status, method, target or rest, version)
        else:
            seconds = time() - self.stream.start_time
            summary: Any = {"status": status, "headers": []}
            await self.stream.config.log.access(self.stream.scope, summary, seconds)

    async def _create_stream(self, request: h11.Request) -> None:
        if is_websocket_handshake(request):
            await self._create_websocket(request)
        else:
            await super()._create_stream(request)
        if getattr(self.stream, "closed", False) is True:
            # Refused for its host (`server_names`): no application will end the stream.
            await self.stream_send(StreamClosed(stream_id=STREAM_ID))

    async def _create_websocket(self, request: h11.Request) -> None:
        """Do what `H11Protocol._create_stream` does, with Penstock's `WebSocket`."""
        self.stream: Any = WebSocket(
            *(self.app, self.config, self.context, self.task_group, self.ssl),
            *(self.client, self.server, self.stream_send, STREAM_ID),
            turn=self.turn,
        )
        self.connection: Any = H11WSConnection(cast(h11.Connection, self.connection))
        raw = self.config.h11_pass_raw_headers
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=request.headers.raw_items() if raw else list(request.headers),
                http_version=request.http_version.decode(),
                method="GET",
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1
        await self.context.mark_request()

    async def _check_protocol(self, event: h11.Request) -> None:
        self.method = event.method.decode("ascii").upper()
        if self.http2:
            if any(name == b"upgrade" and value.lower() == b"h2c" for name, value in event.headers):
                check_upgrade(event)
            await super()._check_protocol(event)
        elif event.method == b"PRI" and event.http_version == b"2.0":
            await self._send_error_response(505)
            await self._log_access(505)
            raise HTTP2Disabled


@final
class ReadAheadGate:
    """Replaces the event `H11Protocol.can_read`: waiting for it keeps reading from the client."""

    __slots__ = ("_incoming", "_set")

    def __init__(self, incoming: IncomingBytes) -> None:
        self._incoming = incoming
        self._set = False

    async def clear(self) -> None:
        """Make `wait` wait."""
        self._set = False

    async def set(self) -> None:
        """Let the reader continue with the next request."""
        self._set = True
        self._incoming.wake()

    def is_set(self) -> bool:
        """Return whether `wait` would return."""
        return self._set

    async def wait(self) -> None:
        """Read ahead until the event is set; raises what `IncomingBytes.read_ahead` raises."""
        await self._incoming.read_ahead(self.is_set)
