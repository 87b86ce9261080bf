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
- `handle` left applications waiting in the buffers of a closed connection, let a frame of any
  announced length be collected, and worked off all frames of a read at once. Here frames are taken
  one by one (see `penstock.hypercorn.frames`); the reader gives way to others when its slice of
  time is spent, and a client whose frames are useless is told ENHANCE_YOUR_CALM.
- A client's GOAWAY ended its streams. RFC 9113, 6.8: those that are open go on. h2 cannot do that,
  so it does not see that frame.
- `stream_send` left the client of a response that failed half-way waiting for its end; it is reset.
- A connection that takes no more requests is told so with GOAWAY, and its streams live on: h2's own
  `close_connection` would end them.
- A malformed request ended the connection; its stream is reset.
- Requests have the limits of HTTP/1.1, and those that cannot be served are answered here.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, final

import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from h2.utilities import HeaderValidationFlags, validate_headers
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, Request, StreamClosed
from hypercorn.utils import filter_pseudo_headers

from penstock.hypercorn.access import log_refused
from penstock.hypercorn.frames import (
    ANSWERED,
    CONTINUATION,
    GOAWAY,
    HEADERS,
    REFUSED,
    BlockTooLong,
    Frame,
    Frames,
    FrameTooLong,
)
from penstock.hypercorn.head import RequestRefused, check_ascii, check_fields, split_target
from penstock.hypercorn.http2_sending import Sending
from penstock.hypercorn.incoming import MAX_AHEAD
from penstock.hypercorn.refusal import log_line, log_refusal
from penstock.hypercorn.websocket import WebSocket
from penstock.printable import printable

if TYPE_CHECKING:
    from penstock.hypercorn.requests import Requests
    from penstock.hypercorn.turns import Turn

__all__ = ["HTTP2"]

# What may come of a block of fields, and what that is to `validate_headers`.
_HEADS = (h2.events.RequestReceived, h2.events.TrailersReceived)
_FLAGS = {
    head: HeaderValidationFlags(
        is_client=False,
        is_trailer=head is h2.events.TrailersReceived,
        is_response_header=False,
        is_push_promise=False,
    )
    for head in _HEADS
}


