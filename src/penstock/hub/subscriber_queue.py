"""What waits for one subscriber that is behind, within bounds, and what becomes of the rest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from enum import StrEnum
from typing import final

from penstock.publication import Publication

__all__ = ["OverflowPolicy", "SubscriberQueue"]


class OverflowPolicy(StrEnum):
    """What becomes of a subscription whose bounds would be passed."""

    DISCONNECT = "disconnect"
    """It ends. The client comes back with its Last-Event-ID, and goes on from the log."""
    DROP_OLDEST = "drop_oldest"
    """The oldest publications that wait make room for the new one."""
    LATEST = "latest"
    """A publication waits while it is the newest on any of its topics, from the first one that has
    to wait; beyond the bounds the oldest makes room."""


@final
class SubscriberQueue:
    """Publications that wait for one subscriber, in their order.

    Args:
      count: the most publications.
      size: the most bytes (`Publication.size`); one publication may wait whatever its size.
      overflow: what becomes of what is too much.
    """

    __slots__ = ("_count", "_latest", "_next", "_overflow", "_size", "_waiting", "dropped", "size")

    def __init__(self, *, count: int, size: int, overflow: OverflowPolicy) -> None:
        self.size: int = 0
        self.dropped: int = 0
        self._count = count
        self._size = size
        self._overflow = overflow
        # In the order of their coming. In a plain dict, taking the first one is slow when many
        # before it were taken.
        self._waiting: OrderedDict[int, Publication] = OrderedDict()
        self._next = 0
        # By topic, the number of the newest that waits.
        self._latest: dict[str, int] | None = {} if overflow is OverflowPolicy.LATEST else None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, publication: Publication) -> bool:
        """Put a publication behind the others; False if it, and they, are too much.

        Then, with `OverflowPolicy.DISCONNECT`, it was not taken.
        """
        self._next += 1
        if self._latest is not None:
            self._supersede(publication, self._latest)
        while self._waiting and (
            len(self._waiting) >= self._count or self.size + publication.size > self._size
        ):
            if self._overflow is OverflowPolicy.DISCONNECT:
                return False
            self._remove(next(iter(self._waiting)))
            self.dropped += 1
        self._waiting[self._next] = publication
        self.size += publication.size
        return True

    def _supersede(self, publication: Publication, latest: dict[str, int]) -> None:
        """Make this the newest on its topics, and drop those that no longer are on any."""
        earlier = {latest[topic] for topic in publication.topics if topic in latest}
        latest.update(dict.fromkeys(publication.topics, self._next))
        for number in sorted(earlier):
            if all(latest[topic] != number for topic in self._waiting[number].topics):
                self._remove(number)
                self.dropped += 1

    def pop(self, size: int) -> Iterator[Publication]:
        """Take the oldest publications, one in any case, others until there are so many bytes."""
        while self._waiting and size > 0:
            publication = self._pop()
            size -= len(publication.wire)
            yield publication

    def clear(self) -> None:
        """Drop all that waits."""
        self._waiting.clear()
        self.size = 0
        if self._latest is not None:
            self._latest.clear()

    def _pop(self) -> Publication:
        return self._remove(next(iter(self._waiting)))

    def _remove(self, number: int) -> Publication:
        publication = self._waiting.pop(number)
        self.size -= publication.size
        if self._latest is not None:
            for topic in publication.topics:
                if self._latest.get(topic) == number:
                    del self._latest[topic]
        return publication
