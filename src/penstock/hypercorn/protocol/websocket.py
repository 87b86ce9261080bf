"""WebSockets: Hypercorn's `WSStream`, whose client buys neither memory nor the event loop.

Deviations from Hypercorn 0.18.0, `hypercorn/protocol/ws_stream.py`:

- `_accept` agreed on a permessage-deflate that inflates whatever comes: 64 KiB of it are 64 MiB.
  Here it stops at the size that a message may have.
- `_handle_events` worked off a whole read at once, and took any number of fragments without data;
  `handle` had all of it inflated in one go.
- Bytes before the handshake's answer were answered with 400 and left the application, and with it
  the connection, waiting for ever; here they end both. A message that is too large does, too.
"""

from __future__ import annotations

import zlib
from time import time
from typing import TYPE_CHECKING, Any, Final, final

from hypercorn.protocol.events import Body, Data, EndBody, EndData, Event, Response, StreamClosed
from hypercorn.protocol.ws_stream import ASGIWebsocketState, FrameTooLargeError, WSStream
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import CloseConnection, Message, Ping
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason
from wsproto.handshake import server_extensions_handshake

from penstock.hypercorn.protocol.frames import FrameBudget

if TYPE_CHECKING:
    from penstock.hypercorn.wire.turns import Turn

__all__ = ["WebSocket"]

# Deflated bytes to work off between two looks at the clock: inflated, they are a megabyte at most.
_PIECE: Final = 2**10


@final
class _BoundedDeflate(PerMessageDeflate):
    """The extension permessage-deflate, which inflates a message up to a size and no further."""

    def __init__(self, max_size: int) -> None:
        super().__init__()
        self._max_size = max_size
        self._size = 0  # of the message so far, inflated

    def accept(self, offer: str) -> bool | str | None:
        """Agree to an offer, or decline one whose parameters are not numbers."""
        try:
            return super().accept(offer)
        except ValueError:
            return None

    def frame_inbound_payload_data(self, proto: Any, data: bytes) -> bytes | CloseReason:
        """Inflate a part of a message, or say that the message is too large."""
        if not (self._inbound_compressed and self._inbound_is_compressible):
            return data
        assert self._decompressor is not None
        if self._decompressor.eof and data:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA  # zlib would keep it, and do nothing
        # One byte more than allowed shows that there is more, and a limit of 0 would be none.
        limit = self._max_size - self._size + 1
        try:
            inflated = self._decompressor.decompress(bytes(data), limit)
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        self._size += len(inflated)
        return CloseReason.MESSAGE_TOO_BIG if self._size > self._max_size else inflated

    def frame_inbound_complete(self, proto: Any, fin: bool) -> bytes | CloseReason | None:
        """Inflate what the end of a message leaves out of it: four bytes, which bring little."""
        if fin and self._inbound_is_compressible:
            self._size = 0
        rest = super().frame_inbound_complete(proto, fin)
        if fin and self._decompressor is not None and self._decompressor.eof:
            self._decompressor = None  # the next message begins a new stream of zlib's
        return rest


@final
class WebSocket(WSStream):
    """One WebSocket; made like Hypercorn's, with the reader's turn behind."""

    def __init__(self, *args: Any, turn: Turn | None) -> None:
        super().__init__(*args)
        self._turn = turn
        self._budget = FrameBudget()
        self._inflates = False  # whether permessage-deflate was agreed on

    @property
    def untaken(self) -> int:
        """What the messages count for that its application has not taken."""
        inbox: Any = getattr(self.app_put, "__self__", None)  # whose `put` it is
        return 0 if inbox is None else int(inbox.untaken)

    async def handle(self, event: Event) -> None:
        """Take what the connection has for this WebSocket."""
        if self.closed or not isinstance(event, (Body, Data, EndBody)):
            await super().handle(event)
        elif not self.handshake.accepted:
            # Spec: RFC 6455, 4.1: a client sends nothing before it has the handshake's answer.
            if self.state is ASGIWebsocketState.HANDSHAKE:
                await self._send_error_response(400)
                self.state = ASGIWebsocketState.HTTPCLOSED
            await self.send(StreamClosed(stream_id=self.stream_id))
        elif isinstance(event, EndBody):
            # Spec: RFC 8441, 5: this is what closing the connection is on HTTP/2.
            await self.send(StreamClosed(stream_id=self.stream_id))
        else:
            step = _PIECE if self._inflates else len(event.data) or 1
            for start in range(0, len(event.data), step):
                if self.closed:
                    break
                self.connection.receive_data(event.data[start : start + step])
                await self._handle_events()

    async def _handle_events(self) -> None:
        """Do what the frames that were received say, one by one."""
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
                    await self._close(event.code)  # what came is no WebSocket frame, or too large
                else:
                    await self.send(StreamClosed(stream_id=self.stream_id))

    async def _close(self, code: int) -> None:
        """Close for the client's fault, without waiting for its consent."""
        await self._send_wsproto_event(CloseConnection(code=code))
        await self.send(EndData(stream_id=self.stream_id))
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def _accept(self, message: Any) -> None:
        """Accept the handshake; permessage-deflate, if the client offers it, is bounded."""
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
