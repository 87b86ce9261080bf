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

from contextlib import suppress
from typing import TYPE_CHECKING, Any, final

import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, StreamClosed
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import WSStream

from penstock.hypercorn.frames import FrameLengths
from penstock.hypercorn.http1 import is_too_long
from penstock.hypercorn.http2_sending import Sending

if TYPE_CHECKING:
    from penstock.hypercorn.requests import Requests

__all__ = ["HTTP2"]


@final
class HTTP2(Sending):
    """One HTTP/2 connection's protocol; made like Hypercorn's."""

    requests: Requests | None = None
    """What runs for this connection."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._frames = FrameLengths()

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Open the client's windows by what an application has taken."""
        waiting = self._unacknowledged.get(stream_id, 0)
        size = min(size, waiting)
        if size and self.wire is not None and not self.closed:
            self._unacknowledged[stream_id] = waiting - size
            self._open_window(stream_id, size)
            self.wire(self._take_unsent())

    async def initiate(
        self, headers: list[tuple[bytes, bytes]] | None = None, settings: bytes | None = None
    ) -> None:
        """Begin, with the request that asked for the upgrade if there was one.

        Its sender runs before that request is looked at, which may be refused, and wait for it.
        """
        self.task_group.spawn(self.send_task)
        if settings is not None:
            self.connection.initiate_upgrade_connection(settings)
        else:
            self.connection.initiate_connection()
        await self._flush()
        if headers is not None:
            await self._create_stream(h2.events.RequestReceived(stream_id=1, headers=headers))
            if (stream := self.streams.get(1)) is not None:
                await stream.handle(EndBody(stream_id=1))

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

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                if self._retired or self.context.terminated.is_set():
                    refused = h2.errors.ErrorCodes.REFUSED_STREAM
                    self.connection.reset_stream(event.stream_id, refused)
                    continue
                if self._has_too_many():
                    calm = h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
                    self.connection.reset_stream(event.stream_id, calm)
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

    def _has_too_many(self) -> bool:
        """Tell whether more applications run than a client may have streams.

        One that opens and resets streams in quick succession has few streams at any moment, while
        the applications that ran for the others are still ending (CVE-2023-44487).
        """
        most = 2 * self.config.h2_max_concurrent_streams
        return self.requests is not None and self.requests.open > most

    async def _data_received(self, event: h2.events.DataReceived) -> None:
        stream_id, data = event.stream_id, event.data or b""
        size = event.flow_controlled_length or 0
        stream = self.streams.get(stream_id)
        if stream is not None and data:
            if isinstance(stream, HTTPStream):
                # What is only padding is acknowledged now, the rest when it is taken.
                waiting = self._unacknowledged.get(stream_id, 0)
                self._unacknowledged[stream_id] = waiting + len(data)
                size -= len(data)
            await stream.handle(Body(stream_id=stream_id, data=data))
            if isinstance(stream, WSStream) and is_too_long(stream):
                await self._reset(stream_id, h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
                await self._end(stream_id)
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
