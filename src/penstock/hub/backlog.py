"""What waits for one subscriber that is behind, within bounds, and what becomes of the rest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from enum import StrEnum
from typing import final

from penstock.publication import Publication

__all__ = ["Backlog", "WhenSlow"]


class WhenSlow(StrEnum):
    """What becomes of a subscription whose bounds would be passed."""

    DISCONNECT = "disconnect"
    """It ends. The client comes back with its Last-Event-ID, and goes on from the history."""
    DROP_OLDEST = "drop_oldest"
    """The oldest publications that wait make room for the new one."""
    LATEST = "latest"
    """Of each topic, the newest waits only, from the first publication that has to wait on; beyond
    the bounds the topic that was silent longest goes."""


@final
class Backlog:
    """Publications that wait for one subscriber, in their order.

    Args:
      count: the most publications.
      size: the most bytes of events; one publication may wait whatever its size.
      when_slow: what becomes of what is too much.
    """

    __slots__ = ("_count", "_latest", "_next", "_size", "_waiting", "_when_slow", "dropped", "size")

    def __init__(self, *, count: int, size: int, when_slow: WhenSlow) -> None:
        self.size: int = 0
        self.dropped: int = 0
        self._count = count
        self._size = size
        self._when_slow = when_slow
        self._latest = when_slow is WhenSlow.LATEST
        # In the order of their coming, by canonical topic or by a number. In a plain dict, taking
        # the first one is slow when many before it were taken.
        self._waiting: OrderedDict[str | int, Publication] = OrderedDict()
        self._next = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, publication: Publication) -> bool:
        """Put a publication behind the others; False if it, and they, are too much.

        Then, with `WhenSlow.DISCONNECT`, it was not taken.
        """
        key: str | int
        if self._latest:
            key = publication.topics[0]
            earlier = self._waiting.pop(key, None)
            if earlier is not None:
                self.size -= len(earlier.wire)
                self.dropped += 1
        else:
            key = self._next = self._next + 1
        size = len(publication.wire)
        while self._waiting and (
            len(self._waiting) >= self._count or self.size + size > self._size
        ):
            if self._when_slow is WhenSlow.DISCONNECT:
                return False
            self._pop()
            self.dropped += 1
        self._waiting[key] = publication
        self.size += size
        return True

    def pop(self, size: int) -> Iterator[Publication]:
        """Take the oldest publications, one in any case, others until there are so many bytes."""
        while self._waiting and size > 0:
            publication = self._pop()
            size -= len(publication.wire)
            yield publication

    def clear(self) -> None:
        """Forget all that waits."""
        self._waiting.clear()
        self.size = 0

    def _pop(self) -> Publication:
        _, publication = self._waiting.popitem(last=False)
        self.size -= len(publication.wire)
        return publication
