"""One client's event stream: what it is fed by, a writer, and the reason why it ends.

Rule 1: a stream ends because its feed ends. The producer returns, raises or closes its channel, or
the hub of the subscription closes; the feed is ended (by `EventStream.end` or by ``max_lifetime``);
or everything round it is cancelled, because the client is gone. There is no other way out.

Rule 2: lifetime equals block. When the block of `EventStream.open` is left, the producer and
everything it started have finished, and the subscription is no more, whatever the reason.

Rule 3: one stream, one reason. The first cause to end a stream names its `CloseReason`; a stream
whose producer returned is *finished* only when everything it had sent has been written.

Theory of operation: a producer fills a channel from a task of its own, a hub's dispatcher fills the
backlog of a subscription; the writer is whoever iterates, `EventStream.run` or a host that pulls a
response body, as Quart does. No task is between. Where the server offers it, events are written
through, past the writer.
"""

from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, final

import trio

from penstock.event import ServerSentEvent
from penstock.outcome import CloseReason, EventStreamStatistics
from penstock.stream.feed import Feed, Source, Tally
from penstock.stream.producer import Producer, ProducerFeed, check_producer

if TYPE_CHECKING:
    from penstock.stream.transport import Transport, WriteThrough

__all__ = ["DEFAULT_BUFFER", "DEFAULT_KEEP_ALIVE", "EventStream"]

# Seconds. axum, FastAPI and sse-starlette send one after 15, better-sse after 10, Mercure after 40;
# the shortest idle time-out of common proxies is 30.
DEFAULT_KEEP_ALIVE: Final = 15.0

# Events. A burst of this size costs one write; a producer is never further ahead.
DEFAULT_BUFFER: Final = 16