@final
class HTTP2(Sending):
    """One HTTP/2 connection's protocol; made like Hypercorn's."""

    requests: Requests | None = None
    """What runs for this connection."""

    turn: Turn | None = None
    """The reader's share of the loop."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # What is too large for an application is answered with 431, up to twice the limit; beyond
        # that, to decode it would take too long. Hypercorn announces its own limit to h2, which
        # does not enforce it.
        twice = 2 * self.config.h11_max_incomplete_size
        largest = min(self.config.h2_max_header_list_size, twice)
        self.connection.decoder.max_header_list_size = largest
        self.connection.config.validate_inbound_headers = False  # see `_is_well_formed`
        self._frames = Frames(largest)
        self._logged = False
        self._terminated = False

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Open the client's windows by what an application has taken."""
        waiting = self._unacknowledged.get(stream_id, 0)
        stream = self.streams.get(stream_id)
        if isinstance(stream, WebSocket):
            # Its messages have other sizes than the frames that brought them.
            size = waiting if stream.untaken <= MAX_AHEAD else 0
        size = min(size, waiting)
        if size and self.wire is not None and not self.closed:
            self._unacknowledged[stream_id] = waiting - size
            self._open_window(stream_id, size)
            if data := self._take_unsent():
                self.wire(data)

    async def initiate(
        self, headers: list[tuple[bytes, bytes]] | None = None, settings: bytes | None = None
    ) -> None:
        """Begin, with the request that asked for the upgrade if there was one."""
        self.task_group.spawn(self.send_task)
        if settings is not None:
            self.connection.initiate_upgrade_connection(settings)
        else:
            self.connection.initiate_connection()
        await self._flush()
        if headers is not None:
            await self._request_received(h2.events.RequestReceived(stream_id=1, headers=headers))
            if (stream := self.streams.get(1)) is not None:
                await stream.handle(EndBody(stream_id=1))

    async def handle(self, event: Event) -> None:
        """Take bytes from the client, or its end."""
        if isinstance(event, RawData):
            try:
                for frame in self._frames.split(event.data, self.connection.max_inbound_frame_size):
                    if self.turn is not None and self.turn.due:
                        await self._flush()
                        await self.turn.next()
                    await self._handle_frame(frame)
            except FrameTooLong:
                await self._terminate(h2.errors.ErrorCodes.FRAME_SIZE_ERROR)
            except BlockTooLong:
                await self._log("sent a header block that is too long to be answered")
                await self._terminate(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            except h2.exceptions.ProtocolError as error:
                await self._log(f"broke HTTP/2's rules: {printable(str(error), limit=200)}")
                self._told = True  # h2 has written its own GOAWAY
                await self._end_connection()
            else:
                await self._flush()
        elif isinstance(event, Closed):
            self.closed = True
            for window in self.stream_buffers.values():
                await window.close()
            for stream_id in list(self.streams):
                stream = self.streams.pop(stream_id)
                await stream.handle(StreamClosed(stream_id=stream_id))
            await self.has_data.set()

    async def _handle_frame(self, frame: Frame) -> None:
        if (cost := frame.cost) and not await self._spend(cost):
            return
        if frame.kind == GOAWAY and self._is_proper(frame):
            await self._client_says_goodbye(int.from_bytes(frame.payload[4:8], "big"))
            return
        events = self.connection.receive_data(frame.raw)
        if frame.carries:
            if any(isinstance(event, h2.events.DataReceived) for event in events):
                self.budget.earn(frame.carries / 1024)
            elif not await self._spend(1):  # for a stream that is over
                return
        elif (
            frame.kind in (HEADERS, CONTINUATION)
            and not self._frames.in_block
            and not any(isinstance(event, _HEADS) for event in events)
            and not await self._spend(REFUSED)  # for a stream that is over
        ):
            return
        await self._handle_events(events)

    def _is_proper(self, goaway: Frame) -> bool:
        """Tell whether a GOAWAY is what it should be; if it is not, h2 sees it, and complains."""
        return not goaway.stream_id and len(goaway.payload) >= 8 and not self._frames.in_block

    async def _spend(self, cost: int) -> bool:
        """Charge the client for something useless; end the connection if there was too much."""
        if self.budget.spend(cost):
            return True
        if not self._terminated:
            await self._log("sent too many useless HTTP/2 frames, and its connection was closed")
            await self._terminate(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
        return False

    async def _log(self, what: str) -> None:
        """Log what the client did, once for each connection."""
        if not self._logged:
            self._logged = True
            await log_line(self.config, self.client, what)

    async def _terminate(self, code: h2.errors.ErrorCodes) -> None:
        """Say why, and end the connection with all its streams."""
        self._terminated = self._told = True
        with suppress(h2.exceptions.ProtocolError):
            self.connection.close_connection(code)
        await self._end_connection()

    async def _end_connection(self) -> None:
        await self.send(Updated(idle=False))  # so that the client can read why
        await self._flush()
        await self.send(Closed())

    async def _client_says_goodbye(self, code: int) -> None:
        """Let the client's open streams go on to their end, and refuse new ones.

        Spec: RFC 9113, 6.8. With any other code than NO_ERROR the client has given up.
        """
        if code != h2.errors.ErrorCodes.NO_ERROR:
            await self.send(Closed())
            return
        self._leaving = True
        self.retire()
        if self.idle:
            await self.send(Closed())

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                if await self._is_well_formed(event):
                    await self._request_received(event)
            elif isinstance(event, h2.events.TrailersReceived):
                if not await self._is_well_formed(event):
                    await self._end(event.stream_id)
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
                self._limit_header_table()
                if h2.settings.SettingCodes.INITIAL_WINDOW_SIZE in event.changed_settings:
                    await self._window_updated(None)

    def _limit_header_table(self) -> None:
        """Use no more than the usual size of a table that the client may want to be huge."""
        encoder = self.connection.encoder
        encoder.header_table_size = min(encoder.header_table_size, 4096)
        if len(encoder.table_size_changes) > 2:
            # Spec: RFC 7541, 4.2: the smallest and the last are what a decoder has to know.
            smallest, last = min(encoder.table_size_changes), encoder.table_size_changes[-1]
            encoder.table_size_changes = [smallest, last]

    async def _is_well_formed(
        self, head: h2.events.RequestReceived | h2.events.TrailersReceived
    ) -> bool:
        """Reset the stream of a malformed request or its trailers.

        Spec: RFC 9113, 8.1.1: that is a stream error. To h2 it is one of the connection.
        """
        try:
            list(validate_headers(head.headers or (), _FLAGS[type(head)]))
        except h2.exceptions.ProtocolError as error:
            await self._log(f"sent a malformed request: {printable(str(error), limit=200)}")
            assert head.stream_id is not None
            await self._refuse_stream(head.stream_id, h2.errors.ErrorCodes.PROTOCOL_ERROR)
            return False
        return True

    async def _request_received(self, event: h2.events.RequestReceived) -> None:
        assert event.stream_id is not None
        if self._retired or self.context.terminated.is_set():
            await self._refuse_stream(event.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
        elif self._has_too_many():
            await self._refuse_stream(event.stream_id, h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
        else:
            try:
                await self._create_stream(event)
            except RequestRefused as refusal:
                await self._answer_error(event, refusal)
            await self.send(Updated(idle=self.idle))
            if self.keep_alive_requests > self.config.keep_alive_max_requests:
                self.retire()

    async def _refuse_stream(self, stream_id: int, code: h2.errors.ErrorCodes) -> None:
        with suppress(h2.exceptions.ProtocolError):
            self.connection.reset_stream(stream_id, code)
        await self._spend(REFUSED)

    async def _answer_error(
        self, event: h2.events.RequestReceived, refusal: RequestRefused
    ) -> None:
        """Answer a request that no application gets."""
        if not self._logged:
            self._logged = True
            await log_refusal(self.config, self.client, refusal)
        assert event.stream_id is not None
        fields = [(b":status", b"%d" % refusal.status), (b"content-length", b"0")]
        fields += self.config.response_headers("h2")
        with suppress(h2.exceptions.ProtocolError):
            self.connection.send_headers(event.stream_id, fields, end_stream=True)
        asked = dict(event.headers or ())
        method, path = asked.get(b":method", b""), asked.get(b":path", b"")
        await log_refused(self, refusal.status, method, path, b"2")
        self._stop_request(event.stream_id)
        await self._spend(ANSWERED)

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
            # What is only padding is acknowledged now, the rest when it is taken.
            waiting = self._unacknowledged.get(stream_id, 0)
            self._unacknowledged[stream_id] = waiting + len(data)
            size -= len(data)
            await stream.handle(Body(stream_id=stream_id, data=data))
            if isinstance(stream, WebSocket):
                self.acknowledge(stream_id, 0)  # parts of a message, and pings, are taken at once
        if size:
            self._open_window(stream_id, size)

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        fields = [(bytes(name), bytes(value)) for name, value in request.headers or ()]
        check_fields(fields, self.config.h11_max_incomplete_size)
        pseudo = dict(fields)
        method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
        check_ascii(fields)
        websocket = method == b"CONNECT" and pseudo.get(b":protocol") == b"websocket"
        host, _ = split_target(b"GET" if websocket else method, path)
        if host is not None:
            raise RequestRefused(400, "its path is a URL")
        if websocket:
            await self._create_websocket(request, fields, path)
        else:
            await super()._create_stream(request)
        stream = self.streams.get(request.stream_id)
        if stream is not None and getattr(stream, "closed", False) is True:
            # Refused for its host (`server_names`) without an application to say that it is over.
            await self.stream_send(StreamClosed(stream_id=request.stream_id))

    async def _create_websocket(
        self, request: h2.events.RequestReceived, fields: list[tuple[bytes, bytes]], path: bytes
    ) -> None:
        """Do what `H2Protocol._create_stream` does, with our WebSocket."""
        stream_id = request.stream_id
        self.streams[stream_id] = stream = WebSocket(
            *(self.app, self.config, self.context, self.task_group, self.ssl),
            *(self.client, self.server, self.stream_send, stream_id),
            turn=self.turn,
        )
        self.stream_buffers.add(stream_id)
        self.priority.insert_stream(stream_id)
        self.priority.block(stream_id)
        await stream.handle(
            Request(
                stream_id=stream_id,
                headers=filter_pseudo_headers(fields),
                http_version="2",
                method="CONNECT",
                raw_path=path,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1
        await self.context.mark_request()
