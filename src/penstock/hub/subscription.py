"""One subscriber: first what the history has for it, then what is published, without a seam.

What its user sees is here; how it receives is `penstock.hub.reception`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, final

import trio

from penstock.event import ServerSentEvent
from penstock.hub.backlog import Backlog, WhenSlow
from penstock.hub.feed import SubscriptionFeed
from penstock.hub.reception import Reception
from penstock.outcome import CloseReason

if TYPE_CHECKING:
    from penstock.hub.hub import Hub

__all__ = ["DEFAULT_BUFFER", "DEFAULT_BUFFER_SIZE", "Subscription"]

# Publications, as Mercure hubs have it: ten seconds at a hundred a second.
DEFAULT_BUFFER: Final = 1000

# Bytes: with a thousand stalled clients, a gigabyte of what is mostly shared.
DEFAULT_BUFFER_SIZE: Final = 2**20


@final
class Subscription(Reception):
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
      last_event_id: where another one can go on, when this one is iterated: the id of the last
        event that was received; before, the one after which it began.
    """

    __slots__ = ("_used", "last_event_id")

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
        backlog = Backlog(count=buffer, size=buffer_size, when_slow=when_slow)
        super().__init__(hub, topics, last_event_id or None, backlog, retry)
        self._used = False
        self.last_event_id: str | None = None

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

    def _use(self) -> None:
        if self._used:
            raise RuntimeError("a subscription is used once: make another one")
        self._used = True
