"""A subscription as the feed of one client's stream: bytes, keep-alive and direct writes."""

from __future__ import annotations

import math
from types import TracebackType
from typing import TYPE_CHECKING, Final, final

import trio

from penstock.event import ServerSentEvent
from penstock.outcome import CloseReason
from penstock.stream.feed import COMMENT, Conclude, Tally

if TYPE_CHECKING:
    from penstock.hub.subscription import Subscription
    from penstock.stream.transport import WriteThrough

__all__ = ["SubscriptionFeed"]

# Bytes that the writer takes at once, unless one event has more: what a socket's buffer takes, so
# that no more than this is a client's own copy.
_CHUNK: Final = 2**16


@final
class SubscriptionFeed:
    """A `penstock.stream.feed.Feed` without a task; also the block that `running` returns.

    The dispatcher writes to the client itself while the writer waits and nothing is before it.

    Args:
      subscription: what is fed.
      keep_alive: seconds of silence after which the writer is given a comment.
      max_lifetime: seconds after which the subscription ends.
    """

    __slots__ = (
        *("_conclude", "_deadline", "_interrupted", "_keep_alive", "_max_lifetime"),
        *("_subscription", "_through", "_told", "expired", "farewell", "greeting", "written"),
    )

    state: Final = None

    def __init__(
        self, subscription: Subscription, *, keep_alive: float, max_lifetime: float
    ) -> None:
        self._subscription = subscription
        self._keep_alive = keep_alive
        self._max_lifetime = max_lifetime
        self._deadline = math.inf
        self._through: WriteThrough | None = None
        self._told = False  # whether the client has the id of the position at which it began
        self._interrupted = 0  # how often, in a row, a keep-alive has interrupted the history
        self._conclude: Conclude
        self.expired: bool = False
        self.farewell: bytes | None = None
        self.greeting: bytes = COMMENT
        self.written: Tally = subscription.cursor.written

    @property
    def waiting(self) -> int:
        """How many publications wait for the writer."""
        return self._subscription.waiting

    def running(self, name: str, conclude: Conclude) -> SubscriptionFeed:
        """Subscribe while the block runs; see `Feed.running`."""
        self._conclude = conclude
        return self

    async def __aenter__(self) -> None:
        self._deadline = trio.current_time() + self._max_lifetime
        self._subscription.conclude = self._conclude
        self._subscription.begin()
        self.greeting = self._subscription.preamble
        self._told = self._subscription.cursor.position_id is not None

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        reason = self._conclude(CloseReason.DISCONNECTED)
        self._subscription.end(reason)
        # What refers to each other here would wait for the cyclic collector.
        self._subscription.conclude = None
        del self._conclude

    def write_through(self, through: WriteThrough) -> None:
        """From now on, let the dispatcher write to the server; see `Feed.write_through`."""
        self._through = through

    def end(self) -> None:
        """Receive no more."""
        self.expired = True
        conclude = self._subscription.conclude  # None: it is not running
        self._subscription.end(conclude(CloseReason.EXPIRED) if conclude else CloseReason.FINISHED)

    async def take(self, tally: Tally) -> bytes:
        """Return what is to be written next; see `Feed.take`."""
        subscription, cursor = self._subscription, self._subscription.cursor
        began = trio.current_time()
        waited = False
        while True:
            if self._deadline <= trio.current_time():
                self.end()
            silent_since = max(began, cursor.silent_since)
            # A history that is slower than the keep-alive is given twice as long each time.
            patience = self._keep_alive * 2**self._interrupted
            ready = False
            with trio.CancelScope(deadline=min(silent_since + patience, self._deadline)) as reading:
                ready = await cursor.ready()
            if not self._told and (position_id := cursor.position_id) is not None:
                self._told = True  # known only now
                chunk = ServerSentEvent(id=position_id).encode()
                tally.bytes = len(chunk)
                return chunk
            if ready:
                self._interrupted = 0
                if waited:
                    return self._taken(tally)
                await trio.lowlevel.checkpoint()  # whatever waits, others have their turn
                waited = True
                continue
            if subscription.close_reason is not None:
                return self._last(tally)
            if reading.cancelled_caught and self._deadline <= trio.current_time():
                continue
            if reading.cancelled_caught or silent_since + self._keep_alive <= trio.current_time():
                self._interrupted += reading.cancelled_caught
                tally.keep_alives = 1
                tally.bytes = len(COMMENT)
                return COMMENT
            with trio.CancelScope(deadline=min(silent_since + self._keep_alive, self._deadline)):
                await cursor.wait(self._through)
            waited = True

    def _taken(self, tally: Tally) -> bytes:
        chunks = []
        for item in self._subscription.cursor.take(_CHUNK):
            if isinstance(item, ServerSentEvent):
                chunks.append(item.encode())
                tally.events += 1
            else:
                chunks.append(item.wire)
                tally.events += item.dispatched
        chunk = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        tally.bytes = len(chunk)
        return chunk

    def _last(self, tally: Tally) -> bytes:
        if self.farewell is None:
            raise trio.EndOfChannel
        chunk, self.farewell = self.farewell, None
        tally.bytes = len(chunk)
        return chunk
