"""One subscriber: first what the history has for it, then what is published, without a seam.

What its user sees is here; the way from history to live is `penstock.hub.cursor`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, final

import trio

from penstock.event import ServerSentEvent
from penstock.hub.backlog import Backlog, WhenSlow
from penstock.hub.cursor import Cursor
from penstock.hub.feed import SubscriptionFeed
from penstock.outcome import CloseReason
from penstock.publication import EARLIEST
from penstock.selection import Selection, select
from penstock.stream.feed import COMMENT, Conclude

if TYPE_CHECKING:
    from penstock.hub.hub import Hub

__all__ = ["DEFAULT_BUFFER", "DEFAULT_BUFFER_SIZE", "Subscription"]

# Publications, as Mercure hubs have it: ten seconds at a hundred a second.
DEFAULT_BUFFER: Final = 1000

# Bytes: with a thousand stalled clients, a gigabyte of what is mostly shared.
DEFAULT_BUFFER_SIZE: Final = 2**20


@final
class Subscription:
    """One subscriber's events; made by `penstock.hub.Hub.subscription`, for one use.

    Either it is given to an `EventSourceResponse` or `EventStream`, or its events are iterated:

        async with subscription.open():
            async for event in subscription:
                ...

    An event named ``gap`` is synthetic: it marks the place of events that are missing.

    Args:
      hub: what it subscribes to.
      topics: which topics; `penstock.EVERY_TOPIC` selects all of them.
      last_event_id: the id after which to resume: what the history has after it comes first. None
        or ``""`` begins with what is published from now on, ``"earliest"`` with everything that the
        history has. After an id that the history does not know, an event named ``gap`` comes first,
        whose data is ``{"last_event_id": …}``, and then what is published from now on. Ids of
        publications on other topics are unknown.
      when_slow: what becomes of a subscriber that is too far behind: see `WhenSlow`.
      buffer: how many publications may wait in memory for a subscriber.
      buffer_size: how many bytes of them (`Publication.size`).
      retry: what a stream tells its client at the beginning: how long to wait before it
        reconnects, in milliseconds (the unit of the wire).

    Raises:
      InvalidSubscription: there is no topic, or one that no publication can have.
      TypeError: ``last_event_id`` is not text.
      ValueError: ``when_slow`` is no policy, a bound is below 1, or ``retry`` out of its range.

    Attributes:
      last_event_id: where another one can go on, when this one is iterated: the id of the last
        event that was received; before, the one after which it began.
    """

    __slots__ = (
        *("_close_reason", "_hub", "_opened", "_queue", "_retry", "_used", "conclude", "cursor"),
        *("last_event_id", "selection"),
    )

    def __init__(
        self,
        hub: Hub,
        topics: Iterable[str] | Selection,
        *,
        last_event_id: str | None,
        when_slow: WhenSlow,
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
        self.conclude: Conclude | None = None  # of the stream, while it runs
        self._queue = Backlog(count=buffer, size=buffer_size, when_slow=when_slow)
        self.cursor: Cursor = Cursor(
            hub, self.selection, last_event_id or None, self._queue, self._cannot_go_on
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
        """How many events wait for the subscriber in memory."""
        return self.cursor.waiting

    @property
    def dropped(self) -> int:
        """How many were dropped, as `WhenSlow.DROP_OLDEST` or `WhenSlow.LATEST` has it."""
        return self._queue.dropped

    @property
    def close_reason(self) -> CloseReason | None:
        """Why it ended: `CloseReason.SLOW`, or what ended its stream, its block or its hub."""
        return self._close_reason

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Subscription]:
        """Receive while the block runs.

        Raises:
          trio.ClosedResourceError: the hub is not open.
          RuntimeError: it was opened before.

        Cancellation:
          Entering may be a checkpoint; leaving is none.
        """
        self._use()
        self._hub.check_open()
        self.begin()
        try:
            await self.cursor.locate()
            self.last_event_id = self.cursor.resume_id
            yield self
        finally:
            self.end(CloseReason.FINISHED)
            self._opened = False
            self.cursor.clear()

    def feed(self, *, keep_alive: float, max_lifetime: float) -> SubscriptionFeed:
        """Return the feed for a stream; `penstock.stream.EventStream` calls it.

        Raises:
          RuntimeError: the subscription was used before.
        """
        self._use()
        return SubscriptionFeed(self, keep_alive=keep_alive, max_lifetime=max_lifetime)

    async def locate(self) -> str | None:
        """Return the id after which a stream of this will go on, for its response's head.

        A client that asked for another id than this one missed something. None where there is no
        position to name.

        Raises:
          trio.ClosedResourceError: the hub is not open yet.

        Cancellation:
          May be a checkpoint. Cancelled, it can be called again.
        """
        if self._hub.closed:
            return None
        self._hub.check_open()
        await self.cursor.locate()
        resume_id = self.cursor.resume_id
        return None if resume_id == EARLIEST else resume_id

    # For its stream's feed, and for the hub

    @property
    def preamble(self) -> bytes:
        """What a stream of it begins with, once it has begun: when to reconnect, and from where."""
        preamble = COMMENT + (self._retry or b"")
        if (position_id := self.cursor.position_id) is not None:
            # Spec: #event-stream-interpretation: a block without data dispatches nothing, but sets
            # the last event id: who loses the connection before the first event misses none.
            preamble += ServerSentEvent(id=position_id).encode()
        return preamble

    def begin(self) -> None:
        """Begin to receive: at once if nothing of the history is needed. Synchronous.

        Raises:
          trio.ClosedResourceError: the hub is not open yet.
        """
        if not self._hub.closed:
            self._hub.check_open()
        self._opened = True
        if self._close_reason is None:
            self._hub.subscribers.begin(self)
        if self._close_reason is None:
            self.cursor.begin(self._hub.dispatcher)

    def end(self, reason: CloseReason) -> None:
        """Receive no more, for this reason if there is no earlier one; what waits stays."""
        if self._close_reason is not None:
            return
        self._hub.check_run()
        self._close_reason = reason
        self.cursor.end()
        if self._opened:
            self._hub.subscribers.end(self, reason)

    def _cannot_go_on(self, reason: CloseReason) -> None:
        if self.conclude is not None:
            self.conclude(reason)
        self.end(reason)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> ServerSentEvent:
        """Return the next event.

        Raises:
          StopAsyncIteration: the hub was closed.
          trio.BrokenResourceError: the subscription fell behind, or the hub was closed while it
            read the history; `last_event_id` is where another one can go on.
          trio.ClosedResourceError: this is not the block of `open`, or it was ended.
          trio.BusyResourceError: another task is waiting for an event.

        Cancellation:
          A checkpoint. Atomic: either an event is returned, or nothing was taken.
        """
        await trio.lowlevel.checkpoint()
        while not await self.cursor.ready():
            if not self._opened:
                raise trio.ClosedResourceError("a subscription is iterated in its open() block")
            if self._close_reason is CloseReason.SLOW:
                raise trio.BrokenResourceError("the subscription fell behind and was ended")
            if self._close_reason is CloseReason.FINISHED and self.cursor.complete:
                raise StopAsyncIteration
            if self._close_reason is CloseReason.FINISHED:
                raise trio.BrokenResourceError("the hub was closed before everything was read")
            if self._close_reason is not None:
                raise trio.ClosedResourceError(f"the subscription was ended: {self._close_reason}")
            await self.cursor.wait()
        item = self.cursor.take_one()
        self.last_event_id = item.id or self.last_event_id
        return item if isinstance(item, ServerSentEvent) else item.event

    def _use(self) -> None:
        if self._used:
            raise RuntimeError("a subscription is used once: make another one")
        self._used = True
