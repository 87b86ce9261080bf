"""The open subscriptions of a hub: counted, by topic too, and ended when the hub is closed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, final

from penstock.hub.on_demand import ProducersOnDemand
from penstock.outcome import CloseReason

if TYPE_CHECKING:
    from penstock.hub.subscription import Subscription

__all__ = ["Subscribers"]


@final
class Subscribers:
    """The subscriptions of one hub, from their beginning to their end.

    Args:
      on_demand: the producers that work for them.

    Attributes:
      closed: whether the hub is, so that each that begins ends at once.
      ended: those that have ended, by reason.
    """

    def __init__(self, on_demand: ProducersOnDemand) -> None:
        self.closed: bool = False
        self.ended: Counter[CloseReason] = Counter()
        self._on_demand = on_demand
        self._open: dict[Subscription, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(list(self._open))

    def count(self, topic: str) -> int:
        """Return how many subscribe to a topic."""
        return sum(subscription.selection.matches((topic,)) for subscription in self._open)

    def begin(self, subscription: Subscription) -> None:
        """Add a subscription; if the hub is closed, it ends at once."""
        self._open[subscription] = None
        self._on_demand.come(subscription.selection)
        if self.closed:
            subscription.end(CloseReason.FINISHED)

    def end(self, subscription: Subscription, reason: CloseReason) -> None:
        """Remove a subscription that has ended."""
        self._open.pop(subscription, None)
        self.ended[reason] += 1
        self._on_demand.go(subscription.selection)

    def close(self) -> None:
        """End them all; they receive what waits for them."""
        self.closed = True
        self._on_demand.stop()
        for subscription in list(self._open):
            subscription.end(CloseReason.FINISHED)
