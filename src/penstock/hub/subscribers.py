"""Who subscribes to a hub: counted, found by topic, and told when the hub is closed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, final

from penstock.hub.audience import Audience, Audiences
from penstock.hub.on_demand import ProducersOnDemand
from penstock.outcome import CloseReason

if TYPE_CHECKING:
    from penstock.hub.reception import Reception

__all__ = ["Subscribers"]


@final
class Subscribers:
    """The subscriptions of one hub, from their beginning to their end.

    Args:
      on_demand: the producers that work for them.

    Attributes:
      audiences: those that receive what is published.
      closed: whether the hub is, so that each that begins ends at once.
      ended: those that have ended, by reason.
    """

    def __init__(self, on_demand: ProducersOnDemand) -> None:
        self.audiences: Audiences = Audiences()
        self.closed: bool = False
        self.ended: Counter[CloseReason] = Counter()
        self._on_demand = on_demand
        self._open: set[Reception] = set()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Reception]:
        return iter(list(self._open))

    def count(self, topic: str) -> int:
        """Return how many subscribe to a topic."""
        return sum(subscription.selects(topic) for subscription in self._open)

    def begin(self, subscription: Reception, topics: frozenset[str] | None) -> None:
        """Note that a subscription begins; with a hub that is closed, it ends at once."""
        self._open.add(subscription)
        self._on_demand.come(topics)
        if self.closed:
            subscription.end(CloseReason.FINISHED)

    def end(
        self,
        subscription: Reception,
        topics: frozenset[str] | None,
        audience: Audience | None,
        reason: CloseReason,
    ) -> None:
        """Note that a subscription has ended."""
        self._open.discard(subscription)
        if audience is not None:
            self.audiences.leave(subscription, audience)
        self.ended[reason] += 1
        self._on_demand.go(topics)

    def close(self) -> None:
        """End them all; they receive what waits for them."""
        self.closed = True
        self._on_demand.stop()
        for subscription in list(self._open):
            subscription.end(CloseReason.FINISHED)
