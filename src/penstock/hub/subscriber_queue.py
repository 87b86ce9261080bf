"""The bounded queue of one subscriber that is behind, and its overflow policies."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from enum import StrEnum
from typing import final

from penstock.publication import Publication

__all__ = ["OverflowPolicy", "SubscriberQueue"]


class OverflowPolicy(StrEnum):
    """What to do when a subscriber's queue would exceed its bounds."""

    DISCONNECT = "disconnect"
    """End the subscription. The client reconnects, and resumes from the log."""
    DROP_OLDEST = "drop_oldest"
    """Drop the oldest publications."""
    LATEST = "latest"
    """Keep only publications that are the newest on any of their topics, even within the bounds;
    beyond the bounds, drop the oldest."""


@final
class SubscriberQueue:
    """Publications that wait for one subscriber, in their order.

    Args:
      count: the most publications.
      size: the most bytes (`Publication.size`); a single publication may have any size.
      overflow: what to do when the bounds would be exceeded.

    Attributes:
      size: the bytes that wait.
      dropped: the number of publications dropped.
    """

    __slots__ = ("_count", "_last", "_latest", "_overflow", "_size", "_waiting", "dropped", "size")

    def __init__(self, *, count: int, size: int, overflow: OverflowPolicy) -> None:
        self.size: int = 0
        self.dropped: int = 0
        self._count = count
        self._size = size
        self._overflow = overflow
        # By number. In a plain dict, taking the first key is slow after many others were taken.
        self._waiting: OrderedDict[int, Publication] = OrderedDict()
        self._last = 0
        # By topic, the number of the newest publication that waits.
        self._latest: dict[str, int] | None = {} if overflow is OverflowPolicy.LATEST else None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, publication: Publication) -> bool:
        """Append a publication; return False if it was refused.

        It is refused if it exceeds the bounds, and the policy is `OverflowPolicy.DISCONNECT`.
        """
        self._last += 1
        if self._latest is not None:
            self._supersede(publication, self._latest)
        while self._waiting and (
            len(self._waiting) >= self._count or self.size + publication.size > self._size
        ):
            if self._overflow is OverflowPolicy.DISCONNECT:
                return False
            self._remove(next(iter(self._waiting)))
            self.dropped += 1
        self._waiting[self._last] = publication
        self.size += publication.size
        return True

    def _supersede(self, publication: Publication, latest: dict[str, int]) -> None:
        """Make this the newest on its topics; drop those that are no longer the newest on any."""
        earlier = {latest[topic] for topic in publication.topics if topic in latest}
        latest.update(dict.fromkeys(publication.topics, self._last))
        for number in sorted(earlier):
            if all(latest[topic] != number for topic in self._waiting[number].topics):
                self._remove(number)
                self.dropped += 1

    def pop(self, size: int) -> Iterator[Publication]:
        """Take the oldest publications until they have this many bytes; at least one."""
        while self._waiting and size > 0:
            publication = self._remove(next(iter(self._waiting)))
            size -= len(publication.wire)
            yield publication

    def clear(self) -> None:
        """Remove all publications."""
        self._waiting.clear()
        self.size = 0
        if self._latest is not None:
            self._latest.clear()

    def _remove(self, number: int) -> Publication:
        publication = self._waiting.pop(number)
        self.size -= publication.size
        if self._latest is not None:
            for topic in publication.topics:
                if self._latest.get(topic) == number:
                    del self._latest[topic]
        return publication
