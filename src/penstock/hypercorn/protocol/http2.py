"""HTTP/2: Hypercorn's `H2Protocol`, changed where it breaks the guarantee.

Deviations from Hypercorn 0.18.0, `hypercorn/protocol/h2.py`; `tests/interop/test_upstream.py` fails
when the replaced code, or the code that this builds on, changes there:

- `StreamBuffer` is `penstock.hypercorn.protocol.send_buffers.SendBuffer`.
- `send_task` and `_send_data` waited forever for a window; here a stream whose bytes have waited
  ``send_timeout`` seconds is reset.
- `_handle_events` raised on DATA after the response's end, kept a connection busy forever after
  RST_STREAM, and accepted data for an application that does not read. Here a window is opened only
  by what the application has received.
- `_create_stream` raised on methods and paths that are not ASCII, and on a CONNECT without a path.
- `_priority_updated` raised after 1000 streams; RFC 9113, 5.3.2, deprecates PRIORITY, so it is
  ignored.
- `handle` left applications waiting in the buffers of a closed connection, collected frames of any
  announced length, and processed all frames of a read at once. Here frames are handled one by one
  (see `penstock.hypercorn.protocol.http2_frames`). The reader yields when its time slice is spent,
  and a client that sends too many useless frames gets ENHANCE_YOUR_CALM.
- A client's GOAWAY ended its streams. RFC 9113, 6.8: open streams continue. h2 cannot do that, so
  it does not see the frame.
- `stream_send` left the client waiting for the end of a response that failed half-way; here the
  stream is reset.
- A connection that accepts no more requests sends GOAWAY, and its streams continue: h2's own
  `close_connection` would end them.
- A malformed request ended the connection; here it resets its stream.
- Requests have the limits of HTTP/1.1, and those that cannot be served are answered here.
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

from penstock.hypercorn.protocol.http2_frames import (
    ANSWERED_COST,
    CONTINUATION,
    GOAWAY,
    HEADERS,
    REFUSED_COST,
    RESET_COST,
    BlockTooLong,
    Frame,
    FrameBudget,
    FrameSplitter,
    FrameTooLong,
)
from penstock.hypercorn.protocol.request_head import (
    RequestRefused,
    check_ascii,
    check_fields,
    split_target,
)
from penstock.hypercorn.protocol.request_log import log_client_fault, write_access_log
from penstock.hypercorn.protocol.send_buffers import SendBuffer, SendBuffers
from penstock.hypercorn.protocol.websocket import WebSocket
from penstock.hypercorn.wire.incoming import MAX_AHEAD
from penstock.hypercorn.wire.turns import Turn
from penstock.printable import printable

__all__ = ["HTTP2"]

# Bytes that share one deadline: a large body is buffered in pieces of this size.
_PIECE: Final = 2**16

# h2's events for a complete header block, and the flags that `validate_headers` takes for each.
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
    """The protocol of one HTTP/2 connection; constructed like Hypercorn's."""

    count_running: Callable[[], int] | None = None
    """Returns how many applications run for this connection."""

    turn: Turn | None = None
    """The reader's share of the event loop."""

    send_timeout: float = math.inf
    """Seconds that a stream's bytes may wait for its window."""

    write: Callable[[bytes], None] | None = None
    """Writes bytes behind the pending ones; does not wait."""

    reader_task: trio.lowlevel.Task | None = None
    """The connection's reader, which must never wait for its client."""

    stream_buffers: SendBuffers  # type: ignore[assignment]  # for a dict of StreamBuffers

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # A head that is too large for an application is answered with 431, up to twice the limit;
        # decoding a larger one would take too long. Hypercorn announces a limit of its own to h2,
        # which does not enforce it.
        twice = 2 * self.config.h11_max_incomplete_size
        largest = min(self.config.h2_max_header_list_size, twice)
        self.connection.decoder.max_header_list_size = largest
        self.connection.config.validate_inbound_headers = False  # see `_validate_fields`
        self.stream_buffers = SendBuffers(self.context.event_class)
        self.stalled_streams: set[int] = set()
        self._unacknowledged: dict[int, int] = {}
        self.budget: FrameBudget = FrameBudget()
        self._draining = False
        self._goaway_received = False
        self._goaway_sent = False
        self._send_timeout_scope: trio.CancelScope | None = None
        self._unsent = b""
        self._splitter = FrameSplitter(largest)
        self._logged = False
        self._terminated = False

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Open the client's windows by what an application has received."""
        waiting = self._unacknowledged.get(stream_id, 0)
        stream = self.streams.get(stream_id)
        if isinstance(stream, WebSocket):
            # Its messages and the frames that carried them differ in size.
            size = waiting if stream.unconsumed <= MAX_AHEAD else 0
        size = min(size, waiting)
        if size and self.write is not None and not self.closed:
            self._unacknowledged[stream_id] = waiting - size
            self._open_window(stream_id, size)
            if data := self._take_unsent():
                self.write(data)

    async def initiate(
        self, headers: list[tuple[bytes, bytes]] | None = None, settings: bytes | None = None
    ) -> None:
        """Start; if the connection was upgraded, handle the request that asked for it."""
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
        """Handle bytes from the client, or the connection's end."""
        if isinstance(event, RawData):
            try:
                for frame in self._splitter.split(
                    event.data, self.connection.max_inbound_frame_size
                ):
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
                await self._log(f"violated the HTTP/2 protocol: {printable(str(error), limit=200)}")
                self._goaway_sent = True  # by h2
                await self._end_connection()
            else:
                await self._flush()
        elif isinstance(event, Closed):
            self.closed = True
            for buffer in self.stream_buffers.values():
                await buffer.close()
            for stream_id in list(self.streams):
                stream = self.streams.pop(stream_id)
                await stream.handle(StreamClosed(stream_id=stream_id))
            await self.has_data.set()

    async def _handle_frame(self, frame: Frame) -> None:
        if (cost := frame.cost) and not await self._charge(cost):
            return
        if frame.kind == GOAWAY and self._is_valid_goaway(frame):
            await self._handle_goaway(int.from_bytes(frame.payload[4:8], "big"))
            return
        events = self.connection.receive_data(frame.raw)
        if frame.body_size:
            if any(isinstance(event, h2.events.DataReceived) for event in events):
                self.budget.earn(frame.body_size / 1024)
            elif not await self._charge(1):  # for a stream that has ended
                return
        elif (
            frame.kind in (HEADERS, CONTINUATION)
            and not self._splitter.in_block
            and not any(isinstance(event, _HEADS) for event in events)
            and not await self._charge(REFUSED_COST)  # for a stream that has ended
        ):
            return
        await self._handle_events(events)

    def _is_valid_goaway(self, goaway: Frame) -> bool:
        """Return whether a GOAWAY is well-formed; if it is not, h2 gets it and raises."""
        return not goaway.stream_id and len(goaway.payload) >= 8 and not self._splitter.in_block

    async def _charge(self, cost: int) -> bool:
        """Charge the client for something useless; end the connection if the budget is spent."""
        if self.budget.spend(cost):
            return True
        if not self._terminated:
            await self._log("sent too many useless HTTP/2 frames, and its connection was closed")
            await self._terminate(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
        return False

    async def _log(self, what: str) -> None:
        """Log what the client did, once per connection."""
        if not self._logged:
            self._logged = True
            await log_client_fault(self.config, self.client, what)

    async def _terminate(self, code: h2.errors.ErrorCodes) -> None:
        """End the connection with all its streams; GOAWAY gives the reason."""
        self._terminated = self._goaway_sent = True
        with suppress(h2.exceptions.ProtocolError):
            self.connection.close_connection(code)
        await self._end_connection()

    async def _end_connection(self) -> None:
        await self.send(Updated(idle=False))  # so that the client can read the reason
        await self._flush()
        await self.send(Closed())

    async def _handle_goaway(self, code: int) -> None:
        """Let the client's open streams continue to their end, and refuse new ones.

        Spec: RFC 9113, 6.8. A code other than NO_ERROR means that the client has given up.
        """
        if code != h2.errors.ErrorCodes.NO_ERROR:
            await self.send(Closed())
            return
        self._goaway_received = True
        self.drain()
        if self.idle:
            await self.send(Closed())

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                if await self._validate_fields(event):
                    await self._request_received(event)
            elif isinstance(event, h2.events.TrailersReceived):
                if not await self._validate_fields(event):
                    await self._end_stream(event.stream_id)
            elif isinstance(event, h2.events.DataReceived):
                await self._data_received(event)
            elif isinstance(event, h2.events.StreamEnded):
                if (stream := self.streams.get(event.stream_id)) is not None:
                    await stream.handle(EndBody(stream_id=event.stream_id))
            elif isinstance(event, h2.events.StreamReset):
                await self._end_stream(event.stream_id)
            elif isinstance(event, h2.events.WindowUpdated):
                await self._window_updated(event.stream_id)
            elif isinstance(event, h2.events.RemoteSettingsChanged):
                self._limit_header_table()
                if h2.settings.SettingCodes.INITIAL_WINDOW_SIZE in event.changed_settings:
                    await self._window_updated(None)

    def _limit_header_table(self) -> None:
        """Cap the encoder's table at its default size, however large the client allows it to be."""
        encoder = self.connection.encoder
        encoder.header_table_size = min(encoder.header_table_size, 4096)
        if len(encoder.table_size_changes) > 2:
            # Spec: RFC 7541, 4.2: a decoder has to know the smallest and the last size.
            smallest, last = min(encoder.table_size_changes), encoder.table_size_changes[-1]
            encoder.table_size_changes = [smallest, last]

    async def _validate_fields(
        self, head: h2.events.RequestReceived | h2.events.TrailersReceived
    ) -> bool:
        """Return whether a head or trailer is well-formed; if not, reset its stream.

        Spec: RFC 9113, 8.1.1: this is a stream error. To h2 it is a connection error.
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
        if self._draining or self.context.terminated.is_set():
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
                self.drain()

    async def _refuse_stream(self, stream_id: int, code: h2.errors.ErrorCodes) -> None:
        with suppress(h2.exceptions.ProtocolError):
            self.connection.reset_stream(stream_id, code)
        await self._charge(REFUSED_COST)

    async def _answer_error(
        self, event: h2.events.RequestReceived, refusal: RequestRefused
    ) -> None:
        """Answer a request that reaches no application."""
        await self._log(str(refusal))
        assert event.stream_id is not None
        fields = [(b":status", b"%d" % refusal.status), (b"content-length", b"0")]
        fields += self.config.response_headers("h2")
        with suppress(h2.exceptions.ProtocolError):
            self.connection.send_headers(event.stream_id, fields, end_stream=True)
        asked = dict(event.headers or ())
        method, path = asked.get(b":method", b""), asked.get(b":path", b"")
        await write_access_log(self, refusal.status, method, path, b"2")
        self._stop_request(event.stream_id)
        await self._charge(ANSWERED_COST)

    def _has_too_many(self) -> bool:
        """Return whether more applications are running than a client may have streams.

        A client that opens and resets streams in quick succession has few streams at any moment,
        while the applications of the earlier ones are still ending (CVE-2023-44487).
        """
        most = 2 * self.config.h2_max_concurrent_streams
        return self.count_running is not None and self.count_running() > most

    async def _data_received(self, event: h2.events.DataReceived) -> None:
        stream_id, data = event.stream_id, event.data or b""
        size = event.flow_controlled_length or 0
        stream = self.streams.get(stream_id)
        if stream is not None and data:
            # Padding is acknowledged now, data when the application receives it.
            waiting = self._unacknowledged.get(stream_id, 0)
            self._unacknowledged[stream_id] = waiting + len(data)
            size -= len(data)
            await stream.handle(Body(stream_id=stream_id, data=data))
            if isinstance(stream, WebSocket):
                self.acknowledge(stream_id, 0)  # fragments and pings are consumed at once
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
            # Refused for its host (`server_names`): no application will end the stream.
            await self.stream_send(StreamClosed(stream_id=request.stream_id))

    async def _create_websocket(
        self, request: h2.events.RequestReceived, fields: list[tuple[bytes, bytes]], path: bytes
    ) -> None:
        """Do what `H2Protocol._create_stream` does, with Penstock's `WebSocket`."""
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
    # The sender task takes bytes from the send buffers and writes them frame by frame. A method in
    # this part is a checkpoint only if documented as one, so that cancellation leaves no stream
    # half-closed.

    @property
    def idle(self) -> bool:
        """Whether no stream is open, and no stream has bytes to send."""
        return super().idle and self.stream_buffers.keys() <= self.streams.keys()

    def close(self) -> None:
        """Break h2's reference cycles, which would otherwise wait for the cyclic collector."""
        vars(self.connection).clear()
        vars(self.priority).clear()

    def drain(self) -> None:
        """Accept no more streams; open streams continue to their end, and then comes GOAWAY.

        GOAWAY could be sent at once, but Python's h2 (and so httpx) accepts no data after it.
        """
        self._draining = True
        if self.idle:
            self.send_goaway()

    def extend_deadlines(self, move: Callable[[float], float]) -> None:
        """Extend the deadlines of all buffered bytes, after a pause of the process."""
        for buffer in self.stream_buffers.values():
            buffer.extend_deadlines(move)
        if self._send_timeout_scope is not None:
            self._send_timeout_scope.deadline = self._next_deadline()

    def send_goaway(self) -> None:
        """Tell the client to open no more streams.

        Spec: RFC 9113, 6.8: GOAWAY names the last stream that will be served.
        """
        if not self._goaway_sent:
            self._goaway_sent = True
            last = self.connection.highest_inbound_stream_id
            self._unsent = GoAwayFrame(0, last_stream_id=last).serialize()
            if self.write is not None:
                self.write(self._take_unsent())

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
        """Send the streams' bytes as far as the client's windows allow, until closed."""
        while not self.closed:
            try:
                stream_id = next(self.priority)
            except DeadlockError:
                with trio.CancelScope(deadline=self._next_deadline()) as self._send_timeout_scope:
                    await self.has_data.wait()
                self._send_timeout_scope = None
                await self.has_data.clear()
                await self._reset_stalled()
            else:
                await self._send_data(stream_id)

    async def _send_data(self, stream_id: int) -> None:
        buffer = self.stream_buffers[stream_id]
        try:
            window = self.connection.local_flow_control_window(stream_id)
            size = max(0, min(window, self.connection.max_outbound_frame_size))
            if data := await buffer.pop(size):
                self.budget.earn(2 + len(data) / 1024)  # for the client's WINDOW_UPDATE frames
                self.connection.send_data(stream_id, data, end_stream=buffer.complete)
            elif buffer.complete:
                self.connection.end_stream(stream_id)
            else:
                self.priority.block(stream_id)
                return
        except h2.exceptions.ProtocolError:
            await self._drop_buffer(stream_id)  # the stream has closed meanwhile
            return
        if buffer.complete:
            await self._drop_buffer(stream_id)
            self._stop_request(stream_id)
            if stream_id not in self.streams:
                await self._stream_ended()
        await self._flush()

    def _stop_request(self, stream_id: int) -> None:
        """Ask the client to stop sending a request that has been answered completely.

        Spec: RFC 9113, 8.1. Otherwise the stream would stay open for as long as the client likes.
        """
        stream = self.connection.streams.get(stream_id)
        if stream is not None and not stream.closed:
            with suppress(h2.exceptions.ProtocolError):
                self.connection.reset_stream(stream_id, h2.errors.ErrorCodes.NO_ERROR)

    def _next_deadline(self) -> float:
        return min((buffer.deadline for buffer in self.stream_buffers.values()), default=math.inf)

    async def _reset_stalled(self) -> None:
        """Reset each stream whose client has not opened its window in time."""
        now = self.context.time()
        late = [each for each, buffer in self.stream_buffers.items() if buffer.deadline <= now]
        for stream_id in late:
            self.stalled_streams.add(stream_id)
            await self._reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
            await self._end_stream(stream_id)
        if late:
            await self._flush()

    async def _reset_stream(self, stream_id: int, code: h2.errors.ErrorCodes) -> None:
        """Reset a stream whose end has not been sent. Not a checkpoint."""
        if stream_id in self.stream_buffers:
            with suppress(h2.exceptions.ProtocolError):  # the client has reset it first
                self.connection.reset_stream(stream_id, code)
            await self._drop_buffer(stream_id)

    async def _drop_buffer(self, stream_id: int) -> None:
        """Discard a stream's unsent bytes. Not a checkpoint."""
        if (buffer := self.stream_buffers.pop(stream_id, None)) is not None:
            self.priority.remove_stream(stream_id)
            await buffer.close()

    async def _end_stream(self, stream_id: int) -> None:
        """End a stream, and notify its application. Not a checkpoint."""
        await self._drop_buffer(stream_id)
        await self._close_stream(stream_id)
        await self._stream_ended()

    async def _stream_ended(self) -> None:
        """Report idleness, and end the connection if this was its last stream. Not a checkpoint."""
        if self._draining and self.idle:
            self.send_goaway()
        await self.send(Updated(idle=self.idle))
        if self._goaway_received and self.idle:
            await self.send(Closed())

    async def _close_stream(self, stream_id: int) -> None:
        if unconsumed := self._unacknowledged.pop(stream_id, 0):
            # Unconsumed bytes would stay in the connection's window, which all streams share.
            self._open_window(stream_id, unconsumed)
        await super()._close_stream(stream_id)

    async def _window_updated(self, stream_id: int | None) -> None:
        """Let the sender continue with the streams whose window the client has opened."""
        for each in [stream_id] if stream_id else list(self.stream_buffers):
            if (buffer := self.stream_buffers.get(each)) is None:
                continue
            with suppress(h2.exceptions.ProtocolError):  # the stream has closed meanwhile
                if buffer.buffer and self.connection.local_flow_control_window(each) <= 0:
                    continue
            if buffer.buffer or buffer.complete:
                self.priority.unblock(each)
        await self.has_data.set()

    async def stream_send(self, event: StreamEvent) -> None:
        """Send a part of a response.

        Cancellation:
          A checkpoint if it waits for the client. The reader never waits: what it sends is short,
          such as the answer to a ping or a refusal.
        """
        stream_id = event.stream_id
        waits = self.reader_task is None or trio.lowlevel.current_task() is not self.reader_task
        if isinstance(event, (Body, Data)):
            for start in range(0, len(event.data), _PIECE):
                if (buffer := await self._unblocked(stream_id)) is None:
                    break
                piece = event.data[start : start + _PIECE]
                deadline = self.context.time() + self.send_timeout
                with suppress(BufferCompleteError):
                    if waits:
                        await buffer.push(piece, deadline)
                    else:
                        buffer.push_nowait(piece, deadline)
            if waits:
                await self.context.sleep(0)  # a task that only sends must notice its cancellation
        elif isinstance(event, (EndBody, EndData)):
            if (buffer := await self._unblocked(stream_id)) is not None:
                if waits:
                    await buffer.finish()
                else:
                    buffer.set_complete()
        elif isinstance(event, Trailers):
            if (buffer := await self._unblocked(stream_id)) is not None:
                await buffer.drain()
                await self._drop_buffer(stream_id)
                with suppress(h2.exceptions.ProtocolError):
                    self.connection.send_headers(stream_id, event.headers, end_stream=True)
                self._stop_request(stream_id)
                await self._flush()
        elif isinstance(event, StreamClosed):
            buffer = self.stream_buffers.get(stream_id)
            if buffer is not None and buffer.ending:
                await self._close_stream(stream_id)  # the buffered bytes are complete, and are sent
                await self._stream_ended()
            else:
                await self._reset_stream(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
                await self._end_stream(stream_id)
            await self._flush()
        else:
            if isinstance(event, Response):
                self.budget.earn(RESET_COST)
                self.task_group.response_begins(event)  # type: ignore[attr-defined]  # it is our RequestTasks
            await super().stream_send(event)

    async def _unblocked(self, stream_id: int) -> SendBuffer | None:
        """Return a stream's buffer and wake the sender, unless it was dropped. Not a checkpoint."""
        if (buffer := self.stream_buffers.get(stream_id)) is not None:
            self.priority.unblock(stream_id)
            await self.has_data.set()
        return buffer
