"""A subscription: first the events that the log has, then live events, with no gap in between.

This module has the public interface, and that of a stream's source; `penstock.hub.cursor` has the
progress from the log to live delivery.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, final

import trio

from penstock.close_reason import CloseReason
from penstock.event import ServerSentEvent
from penstock.hub.cursor import Cursor, SubscriptionHub
from penstock.hub.subscriber_queue import OverflowPolicy, SubscriberQueue
from penstock.publication import EARLIEST
from penstock.selection import Selection, select
from penstock.stream.source import COMMENT, SetCloseReason, Tally

if TYPE_CHECKING:
    from penstock.stream.transport import DirectWriter

__all__ = ["DEFAULT_BUFFER", "DEFAULT_BUFFER_SIZE", "Subscription"]

# Publications, as in Mercure hubs: ten seconds at a hundred a second.
DEFAULT_BUFFER: Final = 1000

# Bytes: with a thousand stalled clients, a gigabyte, most of it shared.
DEFAULT_BUFFER_SIZE: Final = 2**20

# Bytes that a stream takes at once, unless a single event is larger: the size of a socket's buffer,
# so that each client has no more than this in a copy of its own.
_CHUNK: Final = 2**16


@final
class Subscription:
    """One subscriber's events; made by `penstock.hub.Hub.subscription`, and used once.

    Pass it to an `EventSourceResponse` or `EventStream`, or iterate its events:

        async with subscription.open():
            async for event in subscription:
                ...

    An event named ``gap`` is synthetic: it marks the place of missing events.

    Args:
      hub: the hub.
      topics: the topics; `penstock.EVERY_TOPIC` selects all topics.
      last_event_id: the id after which to resume: later events in the log come first. None or
        ``""`` begins with the next publication, ``"earliest"`` with everything that the log has.
        If the log does not know the id, an event named ``gap`` comes first, whose data is
        ``{"last_event_id": …}``, and then the next publications. Ids of publications on other
        topics are unknown.
      overflow: what to do when the subscriber is too far behind: see `OverflowPolicy`.
      buffer: how many publications may wait in memory for the subscriber.
      buffer_size: how many bytes of publications may wait (`Publication.size`).
      retry: how long a client waits before it reconnects, in milliseconds (the unit of the wire);
        sent at the beginning of a stream.

    Raises:
      InvalidSubscription: there is no topic, or a topic that no publication can have.
      TypeError: ``last_event_id`` is not text.
      ValueError: ``overflow`` is no policy, a bound is below 1, or ``retry`` is out of its range.

    Attributes:
      last_event_id: while its events are iterated, the id after which another subscription can
        resume: that of the last event received; before that, the id after which this began.
      preamble: the first bytes of its stream: a comment, ``retry`` if given, and the id of the
        position at which it began, if that is known by then.
    """

    __slots__ = (
        *("_close_reason", "_cursor", "_hub", "_opened", "_position_sent", "_queue", "_retry"),
        *("_set_close_reason", "_used", "last_event_id", "preamble", "selection"),
    )

    # As a `penstock.stream.source.Source`: it has no producer, and no work with a deadline.
    producer_state: Final = None
    expired: Final = False

    def __init__(
        self,
        hub: SubscriptionHub,
        topics: Iterable[str] | Selection,
        *,
        last_event_id: str | None,
        overflow: OverflowPolicy,
        buffer: int,
        buffer_size: int,
        retry: int | None,
    ) -> None:
        if last_event_id is not None and not isinstance(last_event_id, str):
            raise TypeError(f"last_event_id must be text, not {type(last_event_id).__name__}")
        if buffer < 1 or buffer_size < 1:
            raise ValueError("buffer and buffer_size must be at least 1")
        self.selection: Selection = select(topics)
        self.last_event_id: str | None = None
        self.preamble: bytes = COMMENT
        self._queue = SubscriberQueue(count=buffer, size=buffer_size, overflow=overflow)
        self._set_close_reason: SetCloseReason | None = None  # of the stream, while it runs
        self._position_sent = False  # whether the client has the id of where it began
        self._cursor = Cursor(
            hub, self.selection, last_event_id or None, self._queue, self._on_cursor_end
        )
        self._retry = None if retry is None else ServerSentEvent(retry=retry).encode()
        self._hub = hub
        self._used = self._opened = False
        self._close_reason: CloseReason | None = None

    def __repr__(self) -> str:
        state = self._close_reason or ("open" if self._opened else "new")
        return f"<Subscription to {self.selection}, {state}, {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        """The number of events that wait for the subscriber in memory."""
        return self._cursor.waiting

    @property
    def dropped(self) -> int:
        """The number of events that the overflow policy has dropped."""
        return self._queue.dropped

    @property
    def close_reason(self) -> CloseReason | None:
        """Why the subscription ended; None while it has not."""
        return self._close_reason

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Subscription]:
        """Receive while the block runs.

        Raises:
          trio.ClosedResourceError: the hub is not open.
          RuntimeError: the subscription was used before.

        Cancellation:
          Entering may be a checkpoint; leaving is none.
        """
        self.claim()
        self._hub.check_open()
        self._begin()
        try:
            await self._cursor.locate()
            self.last_event_id = self._cursor.resume_id
            yield self
        finally:
            self.end(CloseReason.FINISHED)
            self._opened = False
            self._cursor.clear()

    async def locate(self) -> str | None:
        """Return the id after which its stream resumes, for the response's head.

        If a client requested another id than this, events are missing. None if the hub is closed,
        or the stream begins with the earliest event.

        Raises:
          trio.ClosedResourceError: the hub is not open yet.

        Cancellation:
          May be a checkpoint. If cancelled, it can be called again.
        """
        if self._hub.closed:
            return None
        self._hub.check_open()
        await self._cursor.locate()
        resume_id = self._cursor.resume_id
        return None if resume_id == EARLIEST else resume_id

    def end(self, reason: CloseReason) -> None:
        """Receive no more; only the first reason counts. Events that wait can still be taken.

        Cancellation:
          Synchronous, no checkpoint.
        """
        if self._close_reason is not None:
            return
        self._hub.check_trio_run()
        self._close_reason = reason
        self._cursor.end()
        if self._opened:
            self._hub.subscriber_removed(self, reason)

    def _begin(self) -> None:
        """Begin to receive: immediately if nothing has to be read from the log. Synchronous.

        Raises:
          trio.ClosedResourceError: the hub is not open yet.
        """
        if not self._hub.closed:
            self._hub.check_open()
        self._opened = True
        if self._close_reason is None:
            self._hub.subscriber_added(self)
        if self._close_reason is None:
            self._cursor.begin(self._hub.dispatcher)

    def _on_cursor_end(self, reason: CloseReason) -> None:
        if self._set_close_reason is not None:
            self._set_close_reason(reason)
        self.end(reason)

    # Iterated in its block

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> ServerSentEvent:
        """Return the next event.

        Raises:
          StopAsyncIteration: the hub was closed.
          trio.BrokenResourceError: the subscription fell behind, or the hub was closed before
            everything was read from the log; another subscription can resume after `last_event_id`.
          trio.ClosedResourceError: this is not the block of `open`, or the subscription was ended.
          trio.BusyResourceError: another task is waiting for an event.

        Cancellation:
          A checkpoint. Atomic: either an event is returned, or nothing was taken.
        """
        await trio.lowlevel.checkpoint()
        while not await self._cursor.ready():
            if not self._opened:
                raise trio.ClosedResourceError("a subscription is iterated in its open() block")
            if self._close_reason is CloseReason.SLOW:
                raise trio.BrokenResourceError("the subscription fell behind and was ended")
            if self._close_reason is CloseReason.FINISHED and self._cursor.complete:
                raise StopAsyncIteration
            if self._close_reason is CloseReason.FINISHED:
                raise trio.BrokenResourceError("the hub was closed before everything was read")
            if self._close_reason is not None:
                raise trio.ClosedResourceError(f"the subscription was ended: {self._close_reason}")
            await self._cursor.wait()
        item = self._cursor.take_one()
        self.last_event_id = item.id or self.last_event_id
        return item if isinstance(item, ServerSentEvent) else item.event

    # As a `penstock.stream.source.Source`

    def claim(self) -> None:
        """Reserve it for one stream, or one block of `open`; see `Source.claim`."""
        if self._used:
            raise RuntimeError("a subscription is used once: make another subscription")
        self._used = True

    @property
    def written(self) -> Tally:
        """Counts of all that was written to its stream's client; see `Source.written`."""
        return self._cursor.written

    @property
    def last_direct_write(self) -> float:
        """When the dispatcher last wrote to the client; see `Source.last_direct_write`."""
        return self._cursor.last_direct_write

    @property
    def ended(self) -> bool:
        """Whether nothing follows the events that are ready."""
        return self._close_reason is not None

    async def start(self, name: str, deadline: float, set_close_reason: SetCloseReason) -> None:
        """Subscribe; see `Source.start`."""
        self._set_close_reason = set_close_reason
        self._begin()
        self.preamble += self._retry or b""
        if self._position_due:
            self.preamble += self._position_block()

    async def stop(self, *exc_info: Any) -> None:
        """Unsubscribe; see `Source.stop`."""
        if self._set_close_reason is not None:
            self.end(self._set_close_reason(CloseReason.DISCONNECTED))
        # Reference cycles would wait for the cyclic collector.
        self._set_close_reason = None

    async def ready(self) -> bool:
        """Return whether there is something to `take`; see `Source.ready`."""
        return await self._cursor.ready() or self._position_due

    async def wait(self, direct: DirectWriter | None) -> None:
        """Wait for a publication, or the end; see `Source.wait`."""
        await self._cursor.wait(direct)

    def take(self, tally: Tally) -> bytes:
        """Take events that are ready, up to some 64 KiB; see `Source.take`."""
        chunks = []
        if self._position_due:
            chunks.append(self._position_block())
        for item in self._cursor.take(_CHUNK):
            if isinstance(item, ServerSentEvent):
                chunks.append(item.encode())
                tally.events += 1
            else:
                chunks.append(item.wire)
                tally.events += item.dispatched
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    @property
    def _position_due(self) -> bool:
        return not self._position_sent and self._cursor.position_id is not None

    def _position_block(self) -> bytes:
        # Spec: #event-stream-interpretation: a block without data dispatches nothing, but sets the
        # last event id: a client that loses its connection before the first event misses none.
        self._position_sent = True
        return ServerSentEvent(id=self._cursor.position_id).encode()
