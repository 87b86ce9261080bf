"""HTTP/2: Hypercorn's `H2Protocol`, with the methods replaced that break the guarantee.

Deviations from Hypercorn 0.18.0, `hypercorn/protocol/h2.py`; `tests/interop/test_upstream.py` fails
when the code that is replaced or built on changes there:

- `StreamBuffer` is `penstock.hypercorn.window.Window`.
- `send_task` and `_send_data` waited for ever for a window; here a stream whose bytes have waited
  ``send_timeout`` seconds is reset.
- `_handle_events` raised on DATA behind the response's end, kept a connection busy for ever after
  RST_STREAM, and took data for an application that does not read; here windows are opened for what
  was taken only.
- `_create_stream` raised on methods and paths that are not ASCII, and on a CONNECT without a path.
- `_priority_updated` raised at the 1001st; RFC 9113, 5.3.2, deprecates these, and they are ignored.
- `handle` left applications waiting in the buffers of a closed connection.
- `stream_send` left the client of a response that failed half-way waiting for its end; it is reset.
- A connection that takes no more requests is told so with GOAWAY, and its streams live on: h2's own
  `close_connection` would end them.
- `handle` let a frame of any announced length be collected; see `penstock.hypercorn.frames`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, final

import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, Data, EndBody, EndData, StreamClosed, Trailers
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h2 import BufferCompleteError, H2Protocol
from hyperframe.frame import GoAwayFrame
from priority.priority import DeadlockError

from penstock.hypercorn.frames import FrameLengths
from penstock.hypercorn.window import Windows

__all__ = ["HTTP2"]

# Bytes that wait with one deadline: a large body is handed over in such pieces.
_PIECE: Final = 2**16


@final
class HTTP2(H2Protocol):
    """One HTTP/2 connection's protocol; made like Hypercorn's."""

    send_timeout: float = math.inf
    """Seconds that a stream's bytes may wait for its window."""

    wire: Callable[[bytes], None] | None = None
    """Writes bytes behind those that were sent, without waiting."""

    stream_buffers: Windows  # type: ignore[assignment]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.stream_buffers = Windows(self.context.event_class)
        self.stalled_streams: set[int] = set()
        self._unacknowledged: dict[int, int] = {}
        self._frames = FrameLengths()
        self._retired = False
        self._told = False
        self._unsent = b""

    def retire(self) -> None:
        """Open no more streams; those that are open go on to their end, and then comes GOAWAY.

        It could come at once, but Python's h2 (and so httpx) takes no more data behind it.
        """
        self._retired = True
        if self.idle:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        """Tell the client to open no more streams.

        Spec: RFC 9113, 6.8: GOAWAY names the last stream that is served.
        """
        if not self._told:
            self._told = True
            last = self.connection.highest_inbound_stream_id
            self._unsent = GoAwayFrame(0, last_stream_id=last).serialize()
            if self.wire is not None:
                self.wire(self._take_unsent())

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Open the client's windows by what an application has taken."""
        waiting = self._unacknowledged.get(stream_id, 0)
        size = min(size, waiting)
        if size and self.wire is not None and not self.closed:
            self._unacknowledged[stream_id] = waiting - size
            self._open_window(stream_id, size)
            self.wire(self._take_unsent())

    def _open_window(self, stream_id: int, size: int) -> None:
        with suppress(h2.exceptions.ProtocolError):  # the connection has been terminated
            self.connection.acknowledge_received_data(size, stream_id)

    def _take_unsent(self) -> bytes:
        data = self.connection.data_to_send() + self._unsent
        self._unsent = b""
        return data

    async def _flush(self) -> None:
        if data := self._take_unsent():
            await self.send(RawData(data=data))

    async def send_task(self) -> None:
        """Send what the streams have, as far as their windows are open, until it is closed."""
        while not self.closed:
            try:
                stream_id = next(self.priority)
            except DeadlockError:
                with trio.CancelScope(deadline=self._next_deadline()):
                    await self.has_data.wait()
                await self.has_data.clear()
                await self._reset_stalled()
            else:
                await self._send_data(stream_id)

    async def _send_data(self, stream_id: int) -> None:
        window = self.stream_buffers[stream_id]
        try:
            open_for = self.connection.local_flow_control_window(stream_id)
            size = max(0, min(open_for, self.connection.max_outbound_frame_size))
            if data := await window.pop(size):
                self.connection.send_data(stream_id, data, end_stream=window.complete)
            elif window.complete:
                self.connection.end_stream(stream_id)
            else:
                self.priority.block(stream_id)
                return
        except h2.exceptions.ProtocolError:
            await self._forget(stream_id)  # the stream has closed meanwhile
            return
        if window.complete:
            await self._forget(stream_id)
        await self._flush()

    def _next_deadline(self) -> float:
        return min((window.deadline for window in self.stream_buffers.values()), default=math.inf)

    async def _reset_stalled(self) -> None:
        """Reset each stream whose client has not opened its window for too long."""
        now = self.context.time()
        late = [each for each, window in self.stream_buffers.items() if window.deadline <= now]
        for stream_id in late:
            self.stalled_streams.add(stream_id)
            await self._reset(stream_id, h2.errors.ErrorCodes.CANCEL)
            await self._end(stream_id)
        if late:
            await self._flush()

    async def _reset(self, stream_id: int, code: h2.errors.ErrorCodes) -> None:
        """Reset a stream whose end was not sent. Not a checkpoint."""
        if stream_id in self.stream_buffers:
            with suppress(h2.exceptions.ProtocolError):  # the client was faster
                self.connection.reset_stream(stream_id, code)
            await self._forget(stream_id)

    async def _forget(self, stream_id: int) -> None:
        """Drop what a stream has to send. Not a checkpoint."""
        if (window := self.stream_buffers.pop(stream_id, None)) is not None:
            self.priority.remove_stream(stream_id)
            await window.close()

    async def _end(self, stream_id: int) -> None:
        """End a stream; its application is told. Not a checkpoint."""
        await self._forget(stream_id)
        await self._close_stream(stream_id)
        if self._retired and self.idle:
            self._say_goodbye()
        await self.send(Updated(idle=self.idle))

    async def _close_stream(self, stream_id: int) -> None:
        if untaken := self._unacknowledged.pop(stream_id, 0):
            # What nobody took leaves the window of the connection, which all streams share.
            self._open_window(stream_id, untaken)
        await super()._close_stream(stream_id)

    async def handle(self, event: Event) -> None:
        """Take bytes from the client, or its end."""
        if isinstance(event, RawData):
            if self._frames.exceed(event.data, self.connection.max_inbound_frame_size):
                code = h2.errors.ErrorCodes.FRAME_SIZE_ERROR
                with suppress(h2.exceptions.ProtocolError):
                    self.connection.close_connection(code)
                await self._flush()
                await self.send(Closed())
                return
            try:
                events = self.connection.receive_data(event.data)
            except h2.exceptions.ProtocolError:
                await self._flush()
                await self.send(Closed())
            else:
                await self._handle_events(events)
        elif isinstance(event, Closed):
            self.closed = True
            for window in self.stream_buffers.values():
                await window.close()
            for stream_id in list(self.streams):
                stream = self.streams.pop(stream_id)
                await stream.handle(StreamClosed(stream_id=stream_id))
            await self.has_data.set()

    async def stream_send(self, event: StreamEvent) -> None:
        """Send a part of a response."""
        stream_id = event.stream_id
        if isinstance(event, (Body, Data)):
            for start in range(0, len(event.data), _PIECE):
                if (window := self.stream_buffers.get(stream_id)) is None:
                    return
                deadline = self.context.time() + self.send_timeout
                self.priority.unblock(stream_id)
                await self.has_data.set()
                try:
                    await window.push(event.data[start : start + _PIECE], deadline)
                except BufferCompleteError:
                    return
            await self.context.sleep(0)  # who only sends must notice that it was cancelled
        elif isinstance(event, (EndBody, EndData)):
            if (window := self.stream_buffers.get(stream_id)) is not None:
                self.priority.unblock(stream_id)
                await self.has_data.set()
                await window.finish()
        elif isinstance(event, Trailers):
            if (window := self.stream_buffers.get(stream_id)) is not None:
                self.priority.unblock(stream_id)
                await self.has_data.set()
                await window.drain()
                await self._forget(stream_id)
                with suppress(h2.exceptions.ProtocolError):
                    self.connection.send_headers(stream_id, event.headers, end_stream=True)
                await self._flush()
        elif isinstance(event, StreamClosed):
            await self._reset(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
            await self._end(stream_id)
            await self._flush()
        else:
            await super().stream_send(event)

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                if self._retired or self.context.terminated.is_set():
                    refused = h2.errors.ErrorCodes.REFUSED_STREAM
                    self.connection.reset_stream(event.stream_id, refused)
                    continue
                await self._create_stream(event)
                await self.send(Updated(idle=self.idle))
                if self.keep_alive_requests > self.config.keep_alive_max_requests:
                    self._retired = True
                    self._say_goodbye()
            elif isinstance(event, h2.events.DataReceived):
                await self._data_received(event)
            elif isinstance(event, h2.events.StreamEnded):
                if (stream := self.streams.get(event.stream_id)) is not None:
                    await stream.handle(EndBody(stream_id=event.stream_id))
            elif isinstance(event, h2.events.StreamReset):
                await self._end(event.stream_id)
            elif isinstance(event, h2.events.WindowUpdated):
                await self._window_updated(event.stream_id)
            elif isinstance(event, h2.events.RemoteSettingsChanged):
                if h2.settings.SettingCodes.INITIAL_WINDOW_SIZE in event.changed_settings:
                    await self._window_updated(None)
            elif isinstance(event, h2.events.ConnectionTerminated):
                await self.send(Closed())
        await self._flush()

    async def _data_received(self, event: h2.events.DataReceived) -> None:
        stream_id, data = event.stream_id, event.data or b""
        size = event.flow_controlled_length or 0
        stream = self.streams.get(stream_id)
        if stream is not None and data:
            # What is only padding is acknowledged now, the rest when it is taken.
            self._unacknowledged[stream_id] = self._unacknowledged.get(stream_id, 0) + len(data)
            size -= len(data)
            await stream.handle(Body(stream_id=stream_id, data=data))
        if size:
            self._open_window(stream_id, size)

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        headers = dict(request.headers or ())
        method, path = headers.get(b":method"), headers.get(b":path")
        if not (method and path and method.isascii() and path.isascii()):
            self.connection.reset_stream(request.stream_id, h2.errors.ErrorCodes.PROTOCOL_ERROR)
            return
        await super()._create_stream(request)
        if getattr(self.streams[request.stream_id], "closed", False) is True:
            # Refused for its host (`server_names`) without an application to say that it is over.
            await self.stream_send(StreamClosed(stream_id=request.stream_id))
