"""How a subscription receives: for its stream's feed, and for the dispatcher.

Rule 1: no gap, no duplicate: see `penstock.hub.replay` and `penstock.hub.dispatcher`.

Rule 2: whoever cannot be given everything is told, by an event named ``gap`` where it is missing.

Rule 3: a subscription that fell behind loses what was in its backlog; the history has it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import trio

from penstock.event import ServerSentEvent
from penstock.hub.audience import Audience
from penstock.hub.backlog import Backlog
from penstock.hub.replay import Item, Replay
from penstock.outcome import CloseReason
from penstock.publication import select_topics
from penstock.stream.feed import COMMENT, Conclude, Tally

if TYPE_CHECKING:
    from penstock.hub.hub import Hub
    from penstock.publication import Publication
    from penstock.stream.transport import WriteThrough

__all__ = ["Reception"]


class Reception:
    """What a subscription receives, from its beginning to its end; `Subscription` is one.

    Args:
      hub: what it subscribes to.
      topics: which; ``"*"`` means every topic.
      last_event_id: where to go on, or None.
      backlog: where what it is behind with waits.
      retry: what a stream tells its client at the beginning, in milliseconds, or None.

    Attributes:
      conclude: called when it falls behind, if its stream wants to know.
      through: how the dispatcher may write to the client at the moment, if it may.
      written: what was written through, or by the stream.
      silent_since: when something was last written through.
    """

    __slots__ = (
        *("_audience", "_backlog", "_called", "_close_reason", "_hub", "_opened", "_replay"),
        *("_retry", "_topics", "conclude", "silent_since", "through", "written"),
    )

    def __init__(
        self,
        hub: Hub,
        topics: Iterable[str],
        last_event_id: str | None,
        backlog: Backlog,
        retry: int | None,
    ) -> None:
        self._retry = None if retry is None else ServerSentEvent(retry=retry).encode()
        self._hub = hub
        self._topics = select_topics(topics)
        self._replay = Replay(hub, self._topics, last_event_id)
        self._backlog = backlog
        self._audience: Audience | None = None
        self._called: trio.Event | None = None
        self._opened = False
        self._close_reason: CloseReason | None = None
        self.conclude: Conclude | None = None
        self.through: WriteThrough | None = None
        self.written: Tally = Tally()
        self.silent_since: float = -math.inf

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
