"""One subscriber: first what the history has for it, then what is published, without a seam.

Rule 1: no gap, no duplicate. While it is far behind, a subscription reads pages of the history up
to the dispatcher's head; for the last page it joins its audience first, with no checkpoint between
looking at the head and joining. What is published meanwhile waits in its backlog.

Rule 2: whoever cannot be given everything is told, by an event named ``gap`` where it is missing.

Rule 3: a subscription that fell behind lost what was in its backlog; the history has it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, final

import trio

from penstock.audience import Audience
from penstock.backlog import Backlog, WhenSlow
from penstock.errors import HistoryError
from penstock.event import ServerSentEvent
from penstock.feed import COMMENT, Conclude, Tally
from penstock.outcome import CloseReason
from penstock.publication import EARLIEST, select_topics
from penstock.subscription_feed import SubscriptionFeed

if TYPE_CHECKING:
    from penstock.hub import Hub
    from penstock.publication import Publication
    from penstock.transport import WriteThrough

__all__ = ["DEFAULT_BUFFER", "DEFAULT_BUFFER_SIZE", "GAP", "Subscription"]

# Publications, as Mercure hubs have it: ten seconds at a hundred a second.
DEFAULT_BUFFER: Final = 1000

# Bytes: with a thousand stalled clients, a gigabyte of what is mostly shared.
DEFAULT_BUFFER_SIZE: Final = 2**20

# The name of the event that tells a client that it missed something.
GAP: Final = "gap"

# What is read of a history at once, and so what a client that resumes is ahead of its socket.
_PAGE: Final = 256
_PAGE_SIZE: Final = 2**16

_logger = logging.getLogger(__name__)


@final
class Subscription:
    """One subscriber's events; made by `penstock.hub.Hub.subscription`, for one use.

    Either it is given to an `EventSourceResponse` or `EventStream`, or its events are iterated:

        async with subscription.open():
            async for event in subscription:
                ...

    An event named ``gap`` is not published by anybody: it says that something is missing there.

    Attributes:
      conclude: called when it falls behind, if its stream wants to know.
      last_event_id: the id of the last event that was received by iterating, or after which the
        subscription goes on; None if there is none.
      through: how the dispatcher may write to the client at the moment, if it may.
      written: what was written through, or by the stream.
      silent_since: when something was last written through.
    """

    __slots__ = (
        *("_after", "_audience", "_backlog", "_called", "_close_reason", "_hub", "_mark"),
        *("_opened", "_page", "_requested", "_retry", "_topics", "_used", "conclude"),
        *("last_event_id", "silent_since", "through", "written"),
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
        self._requested = last_event_id or None
        self._backlog = Backlog(count=buffer, size=buffer_size, when_slow=when_slow)
        self._after: int | None = None  # the position up to which all was delivered; see _live
        self._mark = -1  # where the backlog begins: known when it has joined its audience
        self._page: list[Publication | ServerSentEvent] = []  # of the history, reversed
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
        state = "new" if not self._opened else self._close_reason or "open"
        return f"<Subscription to {topics}, {state}, {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        """How many publications wait for the subscriber in memory."""
        return len(self._backlog) + len(self._page)

    @property
    def dropped(self) -> int:
        """How many were dropped, as `WhenSlow.DROP_OLDEST` or `WhenSlow.LATEST` has it."""
        return self._backlog.dropped

    @property
    def close_reason(self) -> CloseReason | None:
        """Why it ended: `CloseReason.SLOW`, or `CloseReason.FINISHED` when the hub was closed."""
        return self._close_reason

    @property
    def greeting(self) -> bytes:
        """What a stream of it begins with, once it has begun: when to come back, and where to."""
        greeting = COMMENT + (self._retry or b"")
        if self._requested is None and self.last_event_id is not None:
            # Spec: #event-stream-interpretation: a block without data dispatches nothing, but sets
            # the last event id: who loses the connection before the first event misses none.
            greeting += ServerSentEvent(id=self.last_event_id).encode()
        return greeting

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
        if self._after is None:
            requested = self._requested
            if requested is None:
                self._begin_at_head()
            elif requested == EARLIEST:
                self._after, self.last_event_id = 0, EARLIEST
            elif (position := await self._position(requested)) is not None:
                self._after, self.last_event_id = position, requested
            else:
                self._begin_at_head()
                self._tell_gap(requested, self.last_event_id or "")
        return self.last_event_id

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Subscription]:
        """Receive while the block runs.

        Raises:
          trio.ClosedResourceError: the hub is closed.
          RuntimeError: it was opened before.

        Cancellation:
          Entering may be a checkpoint; leaving is none.
        """
        self._use()
        if self._hub.closed:
            raise trio.ClosedResourceError("the hub is closed")
        self.begin()
        try:
            await self.locate()
            yield self
        finally:
            self.end(CloseReason.FINISHED)

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
          trio.BrokenResourceError: the subscription fell behind; `last_event_id` is where another
            one can go on.
          trio.ClosedResourceError: this is not the block of `open`.

        Cancellation:
          A checkpoint. Atomic: either an event is returned, or nothing was taken.
        """
        await trio.lowlevel.checkpoint()
        while not await self.ready():
            if self._close_reason is CloseReason.SLOW:
                raise trio.BrokenResourceError("the subscription fell behind and was ended")
            if self._close_reason is not None and self._hub.closed:
                raise StopAsyncIteration
            if self._close_reason is not None or not self._opened:
                raise trio.ClosedResourceError("a subscription is iterated in its open() block")
            await self.wait()
        (item,) = self.pop(0)
        if isinstance(item, ServerSentEvent):
            return item
        self.last_event_id = item.id
        return item.event

    # For its stream's feed

    def begin(self) -> None:
        """Begin to receive: at once when it needs nothing of the history. Synchronous."""
        self._opened = True
        self._hub.begin(self, self._topics)
        if self._after is None and self._requested is None:
            self._begin_at_head()
        if self._after == self._hub.dispatcher.head.position:
            self._join()

    async def ready(self) -> bool:
        """Tell whether `pop` has something; meanwhile read the history, as far as that is due.

        Cancellation:
          May be a checkpoint. Atomic.
        """
        while not self._page and self._after != self._mark and self._close_reason is None:
            await self.locate()
            if not self._page:
                await self._read()
        return bool(self._page or (len(self._backlog) and self._after == self._mark))

    def pop(self, size: int) -> Sequence[Publication | ServerSentEvent]:
        """Take what comes next: up to so many bytes of publications, one in any case.

        An event that is no publication tells of a gap.
        """
        if self._page:
            if size == 0:
                return [self._page.pop()]
            page, self._page = self._page[::-1], []
            return page
        return list(self._backlog.pop(max(size, 1)))

    async def wait(self) -> None:
        """Wait until there may be something to `pop`, or the subscription has ended."""
        self._called = trio.Event()
        await self._called.wait()

    def wake(self) -> None:
        """Have `wait` return."""
        if self._called is not None:
            self._called.set()

    def end(self, reason: CloseReason) -> None:
        """Receive no more, for this reason if there is no earlier one; what waits stays.

        With `CloseReason.SLOW` it goes, too: the history has it.
        """
        if self._close_reason is not None:
            return
        self._close_reason = reason
        self.through = None
        if self._audience is not None:
            self._hub.audiences.leave(self, self._audience)
            self._audience = None
        self._hub.end(self, self._topics, reason)
        self.wake()

    # For the dispatcher

    def put(self, publications: Iterable[Publication]) -> None:
        """Have publications wait; the client is behind."""
        self.through = None
        if self._audience is None:
            return  # it left while these were being delivered
        for publication in publications:
            if not self._backlog.add(publication):
                self._backlog.clear()
                if self.conclude is not None:
                    self.conclude(CloseReason.SLOW)
                self.end(CloseReason.SLOW)
                return
        self.wake()

    def _use(self) -> None:
        if self._used:
            raise RuntimeError("a subscription is used once: make another one")
        self._used = True

    def _begin_at_head(self) -> None:
        head = self._hub.dispatcher.head
        self._after, self.last_event_id = head.position, head.id

    def _join(self) -> None:
        self._mark = self._hub.dispatcher.head.position
        self._audience = self._hub.audiences.join(self, self._topics)

    def _tell_gap(self, requested: str | None, goes_on: str | None) -> None:
        gap = ServerSentEvent.json({"last_event_id": requested}, event=GAP, id=goes_on)
        self._page.append(gap)

    async def _position(self, requested: str) -> int | None:
        """Look an id up; a history that cannot be read now is one that does not have it."""
        try:
            return await self._hub.history.locate(requested)
        except HistoryError as error:
            _logger.error("Nothing can be resumed: %s", error)
            return None

    async def _read(self) -> None:
        """Read the next page; join before the one that can be the last."""
        assert self._after is not None
        after, head = self._after, self._hub.dispatcher.head
        if self._audience is None and head.position - after <= _PAGE:
            self._join()
        until = head.position if self._audience is None else self._mark
        if after == until:
            return
        lost = False
        try:
            page = await self._hub.history.read(
                after, until, self._topics, count=_PAGE, size=_PAGE_SIZE
            )
        except HistoryError as error:
            _logger.error("Nothing can be replayed: %s", error)
            self._after, lost = until, True
        else:
            self._page = list(reversed(page.publications))
            self._after = page.until
            # Who asks for all that there is misses nothing of what there was.
            lost = page.lost and (after > 0 or self._requested != EARLIEST)
        if lost:
            self._tell_gap(self.last_event_id, None)
