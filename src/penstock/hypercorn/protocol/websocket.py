"""WebSockets: Hypercorn's `WSStream`, with bounds on a client's memory and processor time.

Deviations from Hypercorn 0.18.0, `hypercorn/protocol/ws_stream.py`:

- `_accept` agreed to a permessage-deflate that inflates any input: 64 KiB become 64 MiB. Here it
  stops at the maximum size of a message.
- `_handle_events` processed a whole read at once, and accepted any number of empty fragments;
  `handle` inflated the whole input first.
- Bytes before the handshake's answer got 400, and the application, and with it the connection,
  waited forever; here they end both. So does a message that is too large.
"""

from __future__ import annotations

import zlib
from time import time
from typing import Any, Final, final

from hypercorn.protocol.events import Body, Data, EndBody, EndData, Event, Response, StreamClosed
from hypercorn.protocol.ws_stream import ASGIWebsocketState, FrameTooLargeError, WSStream
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import CloseConnection, Message, Ping
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason
from wsproto.handshake import server_extensions_handshake

from penstock.hypercorn.protocol.http2_frames import FrameBudget
from penstock.hypercorn.wire.turns import Turn

__all__ = ["WebSocket"]

# Deflated bytes to process between two looks at the clock: inflated, they are a megabyte at most.
_PIECE: Final = 2**10


@final
class _BoundedDeflate(PerMessageDeflate):
    """The permessage-deflate extension, which stops inflating a message at a maximum size."""

    def __init__(self, max_size: int) -> None:
        super().__init__()
        self._max_size = max_size
        self._size = 0  # inflated bytes of the current message

    def accept(self, offer: str) -> bool | str | None:
        """Agree to an offer; decline an offer whose parameters are not numbers."""
        try:
            return super().accept(offer)
        except ValueError:
            return None

    def frame_inbound_payload_data(self, proto: Any, data: bytes) -> bytes | CloseReason:
        """Inflate a part of a message, or report that the message is too large."""
        if not (self._inbound_compressed and self._inbound_is_compressible):
            return data
        assert self._decompressor is not None
        if self._decompressor.eof and data:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA  # zlib would only store it
        # An extra byte shows that the message is too large; to zlib, a limit of 0 means no limit.
        limit = self._max_size - self._size + 1
        try:
            inflated = self._decompressor.decompress(bytes(data), limit)
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        self._size += len(inflated)
        return CloseReason.MESSAGE_TOO_BIG if self._size > self._max_size else inflated

    def frame_inbound_complete(self, proto: Any, fin: bool) -> bytes | CloseReason | None:
        """Inflate the four bytes that the sender omits at a message's end, which yield little."""
        if fin and self._inbound_is_compressible:
            self._size = 0
        rest = super().frame_inbound_complete(proto, fin)
        if fin and self._decompressor is not None and self._decompressor.eof:
            self._decompressor = None  # the next message begins a new zlib stream
        return rest


@final
class WebSocket(WSStream):
    """One WebSocket; constructed like Hypercorn's, plus the reader's turn."""

    def __init__(self, *args: Any, turn: Turn | None) -> None:
        super().__init__(*args)
        self._turn = turn
        self._budget = FrameBudget()
        self._inflates = False  # whether permessage-deflate was negotiated

    @property
    def unconsumed(self) -> int:
        """The size of the messages that its application has not received."""
        queue: Any = getattr(self.app_put, "__self__", None)  # a ReceiveQueue, whose `put` this is
        return 0 if queue is None else int(queue.unconsumed)

    async def handle(self, event: Event) -> None:
        """Handle an event of the connection for this WebSocket."""
        if self.closed or not isinstance(event, (Body, Data, EndBody)):
            await super().handle(event)
        elif not self.handshake.accepted:
            # Spec: RFC 6455, 4.1: a client sends nothing before the handshake is answered.
            if self.state is ASGIWebsocketState.HANDSHAKE:
                await self._send_error_response(400)
                self.state = ASGIWebsocketState.HTTPCLOSED
            await self.send(StreamClosed(stream_id=self.stream_id))
        elif isinstance(event, EndBody):
            # Spec: RFC 8441, 5: on HTTP/2, END_STREAM stands for closing the TCP connection.
            await self.send(StreamClosed(stream_id=self.stream_id))
        else:
            step = _PIECE if self._inflates else len(event.data) or 1
            for start in range(0, len(event.data), step):
                if self.closed:
                    break
                self.connection.receive_data(event.data[start : start + step])
                await self._handle_events()

    async def _handle_events(self) -> None:
        """Handle the received frames one by one."""
        for event in self.connection.events():
            if self._turn is not None and self._turn.due:
                await self._turn.next()
            if self.closed:
                break
            if isinstance(event, Message):
                if not (event.data or event.message_finished) and not self._budget.spend(1):
                    await self._close(CloseReason.POLICY_VIOLATION)
                    break
                try:
                    self.buffer.extend(event)
                except FrameTooLargeError:
                    await self._close(CloseReason.MESSAGE_TOO_BIG)
                    break
                if event.message_finished:
                    assert self.app_put is not None
                    await self.app_put(self.buffer.to_message())
                    self.buffer.clear()
            elif isinstance(event, Ping):
                if not self._budget.spend(1):
                    await self._close(CloseReason.POLICY_VIOLATION)
                    break
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                if self.connection.state is ConnectionState.REMOTE_CLOSING:
                    await self._send_wsproto_event(event.response())
                    await self.send(StreamClosed(stream_id=self.stream_id))
                elif self.connection.state is ConnectionState.OPEN:
                    await self._close(event.code)  # an invalid frame, or one that is too large
                else:
                    await self.send(StreamClosed(stream_id=self.stream_id))

    async def _close(self, code: int) -> None:
        """Close because of the client's fault; do not wait for its close frame."""
        await self._send_wsproto_event(CloseConnection(code=code))
        await self.send(EndData(stream_id=self.stream_id))
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def _accept(self, message: Any) -> None:
        """Accept the handshake; negotiate a bounded permessage-deflate if the client offers it."""
        self.state: ASGIWebsocketState = ASGIWebsocketState.CONNECTED
        offered, self.handshake.extensions = self.handshake.extensions, None
        status, headers, _ = self.handshake.accept(
            message.get("subprotocol"), message.get("headers", [])
        )
        extensions = [_BoundedDeflate(self.buffer.max_length)]
        if offered and (agreed := server_extensions_handshake(offered, list(extensions))):
            headers.append((b"sec-websocket-extensions", agreed))
            self._inflates = True
        self.connection: Any = Connection(ConnectionType.SERVER, list(extensions))
        await self.send(Response(stream_id=self.stream_id, status_code=status, headers=headers))
        await self.config.log.access(
            self.scope,
            {"status": status, "headers": []},
            time() - self.start_time,
        )
        if self.config.websocket_ping_interval is not None:
            self.task_group.spawn(self._send_pings)
