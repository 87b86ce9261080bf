"""One subscriber: first what the history has for it, then what is published, without a seam.

Rule 1: no gap, no duplicate: see `penstock.replay` and `penstock.dispatcher`.

Rule 2: whoever cannot be given everything is told, by an event named ``gap`` where it is missing.

Rule 3: a subscription that fell behind loses what was in its backlog; the history has it.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, final

import trio

from penstock.audience import Audience
from penstock.backlog import Backlog, WhenSlow
from penstock.event import ServerSentEvent
from penstock.feed import COMMENT, Conclude, Tally
from penstock.outcome import CloseReason
from penstock.publication import select_topics
from penstock.replay import Item, Replay
from penstock.subscription_feed import SubscriptionFeed

if TYPE_CHECKING:
    from penstock.hub import Hub
    from penstock.publication import Publication
    from penstock.transport import WriteThrough

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

    An event named ``gap`` is not published by anybody: it says that something is missing there.

    Args:
      hub: what it subscribes to.
      topics: which; ``"*"`` means every topic.
      last_event_id: where to go on: what comes after it in the history comes first. None or
        ``""`` begins with what is published from then on; ``"earliest"`` with all that the
        history has. With an id that the history does not have (any more), an event named
        ``gap`` comes first, whose data is ``{"last_event_id": …}``, and then what is published
        from then on.
      when_slow: what becomes of a subscriber who is too far behind: see `WhenSlow`.
      buffer: how many publications may wait in memory for a subscriber.
      buffer_size: how many bytes of them.
      retry: what a stream tells its client at the beginning: how long to wait before it
        reconnects, in milliseconds (the unit of the wire).

    Raises:
      InvalidPublication: there is no topic, or one that cannot be.
      TypeError: ``last_event_id`` is no text.
      ValueError: ``when_slow`` is no policy, a bound is below 1, or ``retry`` out of its range.

    Attributes:
      conclude: called when it falls behind, if its stream wants to know.
      last_event_id: where another one can go on, when this one is iterated: the id of the last
        event that was received; before, the one after which it began.
      through: how the dispatcher may write to the client at the moment, if it may.
      written: what was written through, or by the stream.
      silent_since: when something was last written through.
    """

    __slots__ = (
        *("_audience", "_backlog", "_called", "_close_reason", "_hub", "_opened", "_replay"),
        *("_retry", "_topics", "_used", "conclude", "last_event_id", "silent_since", "through"),
        "written",
    )

    def __init__(
        self,
        hub: Hub,
        topics: Iterable[str],
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
        self._retry = None if retry is None else ServerSentEvent(retry=retry).encode()
        self._hub = hub
        self._topics = select_topics(topics)
        self._replay = Replay(hub, self._topics, last_event_id or None)
        self._backlog = Backlog(count=buffer, size=buffer_size, when_slow=when_slow)
        self._audience: Audience | None = None
        self._called: trio.Event | None = None
        self._opened = self._used = False
        self._close_reason: CloseReason | None = None
        self.conclude: Conclude | None = None
        self.last_event_id: str | None = None
        self.through: WriteThrough | None = None
        self.written: Tally = Tally()
        self.silent_since: float = -math.inf

    def __repr__(self) -> str:
        topics = "every topic" if self._topics is None else sorted(self._topics)
        state = self._close_reason or ("open" if self._opened else "new")
        return f"<Subscription to {topics}, {state}, {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        """How many events wait for the subscriber in memory."""
        return len(self._backlog) + len(self._replay)

    @property
    def dropped(self) -> int:
        """How many were dropped, as `WhenSlow.DROP_OLDEST` or `WhenSlow.LATEST` has it."""
        return self._backlog.dropped

    @property
    def close_reason(self) -> CloseReason | None:
        """Why it ended: `CloseReason.SLOW`, or what ended its stream, its block or its hub."""
        return self._close_reason

    def selects(self, topic: str) -> bool:
        """Tell whether it is to a topic."""
        return self._topics is None or topic in self._topics

    async def locate(self) -> str | None:
        """Find where it goes on, and return the id after which that is; None if there is none.

        Opening it does so too. Called before, it tells what can be told before the first event: a
        client that asked for another id than this one missed something.

        Cancellation:
          May be a checkpoint. Cancelled, it can be called again.
        """
        if not self._hub.closed:
            await self._replay.locate()
        return self._replay.goes_on

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
            self.last_event_id = await self.locate()
            yield self
        finally:
            self.end(CloseReason.FINISHED)
            self._opened = False
            self._backlog.clear()
            self._replay.take()

    def feed(self, *, keep_alive: float, max_lifetime: float) -> SubscriptionFeed:
        """Return the feed for a stream; `penstock.stream.EventStream` calls it.

        Raises:
          RuntimeError: the subscription was used before.
        """
        self._use()
        return SubscriptionFeed(self, keep_alive=keep_alive, max_lifetime=max_lifetime)

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
        while not await self.ready():
            if not self._opened:
                raise trio.ClosedResourceError("a subscription is iterated in its open() block")
            if self._close_reason is CloseReason.SLOW:
                raise trio.BrokenResourceError("the subscription fell behind and was ended")
            if self._close_reason is CloseReason.FINISHED and self._replay.done:
                raise StopAsyncIteration
            if self._close_reason is CloseReason.FINISHED:
                raise trio.BrokenResourceError("the hub was closed before everything was read")
            if self._close_reason is not None:
                raise trio.ClosedResourceError(f"the subscription was ended: {self._close_reason}")
            await self.wait()
        item = self._replay.take_one() if len(self._replay) else next(self._backlog.pop(1))
        self.last_event_id = item.id or self.last_event_id
        return item if isinstance(item, ServerSentEvent) else item.event

    # For its stream's feed

    @property
    def greeting(self) -> bytes:
        """What a stream of it begins with, once it has begun: when to come back, and where to."""
        greeting = COMMENT + (self._retry or b"")
        if self._replay.requested is None and self._replay.goes_on is not None:
            # Spec: #event-stream-interpretation: a block without data dispatches nothing, but sets
            # the last event id: who loses the connection before the first event misses none.
            greeting += ServerSentEvent(id=self._replay.goes_on).encode()
        return greeting

    def begin(self) -> None:
        """Begin to receive: at once when it needs nothing of the history. Synchronous.

        Raises:
          trio.ClosedResourceError: the hub is not open yet.
        """
        if not self._hub.closed:
            self._hub.check_open()
        self._opened = True
        if self._close_reason is None:
            self._hub.subscribers.begin(self, self._topics)
        if self._close_reason is None:
            self._replay.begin()
            self._join_when_delivered()

    async def ready(self) -> bool:
        """Tell whether `pop` has something; meanwhile read the history, as far as that is due.

        Cancellation:
          May be a checkpoint. Atomic.
        """
        while not len(self._replay) and not self._replay.done and self._close_reason is None:
            await self.locate()
            if self._close_reason is not None:
                break
            if self._join_when_delivered():
                await self.wait()
                continue
            head = self._hub.dispatcher.head
            if self._audience is None and self._replay.ends_soon(head):
                self.join()
            await self._replay.read(head)
        return bool(len(self._replay) or (len(self._backlog) and self._replay.done))

    def pop(self, size: int) -> Sequence[Item]:
        """Take what comes next: of the backlog up to so many bytes, one publication at least."""
        return self._replay.take() if len(self._replay) else list(self._backlog.pop(size))

    async def wait(self) -> None:
        """Wait until there may be something to `pop`, or the subscription has ended.

        Cancellation:
          A checkpoint.
        """
        if self._called is not None:
            raise trio.BusyResourceError("another task is waiting for this subscription")
        self._called = trio.Event()
        try:
            await self._called.wait()
        finally:
            self._called = None

    def end(self, reason: CloseReason) -> None:
        """Receive no more, for this reason if there is no earlier one; what waits stays."""
        if self._close_reason is not None:
            return
        self._close_reason = reason
        self.through = None
        if self._opened:
            self._hub.subscribers.end(self, self._topics, self._audience, reason)
        self._audience = None
        self.wake()

    # For the dispatcher

    def wake(self) -> None:
        """Have `wait` return."""
        if self._called is not None:
            self._called.set()

    def put(self, publications: Iterable[Publication]) -> bool:
        """Have publications wait; the client is behind. False: it has left meanwhile."""
        self.through = None
        if self._audience is None:
            return False
        for publication in publications:
            if not self._backlog.add(publication):
                self._backlog.clear()
                if self.conclude is not None:
                    self.conclude(CloseReason.SLOW)
                self.end(CloseReason.SLOW)
                return True
        self.wake()
        return True

    def _use(self) -> None:
        if self._used:
            raise RuntimeError("a subscription is used once: make another one")
        self._used = True

    def _join_when_delivered(self) -> bool:
        """Join, if it needs nothing of the history; tell whether it will when that is delivered."""
        dispatcher = self._hub.dispatcher
        if self._replay.is_at(dispatcher.head):
            self.join()
        position = self._replay.beyond(dispatcher.head)
        if position is None:
            return False
        dispatcher.expect(position, self)
        return True

    def join(self) -> None:
        """Hear what is published from now on; no checkpoint since the head was looked at."""
        if self._close_reason is None and self._audience is None:
            self._replay.joined(self._hub.dispatcher.head)
            self._audience = self._hub.subscribers.audiences.join(self, self._topics)
