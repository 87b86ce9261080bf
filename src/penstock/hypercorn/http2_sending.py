"""HTTP/2, the half that sends: `Sending`, on which `penstock.hypercorn.http2.HTTP2` is built.

The sender is a task of the connection's; what it takes from the streams' windows goes to the client
frame by frame. Nothing here is a checkpoint that does not say so, so no stream is left half-closed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import h2.errors
import h2.exceptions
import trio
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol.events import Body, Data, EndBody, EndData, Response, StreamClosed, Trailers
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h2 import BufferCompleteError, H2Protocol
from hyperframe.frame import GoAwayFrame
from priority.priority import DeadlockError

from penstock.hypercorn.frames import RESPONSE, FrameBudget
from penstock.hypercorn.refusal import begins_event_stream
from penstock.hypercorn.window import Windows

__all__ = ["Sending"]

# Bytes that wait with one deadline: a large body is handed over in such pieces.
_PIECE: Final = 2**16


class Sending(H2Protocol):
    """Hypercorn's `H2Protocol`, which sends with deadlines; see `penstock.hypercorn.http2`."""

    send_timeout: float = math.inf
    """Seconds that a stream's bytes may wait for its window."""

    wire: Callable[[bytes], None] | None = None
    """Writes bytes behind those that were sent, without waiting."""

    reader: trio.lowlevel.Task | None = None
    """The connection's reader, which never waits for its client."""

    stream_buffers: Windows  # type: ignore[assignment]  # for a dict of StreamBuffers

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.stream_buffers = Windows(self.context.event_class)
        self.stalled_streams: set[int] = set()
        self._unacknowledged: dict[int, int] = {}
        self.budget: FrameBudget = FrameBudget()
        self._retired = False
        self._leaving = False  # whether the client has said goodbye
        self._told = False
        self._patience: trio.CancelScope | None = None
        self._unsent = b""

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
