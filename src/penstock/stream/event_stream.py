"""One client's event stream: its source, its writer, and the reason why it ends.

Rule 1: a stream ends because its source ends, or because its block is left early. The source ends
because the producer returns, raises or closes its channel, or the subscription ends; or because of
`EventStream.end` or the end of the lifetime. The block is left early when the client disconnects:
writing fails, or everything around the stream is cancelled. There is no other way.

Rule 2: lifetime equals block. When the block of `EventStream.open` is left, the producer and
everything it started have finished, and the subscription has ended, whatever the reason.

Rule 3: one stream, one reason. The first cause to end a stream sets its `CloseReason`; a stream
whose producer returned is *finished* only once everything it sent is written.

Theory of operation: the writer is the task that iterates the stream, in `EventStream.run` or in a
host that pulls a response body, as Quart does. The stream takes chunks from its source
(`penstock.stream.source`) and adds the parts common to all streams: the first bytes, keep-alive
comments, the lifetime, the final event. Where the server offers direct writes, events are written
directly while the stream waits for its source.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from typing import TYPE_CHECKING, Any, Final, Never, final

import trio

from penstock.close_reason import CloseReason, EventStreamStatistics
from penstock.event import ServerSentEvent
from penstock.stream.producer import Producer, ProducerSource, check_producer
from penstock.stream.source import COMMENT, Source, Tally, is_source

if TYPE_CHECKING:
    from penstock.stream.transport import DirectWriter

__all__ = ["DEFAULT_BUFFER", "DEFAULT_KEEP_ALIVE", "EventStream"]

# Seconds. axum, FastAPI and sse-starlette send a comment after 15, better-sse after 10, Mercure
# after 40; the shortest idle time-out of common proxies is 30.
DEFAULT_KEEP_ALIVE: Final = 15.0

# Events. A burst of this size costs one write; a producer is never further ahead of its client.
DEFAULT_BUFFER: Final = 16


@final
class EventStream:
    """One client's stream of events; iterating it gives the bytes to write.

        async with EventStream(producer).open() as stream:
            async for chunk in stream:
                await write(chunk)

    or, in one call, ``await stream.run(send)``. A stream is opened once. The first chunk is a
    comment, and comes immediately; then come the events, all that wait in one chunk, and a comment
    after each ``keep_alive`` seconds of silence. The iteration ends when the producer has ended and
    the channel is empty, so everything that it sent before it returned is written.

    Args:
      source: ``async def producer(events: trio.abc.SendChannel[ServerSentEvent]) -> None``. It
        runs in a task of its own, may open nurseries and cancel scopes as it likes, and waits in
        ``events.send`` while its client is behind. Its channel is closed for it when it returns.
        Or a hub's subscription (`penstock.hub.Hub.subscription`), which needs no task.
      keep_alive: seconds of silence after which a comment is sent. None sends no comments; a proxy
        may then close the stream, and only the next event finds that a client has vanished.
      buffer: how many events of a producer may wait for the writer; 0 makes each send wait for it;
        None means 16. A subscription has its own bound, and does not accept this one.
      max_lifetime: seconds after which the producer is cancelled, and the stream ends with
        `CloseReason.EXPIRED` once everything sent is written; None sets no limit. 0 or less, such
        as the remaining lifetime of an expired token, ends the stream after its first bytes, and
        does not call the producer.
      name: the stream's name, for the log and for the name of the producer's task.

    Raises:
      TypeError: the producer cannot be called, or it yields.
      ValueError: another argument is out of its range, or ``buffer`` was given with a subscription.

    Error handling:
      An exception that leaves the producer ends this stream with `CloseReason.FAILED`, and is
      logged once, with its traceback, to the logger ``penstock.stream.producer``; it does not
      propagate. The same holds for an exception raised while the producer is being cancelled; the
      close reason then stays as it was.
    """

    __slots__ = (
        *("_close_reason", "_closed", "_closed_at", "_deadline", "_direct", "_final_event"),
        *("_interruptions", "_keep_alive", "_max_lifetime", "_opened_at", "_source"),
        *("_started", "_writing", "name"),
    )

    def __init__(
        self,
        source: Producer | Source,
        *,
        keep_alive: float | None = DEFAULT_KEEP_ALIVE,
        buffer: int | None = None,
        max_lifetime: float | None = None,
        name: str = "event stream",
    ) -> None:
        if keep_alive is not None and not keep_alive > 0:
            raise ValueError(f"keep_alive must be a number of seconds above 0: {keep_alive}")
        if max_lifetime is not None and math.isnan(max_lifetime):
            raise ValueError("max_lifetime must be a number of seconds, not NaN")
        if buffer is not None and (type(buffer) is not int or buffer < 0):
            raise ValueError(f"buffer must be a whole number of events, 0 or more: {buffer}")
        self.name: str = name
        if is_source(source):
            if buffer is not None:
                raise ValueError(
                    "buffer bounds a producer's events; bound a subscription's where it is made: "
                    "hub.subscription(…, buffer=…)"
                )
            self._source: Source = source
        else:
            producer = check_producer(source)
            self._source = ProducerSource(producer, DEFAULT_BUFFER if buffer is None else buffer)
        self._source.claim()
        self._keep_alive = math.inf if keep_alive is None else float(keep_alive)
        self._max_lifetime = math.inf if max_lifetime is None else float(max_lifetime)
        self._deadline = math.inf  # the end of its lifetime, once it is open
        self._final_event: bytes | None = None
        self._direct: DirectWriter | None = None
        self._close_reason: CloseReason | None = None
        self._opened_at: float | None = None
        self._closed_at: float | None = None
        self._closed: trio.Event | None = None  # created by the first task that waits for it
        self._started = False  # whether the first bytes were taken
        self._interruptions = 0  # how often, in a row, a keep-alive has interrupted the source
        self._writing = Tally()  # the chunk that the writer is writing

    def __repr__(self) -> str:
        state = "new" if self._opened_at is None else "open"
        if self._closed_at is not None:
            state = f"closed ({self._close_reason})"
        return f"<EventStream {self.name!r} {state}, {self._source.written.events} events sent>"

    @property
    def close_reason(self) -> CloseReason | None:
        """Why the stream ended or is ending; None while nothing ends it."""
        return self._close_reason

    @property
    def written(self) -> Tally:
        """Counts of everything written so far; cheaper than `statistics`."""
        return self._source.written

    def statistics(self) -> EventStreamStatistics:
        """Return the stream's statistics as they are now."""
        begun = self._opened_at
        seconds = 0.0 if begun is None else (self._closed_at or trio.current_time()) - begun
        return EventStreamStatistics(
            open=self._opened_at is not None and self._closed_at is None,
            seconds=seconds,
            events_sent=self._source.written.events,
            bytes_sent=self._source.written.bytes,
            keep_alives_sent=self._source.written.keep_alives,
            events_buffered=self._source.waiting,
            producer=self._source.producer_state,
            close_reason=self._close_reason,
        )

    def end(self, reason: CloseReason, final_event: ServerSentEvent | None = None) -> None:
        """End the stream: cancel its producer; the writer still writes everything that waits.

        Only the first reason counts. A stream that is not open yet ends as soon as it is.

        Args:
          reason: why the stream ends.
          final_event: the last event to write, such as ``ServerSentEvent(retry=…)``.

        Cancellation:
          Synchronous, no checkpoint: it does not wait for the end. In a thread, such as that of a
          synchronous view, call it through `trio.from_thread.run_sync`.
        """
        if self._close_reason is None and final_event is not None:
            self._final_event = final_event.encode()
        self._end_source(reason)

    def open(self, direct: DirectWriter | None = None) -> AbstractAsyncContextManager[EventStream]:
        """Run the stream for as long as the block runs; iterate it in the block.

        Args:
          direct: the direct writer that the server offers for this response. Where it can be
            enabled (see `DirectWriter.try_enable`), the iteration yields the first bytes only, and
            ends with the stream.

        Cancellation:
          Entering is no checkpoint. Leaving waits for the producer, which is cancelled unless the
          stream is finished: a producer may continue after it closed its channel. A producer that
          shields itself or swallows `trio.Cancelled` delays leaving.

        Resource handling:
          When the block has been left, no task and no channel of the stream is left, and
          `close_reason` is final.

        Raises:
          RuntimeError: the stream was opened before.
        """
        if self._opened_at is None:  # if not, entering the block raises
            self._direct = direct
        return self

    async def wait_closed(self) -> None:
        """Wait until the block of `open` has been left; `close_reason` is final then.

        Any number of tasks may wait, also before the stream is opened.

        Cancellation:
          A checkpoint. If cancelled, nothing changes.
        """
        if self._closed_at is not None:
            await trio.lowlevel.checkpoint()
            return
        if self._closed is None:
            self._closed = trio.Event()
        await self._closed.wait()

    async def run(
        self,
        send: Callable[[bytes], Awaitable[None]],
        direct: DirectWriter | None = None,
    ) -> CloseReason:
        """Open the stream, write it until it ends, and return why it ended.

        Args:
          send: called with each chunk, by one task. It writes the whole chunk, waits while the peer
            accepts no data, and raises `trio.BrokenResourceError` when the peer has disconnected.
            See `asgi_sender`.
          direct: as in `open`.

        Cancellation:
          Checkpoints throughout. If it is cancelled while it writes, a part of a chunk may have
          been written, so the connection can only be closed. The producer is cancelled with it.

        Error handling:
          `trio.BrokenResourceError` and `trio.ClosedResourceError` from ``send`` end the stream;
          other errors propagate, in an exception group, after the producer is cancelled.
        """
        async with self.open(direct):
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                async for chunk in self:
                    await send(chunk)
        assert self._close_reason is not None
        return self._close_reason

    def __aiter__(self) -> EventStream:
        return self

    def __anext__(self) -> Coroutine[Any, Any, bytes]:
        """Return the next bytes to write; the call also means that the last bytes were written.

        Raises:
          StopAsyncIteration: the stream has ended.
          trio.ClosedResourceError: the stream is not open.

        Cancellation:
          A checkpoint. Atomic: either bytes are returned or nothing was taken.
        """
        # Not async itself: an idle stream would keep one more coroutine.
        if self._opened_at is None or self._closed_at is not None:
            raise trio.ClosedResourceError("a stream is iterated in the block of its open()")
        self._note_written()
        if not self._started:
            return self._first_chunk()
        if self._direct is not None and self._direct.try_enable():
            return self._write_directly(self._direct)
        return self._later_chunk()

    async def _first_chunk(self) -> bytes:
        await trio.lowlevel.checkpoint()
        self._started = True
        self._writing.bytes = len(self._source.preamble)
        return self._source.preamble

    async def _later_chunk(self) -> bytes:
        if (chunk := await self._next_chunk()) is not None:
            return chunk
        self._set_close_reason(CloseReason.FINISHED)
        raise StopAsyncIteration

    async def _write_directly(self, direct: DirectWriter) -> Never:
        """Write to the server, bypassing the task that iterates, until the stream has ended."""
        try:
            while (chunk := await self._next_chunk(direct)) is not None:
                await direct.send(chunk)
                self._note_written()
            await direct.send(b"")  # waits for the source's direct writes
        except trio.BrokenResourceError:
            self._set_close_reason(CloseReason.DISCONNECTED)
        self._set_close_reason(CloseReason.FINISHED)
        raise StopAsyncIteration

    async def _next_chunk(self, direct: DirectWriter | None = None) -> bytes | None:
        """Return the next chunk: all that is ready, or a comment; None at the end.

        Args:
          direct: the direct writer that the source may use while there is nothing to return.

        Cancellation:
          A checkpoint. Atomic: either bytes are returned or nothing was taken.
        """
        source = self._source
        began = trio.current_time()
        waited = False
        while True:
            if self._deadline <= trio.current_time() and not self._is_ending:
                self._end_source(CloseReason.EXPIRED)
            lifetime = math.inf if self._is_ending else self._deadline
            silent_since = max(began, source.last_direct_write)
            # A source that is slower than the keep-alive gets twice the time after each comment.
            patience = self._keep_alive * 2**self._interruptions
            ready = False
            with trio.CancelScope(deadline=min(silent_since + patience, lifetime)) as reading:
                ready = await source.ready()
            if ready and waited:
                self._interruptions = 0
                chunk = source.take(self._writing)
                self._writing.bytes = len(chunk)
                return chunk
            if ready:
                await trio.lowlevel.checkpoint()  # however much is ready, other tasks may run
                waited = True
            elif source.ended:
                return self._take_final_event()
            elif reading.cancelled_caught and lifetime <= trio.current_time():
                continue
            elif reading.cancelled_caught or silent_since + self._keep_alive <= trio.current_time():
                self._interruptions += reading.cancelled_caught
                self._writing = Tally(bytes=len(COMMENT), keep_alives=1)
                return COMMENT
            else:
                with trio.CancelScope(deadline=min(silent_since + self._keep_alive, lifetime)):
                    await source.wait(direct)
                waited = True

    def _take_final_event(self) -> bytes | None:
        chunk, self._final_event = self._final_event, None
        self._writing.bytes = len(chunk or b"")
        return chunk

    def _note_written(self) -> None:
        if self._writing.bytes:
            self._source.written.add(self._writing)
            self._writing = Tally()

    @property
    def _is_ending(self) -> bool:
        return self._close_reason is not None or self._source.ended

    def _end_source(self, reason: CloseReason) -> None:
        self._source.end(self._set_close_reason(reason))

    def _set_close_reason(self, reason: CloseReason) -> CloseReason:
        """Set why the stream ends, unless an earlier cause is set or known; return the reason."""
        if self._close_reason is None:
            if self._source.expired:
                # `end` sets its reason before it ends the source, so this is the deadline.
                reason = CloseReason.EXPIRED
            elif reason is CloseReason.DISCONNECTED and self._direct and self._direct.stalled:
                reason = CloseReason.SLOW
            self._close_reason = reason
        return self._close_reason

    async def __aenter__(self) -> EventStream:
        if self._opened_at is not None:
            raise RuntimeError("a stream is opened once: make another stream for another client")
        self._opened_at = trio.current_time()
        self._deadline = self._opened_at + self._max_lifetime
        try:
            await self._source.start(self.name, self._deadline, self._set_close_reason)
        except BaseException:
            self._set_closed()
            raise
        return self

    async def __aexit__(self, *exc_info: Any) -> bool | None:
        try:
            # ASYNC102: it waits for tasks that it has cancelled.
            return await self._source.stop(*exc_info)  # noqa: ASYNC102
        finally:
            self._set_closed()

    def _set_closed(self) -> None:
        if self._close_reason is None:  # the source failed to start
            self._close_reason = CloseReason.FAILED
        self._closed_at = trio.current_time()
        if self._closed is not None:
            self._closed.set()