@final
class EventStream:
    """One client's stream of events; iterating it gives the bytes to write.

        async with EventStream(producer).open() as stream:
            async for chunk in stream:
                await write(chunk)

    or, in one call, ``await stream.run(transport)``. A stream is opened once. The first chunk is a
    comment and comes at once; then come the events, all that wait in one chunk, and a comment after
    each ``keep_alive`` seconds of silence. The iteration ends when the producer has ended and the
    channel is empty: what it sent before it returned is sent.

    Args:
      source: ``async def producer(events: trio.abc.SendChannel[ServerSentEvent]) -> None``. It
        runs in a task of its own, may open nurseries and cancel scopes as it likes, and waits in
        ``events.send`` while its client is behind. Its channel is closed for it when it returns.
        Or a hub's subscription (`penstock.hub.Hub.subscription`), which needs no task.
      keep_alive: seconds of silence after which a comment is sent; None sends none, and then a
        proxy may close the stream, and a client that vanished is noticed at the next event only.
      buffer: how many events of a producer may wait for the writer; 0 makes each send wait for it;
        None means 16. A subscription has a bound of its own, and takes no other.
      max_lifetime: seconds after which the producer is cancelled, and the stream ends with
        `CloseReason.EXPIRED` when what was sent is written; None sets no limit. 0 or less, such as
        what is left of a token that has expired, ends it after its first bytes, and does not call
        the producer.
      name: whose stream it is, for the log and for the name of the producer's task.

    Raises:
      TypeError: the producer cannot be one: it cannot be called, or it yields.
      ValueError: another argument is out of its range, or ``buffer`` was given with a subscription.

    Error handling:
      An exception that leaves the producer ends this stream with `CloseReason.FAILED` and is
      logged once, with its traceback, to the logger ``penstock.stream.producer``; it goes no
      further. This holds too for one raised while the producer is being cancelled; the reason then
      stays what it was.
    """

    __slots__ = (
        *("_begun", "_close_reason", "_closed_at", "_feed", "_left", "_opened_at", "_through"),
        *("_writing", "name"),
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
        silence = math.inf if keep_alive is None else float(keep_alive)
        lifetime = math.inf if max_lifetime is None else float(max_lifetime)
        self.name: str = name
        self._feed: Feed
        if isinstance(source, Source):
            if buffer is not None:
                raise ValueError(
                    "buffer is how far a producer may be ahead: a subscription's bound is given "
                    "where it is made, as hub.subscription(…, buffer=…)"
                )
            self._feed = source.feed(keep_alive=silence, max_lifetime=lifetime)
        else:
            check_producer(source)
            self._feed = ProducerFeed(
                source,
                buffer=DEFAULT_BUFFER if buffer is None else buffer,
                keep_alive=silence,
                max_lifetime=lifetime,
            )
        self._through: WriteThrough | None = None
        self._close_reason: CloseReason | None = None
        self._opened_at: float | None = None
        self._closed_at: float | None = None
        self._left: trio.Event | None = None  # made by the first that waits for it
        self._begun = False
        self._writing = Tally()  # of the chunk that the writer has and has not come back from

    def __repr__(self) -> str:
        state = "new" if self._opened_at is None else "open"
        if self._closed_at is not None:
            state = f"closed ({self._close_reason})"
        return f"<EventStream {self.name!r} {state}, {self._feed.written.events} events sent>"

    @property
    def close_reason(self) -> CloseReason | None:
        """Why the stream ended or is ending; None while nothing ends it."""
        return self._close_reason

    @property
    def written(self) -> Tally:
        """What was written so far: what is asked of thousands of streams at a time."""
        return self._feed.written

    def statistics(self) -> EventStreamStatistics:
        """Return the stream's figures as they are now."""
        begun = self._opened_at
        seconds = 0.0 if begun is None else (self._closed_at or trio.current_time()) - begun
        return EventStreamStatistics(
            open=self._opened_at is not None and self._closed_at is None,
            seconds=seconds,
            events_sent=self._feed.written.events,
            bytes_sent=self._feed.written.bytes,
            keep_alives_sent=self._feed.written.keep_alives,
            events_buffered=self._feed.waiting,
            producer=self._feed.state,
            close_reason=self._close_reason,
        )

    def end(self, reason: CloseReason, farewell: ServerSentEvent | None = None) -> None:
        """End the stream from outside: cancel its producer, and let the writer write what is there.

        Only the first reason counts. A stream that is not open yet ends as soon as it is.

        Args:
          reason: why.
          farewell: the last thing to write, such as ``ServerSentEvent(retry=…)``.

        Cancellation:
          Synchronous, no checkpoint: it does not wait for the end. From a thread, such as a plain
          view's, it is called through `trio.from_thread.run_sync`.
        """
        if self._close_reason is None and farewell is not None:
            self._feed.farewell = farewell.encode()
        self._conclude(reason)
        self._feed.end()

    def open(self, through: WriteThrough | None = None) -> AbstractAsyncContextManager[EventStream]:
        """Run the stream for as long as the block runs; iterate it in the block.

        Args:
          through: the server's offer to write this response's bytes itself. Where it can be
            enabled (see `WriteThrough.try_enable`), the iteration gives the first bytes only, and
            ends with the stream.

        Cancellation:
          Entering is no checkpoint. Leaving waits for the producer, which has been cancelled unless
          the stream is finished: a producer may go on after it closed its channel. One that shields
          itself or swallows `trio.Cancelled` delays it.

        Resource handling:
          When the block has been left, no task and no channel of the stream is left, and
          `close_reason` is final.

        Raises:
          RuntimeError: the stream was opened before.
        """
        return _Block(self, through)

    async def wait_closed(self) -> None:
        """Wait until the block of `open` has been left; `close_reason` is final then.

        Any number of tasks may wait, before the stream is opened, too.

        Cancellation:
          A checkpoint. Cancelled, nothing changes.
        """
        if self._closed_at is not None:
            await trio.lowlevel.checkpoint()
            return
        if self._left is None:
            self._left = trio.Event()
        await self._left.wait()

    async def run(self, transport: Transport, through: WriteThrough | None = None) -> CloseReason:
        """Open the stream, write it to a transport until it ends, and return why it ended.

        Args:
          transport: where the bytes go.
          through: as in `open`.

        Cancellation:
          Checkpoints throughout. Cancelled while it writes, a chunk may have been written in part,
          so the connection can only be closed then. The producer is cancelled with it.

        Error handling:
          `trio.BrokenResourceError` and `trio.ClosedResourceError` of the transport end the stream;
          any other error of it propagates, in an exception group, after the producer is cancelled.
        """
        async with self.open(through):
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                async for chunk in self:
                    await transport.send(chunk)
        assert self._close_reason is not None
        return self._close_reason

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> bytes:
        """Return the next bytes to write; asking for them says that the last ones were written.

        Raises:
          StopAsyncIteration: the stream has ended.
          trio.ClosedResourceError: this is not the block of `open`.

        Cancellation:
          A checkpoint. Atomic: either bytes are returned or nothing was taken.
        """
        if self._opened_at is None or self._closed_at is not None:
            raise trio.ClosedResourceError("a stream is iterated in the block of its open()")
        self._note_written()
        if not self._begun:
            await trio.lowlevel.checkpoint()
            self._begun = True
            self._writing.bytes = len(self._feed.greeting)
            return self._feed.greeting
        try:
            if self._through is not None and self._through.try_enable():
                await self._write_through(self._through)
                raise StopAsyncIteration
            return await self._feed.take(self._writing)
        except trio.EndOfChannel:
            self._conclude(CloseReason.FINISHED)
            raise StopAsyncIteration from None

    async def _write_through(self, through: WriteThrough) -> None:
        """Write to the server directly, until the stream has ended."""
        self._feed.write_through(through)
        try:
            try:
                while True:
                    await through.send(await self._feed.take(self._writing))
                    self._note_written()
            except trio.EndOfChannel:
                pass  # outside: in the handler, the exception would be the context of others
            await through.send(b"")  # what was written past this task has arrived, too
            self._conclude(CloseReason.FINISHED)
        except trio.BrokenResourceError:
            self._conclude(CloseReason.DISCONNECTED)

    def _note_written(self) -> None:
        if self._writing.bytes:
            self._feed.written.add(self._writing)
            self._writing = Tally()

    def _conclude(self, reason: CloseReason) -> CloseReason:
        """Note why the stream ends, unless an earlier cause has been noted, or has come true."""
        if self._close_reason is None:
            if self._feed.expired:
                # `end` notes its reason before it ends the feed: without one, it was the deadline.
                reason = CloseReason.EXPIRED
            elif reason is CloseReason.DISCONNECTED and self._through and self._through.stalled:
                reason = CloseReason.SLOW
            self._close_reason = reason
        return self._close_reason

    def _begin(self, through: WriteThrough | None) -> AbstractAsyncContextManager[None]:
        if self._opened_at is not None:
            raise RuntimeError("a stream is opened once: make another for another client")
        self._through = through
        self._opened_at = trio.current_time()
        return self._feed.running(self.name, self._conclude)

    def _leave(self) -> None:
        if self._close_reason is None:  # it could not begin
            self._close_reason = CloseReason.FAILED
        self._closed_at = trio.current_time()
        if self._left is not None:
            self._left.set()


@final
class _Block(AbstractAsyncContextManager[EventStream]):
    """The block of a stream: left only when all that ran in it is over.

    It is a class, since a generator for each stream would weigh.
    """

    __slots__ = ("_feeding", "_stream", "_through")

    def __init__(self, stream: EventStream, through: WriteThrough | None) -> None:
        self._stream = stream
        self._through = through
        self._feeding: AbstractAsyncContextManager[None]

    async def __aenter__(self) -> EventStream:
        self._feeding = self._stream._begin(self._through)
        try:
            await self._feeding.__aenter__()
        except BaseException:
            self._stream._leave()
            raise
        return self._stream

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            # ASYNC102: the block's own exit, which waits for tasks it has cancelled.
            return await self._feeding.__aexit__(  # noqa: ASYNC102 - see above
                exc_type, exc_value, traceback
            )
        finally:
            self._stream._leave()
