"""HTTP/2: Hypercorn's `H2Protocol`, with the methods replaced that break the guarantee.

Deviations from Hypercorn 0.18.0, `hypercorn/protocol/h2.py`; `tests/interop/test_upstream.py` fails
when the code that is replaced or built on changes there:

- `StreamBuffer` is `penstock.hypercorn.protocol.window.Window`.
- `send_task` and `_send_data` waited for ever for a window; here a stream whose bytes have waited
  ``send_timeout`` seconds is reset.
- `_handle_events` raised on DATA behind the response's end, kept a connection busy for ever after
  RST_STREAM, and took data for an application that does not read; here windows are opened for what
  was taken only.
- `_create_stream` raised on methods and paths that are not ASCII, and on a CONNECT without a path.
- `_priority_updated` raised at the 1001st; RFC 9113, 5.3.2, deprecates these, and they are ignored.
- `handle` left applications waiting in the buffers of a closed connection, let a frame of any
  announced length be collected, and worked off all frames of a read at once. Here frames are taken
  one by one (see `penstock.hypercorn.protocol.frames`); the reader gives way to others when its
  slice of time is spent, and a client whose frames are useless is told ENHANCE_YOUR_CALM.
- A client's GOAWAY ended its streams. RFC 9113, 6.8: those that are open go on. h2 cannot do that,
  so it does not see that frame.
- `stream_send` left the client of a response that failed half-way waiting for its end; it is reset.
- A connection that takes no more requests is told so with GOAWAY, and its streams live on: h2's own
  `close_connection` would end them.
- A malformed request ended the connection; its stream is reset.
- Requests have the limits of HTTP/1.1, and those that cannot be served are answered here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, final

import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import trio
from h2.utilities import HeaderValidationFlags, validate_headers
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import (
    Body,
    Data,
    EndBody,
    EndData,
    Request,
    Response,
    StreamClosed,
    Trailers,
)
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h2 import BufferCompleteError, H2Protocol
from hypercorn.utils import filter_pseudo_headers
from hyperframe.frame import GoAwayFrame
from priority.priority import DeadlockError

from penstock.hypercorn.protocol.access_log import log_refused
from penstock.hypercorn.protocol.frames import (
    ANSWERED,
    CONTINUATION,
    GOAWAY,
    HEADERS,
    REFUSED,
    RESPONSE,
    BlockTooLong,
    Frame,
    FrameBudget,
    Frames,
    FrameTooLong,
)
from penstock.hypercorn.protocol.head import RequestRefused, check_ascii, check_fields, split_target
from penstock.hypercorn.protocol.refusal import begins_event_stream, log_line, log_refusal
from penstock.hypercorn.protocol.websocket import WebSocket
from penstock.hypercorn.protocol.window import Windows
from penstock.hypercorn.wire.incoming import MAX_AHEAD
from penstock.printable import printable

if TYPE_CHECKING:
    from penstock.hypercorn.wire.turns import Turn

__all__ = ["HTTP2"]

# Bytes that wait with one deadline: a large body is handed over in such pieces.
_PIECE: Final = 2**16

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
class HTTP2(H2Protocol):
    """One HTTP/2 connection's protocol; made like Hypercorn's."""

    running: Callable[[], int] | None = None
    """Returns how many applications run for this connection."""

    turn: Turn | None = None
    """The reader's share of the loop."""

    send_timeout: float = math.inf
    """Seconds that a stream's bytes may wait for its window."""

    wire: Callable[[bytes], None] | None = None
    """Writes bytes behind those that were sent, without waiting."""

    reader: trio.lowlevel.Task | None = None
    """The connection's reader, which never waits for its client."""

    stream_buffers: Windows  # type: ignore[assignment]  # for a dict of StreamBuffers

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # What is too large for an application is answered with 431, up to twice the limit; beyond
        # that, to decode it would take too long. Hypercorn announces its own limit to h2, which
        # does not enforce it.
        twice = 2 * self.config.h11_max_incomplete_size
        largest = min(self.config.h2_max_header_list_size, twice)
        self.connection.decoder.max_header_list_size = largest
        self.connection.config.validate_inbound_headers = False  # see `_is_well_formed`
        self.stream_buffers = Windows(self.context.event_class)
        self.stalled_streams: set[int] = set()
        self._unacknowledged: dict[int, int] = {}
        self.budget: FrameBudget = FrameBudget()
        self._retired = False
        self._leaving = False  # whether the client has said goodbye
        self._told = False
        self._patience: trio.CancelScope | None = None
        self._unsent = b""
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
        return self.running is not None and self.running() > most

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

    # Sending
    #
    # The sender is a task of the connection's; what it takes from the streams' windows goes to the
    # client frame by frame. Nothing here is a checkpoint that does not say so, so no stream is left
    # half-closed.

    @property
    def idle(self) -> bool:
        """Whether no stream is open, or has something to send."""
        return super().idle and self.stream_buffers.keys() <= self.streams.keys()

    def close(self) -> None:
        """Let go of what refers to itself in h2, and would wait for the cyclic collector."""
        vars(self.connection).clear()
        vars(self.priority).clear()

    def retire(self) -> None:
        """Open no more streams; those that are open go on to their end, and then comes GOAWAY.

        It could come at once, but Python's h2 (and so httpx) takes no more data behind it.
        """
        self._retired = True
        if self.idle:
            self.say_goodbye()

    def postpone(self, move: Callable[[float], float]) -> None:
        """Move the deadlines of what waits for the client, after a pause of ours."""
        for window in self.stream_buffers.values():
            window.postpone(move)
        if self._patience is not None:
            self._patience.deadline = self._next_deadline()

    def say_goodbye(self) -> None:
        """Tell the client to open no more streams.

        Spec: RFC 9113, 6.8: GOAWAY names the last stream that is served.
        """
        if not self._told:
            self._told = True
            last = self.connection.highest_inbound_stream_id
            self._unsent = GoAwayFrame(0, last_stream_id=last).serialize()
            if self.wire is not None:
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
                with trio.CancelScope(deadline=self._next_deadline()) as self._patience:
                    await self.has_data.wait()
                self._patience = None
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
                self.budget.earn(2 + len(data) / 1024)  # for what the client says to it
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
            self._stop_request(stream_id)
            if stream_id not in self.streams:
                await self._settle()
        await self._flush()

    def _stop_request(self, stream_id: int) -> None:
        """Have the client send no more of a request that was answered completely.

        Spec: RFC 9113, 8.1. Otherwise the stream would count as open for as long as it likes.
        """
        stream = self.connection.streams.get(stream_id)
        if stream is not None and not stream.closed:
            with suppress(h2.exceptions.ProtocolError):
                self.connection.reset_stream(stream_id, h2.errors.ErrorCodes.NO_ERROR)

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
        await self._settle()

    async def _settle(self) -> None:
        """Do what is to be done when a stream has ended. Not a checkpoint."""
        if self._retired and self.idle:
            self.say_goodbye()
        await self.send(Updated(idle=self.idle))
        if self._leaving and self.idle:
            await self.send(Closed())

    async def _close_stream(self, stream_id: int) -> None:
        if untaken := self._unacknowledged.pop(stream_id, 0):
            # What nobody took leaves the window of the connection, which all streams share.
            self._open_window(stream_id, untaken)
        await super()._close_stream(stream_id)

    async def _window_updated(self, stream_id: int | None) -> None:
        """Let the sender go on with what has waited for the client to open a window."""
        for each in [stream_id] if stream_id else list(self.stream_buffers):
            if (window := self.stream_buffers.get(each)) is None:
                continue
            with suppress(h2.exceptions.ProtocolError):  # the stream has closed meanwhile
                if window.buffer and self.connection.local_flow_control_window(each) <= 0:
                    continue
            if window.buffer or window.complete:
                self.priority.unblock(each)
        await self.has_data.set()

    async def stream_send(self, event: StreamEvent) -> None:
        """Send a part of a response.

        Cancellation:
          A checkpoint where it waits for the client. The reader waits for none: what it sends is
          short, an answer to a ping or a refusal.
        """
        stream_id = event.stream_id
        waits = self.reader is None or trio.lowlevel.current_task() is not self.reader
        if isinstance(event, (Body, Data)):
            for start in range(0, len(event.data), _PIECE):
                if (window := self.stream_buffers.get(stream_id)) is None:
                    break
                piece = event.data[start : start + _PIECE]
                deadline = self.context.time() + self.send_timeout
                self.priority.unblock(stream_id)
                await self.has_data.set()
                with suppress(BufferCompleteError):
                    if waits:
                        await window.push(piece, deadline)
                    else:
                        window.push_nowait(piece, deadline)
            if waits:
                await self.context.sleep(0)  # who only sends must notice that it was cancelled
        elif isinstance(event, (EndBody, EndData)):
            if (window := self.stream_buffers.get(stream_id)) is not None:
                self.priority.unblock(stream_id)
                await self.has_data.set()
                if waits:
                    await window.finish()
                else:
                    window.set_complete()
        elif isinstance(event, Trailers):
            if (window := self.stream_buffers.get(stream_id)) is not None:
                self.priority.unblock(stream_id)
                await self.has_data.set()
                await window.drain()
                await self._forget(stream_id)
                with suppress(h2.exceptions.ProtocolError):
                    self.connection.send_headers(stream_id, event.headers, end_stream=True)
                self._stop_request(stream_id)
                await self._flush()
        elif isinstance(event, StreamClosed):
            window = self.stream_buffers.get(stream_id)
            if window is not None and window.ending:
                await self._close_stream(stream_id)  # what waits is complete, and is sent
                await self._settle()
            else:
                await self._reset(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
                await self._end(stream_id)
            await self._flush()
        else:
            if isinstance(event, Response):
                self.budget.earn(RESPONSE)
                if begins_event_stream(event):
                    self.task_group.discard_body(stream_id)  # type: ignore[attr-defined]
            await super().stream_send(event)
