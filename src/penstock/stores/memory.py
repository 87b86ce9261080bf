"""A history in the process's own memory: as fast as it gets, and gone with the process."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final, final

import trio

from penstock.history import Bounds, HistoryStatistics, Newest, Page
from penstock.publication import Publication

__all__ = ["MemoryHistory"]

# A client that was away for a minute finds what it missed at a hundred events a second, and more.
DEFAULT_COUNT: Final = 10_000
DEFAULT_SIZE: Final = 64 * 1024 * 1024

# Entries of a trail that may be empty beside as many that are not, before it is made anew.
_SPARE: Final = 64

# Topics without publications whose marks are kept.
_EMPTY_TOPICS: Final = 1000


@final
class MemoryHistory:
    """A `penstock.history.History` in memory.

    Args:
      count: how many publications it keeps, or None.
      size: how many bytes of events, as they go over the wire, or None. In memory each takes some
        500 bytes more.
      age: for how many seconds it keeps them, or None.
      per_topic: how many on each topic, or None.

    Raises:
      ValueError: one of them is not above 0.
    """

    def __init__(
        self,
        *,
        count: int | None = DEFAULT_COUNT,
        size: int | None = DEFAULT_SIZE,
        age: float | None = None,
        per_topic: int | None = None,
    ) -> None:
        self._bounds = Bounds(count=count, size=size, age=age, per_topic=per_topic)
        self._newest = Newest()
        self._all = _Trail()
        self._size = 0
        self._topics: dict[str, _Trail] = {}
        self._ids: dict[str, int | list[int]] = {}  # a list where several have the id
        self._floor = 0  # what comes up to here was discarded, whatever its topics
        self._marks: dict[str, int] = {}  # what `per_topic` discarded of a topic goes up to here
        self._marked = 0  # the highest mark that there ever was
        self._forgotten = 0  # the highest mark of a topic whose mark is no longer kept

    def __repr__(self) -> str:
        return f"<MemoryHistory {self._all.kept} publications, {self._size} bytes>"

    async def open(self) -> None:
        """Do nothing; not a checkpoint."""

    async def aclose(self) -> None:
        """Do nothing; not a checkpoint."""

    @property
    def newest(self) -> Newest:
        """The newest publication it has ever taken."""
        return self._newest

    async def append(self, publications: Sequence[Publication]) -> None:
        """Keep publications; not a checkpoint. See `History.append`."""
        self.append_nowait(publications)

    def append_nowait(self, publications: Sequence[Publication]) -> bool:
        """Keep publications; return True. See `History.append`."""
        now = trio.current_time()
        for publication in publications:
            entry = _Entry(self._newest.position + 1, now, publication)
            self._newest = Newest(entry.position, publication.id)
            self._all.append(entry)
            self._size += len(publication.wire)
            self._add_id(publication.id, entry.position)
            for topic in publication.topics:
                trail = self._topics.get(topic)
                if trail is None:
                    trail = self._topics[topic] = _Trail()
                    if self._forgotten > self._floor:  # it may be one whose mark was forgotten
                        self._marks.setdefault(topic, self._forgotten)
                trail.append(entry)
                if trail.kept > (self._bounds.per_topic or trail.kept):
                    self._discard_of_topic(trail.first())
        self._trim(now)
        return True

    async def locate(self, id: str) -> int | None:  # noqa: A002 - as in the contract
        """Return the position of an id; not a checkpoint. See `History.locate`."""
        self._trim(trio.current_time())
        position = self._ids.get(id)
        return position[0] if isinstance(position, list) else position

    async def read(
        self, after: int, until: int, topics: frozenset[str] | None, *, count: int, size: int
    ) -> Page:
        """Return a part of the history; not a checkpoint. See `History.read`."""
        self._trim(trio.current_time())
        publications: list[Publication] = []
        for entry in self._entries(after, topics):
            if entry.position > until:
                break
            if entry.publication is None:
                continue
            publications.append(entry.publication)
            count -= 1
            size -= len(entry.publication.wire)
            if count <= 0 or size <= 0:
                until = entry.position
                break
        return Page(publications, until, self._is_lost(after, topics))

    def statistics(self) -> HistoryStatistics:
        """Return its figures as they are now."""
        return HistoryStatistics(self._all.kept, self._size, self._newest)

    def _entries(self, after: int, topics: frozenset[str] | None) -> Iterator[_Entry]:
        if topics is None:
            return self._all.after(after)
        trails = [self._topics[topic] for topic in topics if topic in self._topics]
        if len(trails) == 1:
            return trails[0].after(after)
        return _merged([trail.after(after) for trail in trails])

    def _is_lost(self, after: int, topics: frozenset[str] | None) -> bool:
        if topics is None:
            return after < max(self._floor, self._marked)
        return after < self._floor or any(self._mark(topic) > after for topic in topics)

    def _mark(self, topic: str) -> int:
        return self._marks.get(topic, 0 if topic in self._topics else self._forgotten)

    def _trim(self, now: float) -> None:
        """Discard the oldest until all is within the bounds."""
        bounds, trail = self._bounds, self._all
        count = bounds.count or trail.kept
        while trail.kept > 1 and (
            trail.kept > count
            or (bounds.size is not None and self._size > bounds.size)
            or (bounds.age is not None and trail.first().at < now - bounds.age)
        ):
            oldest = trail.first()
            self._floor = oldest.position
            self._discard(oldest)
        if len(self._marks) > 2 * (len(self._topics) + _EMPTY_TOPICS):
            self._forget_marks()

    def _forget_marks(self) -> None:
        """Forget marks that the floor covers, and the oldest of topics that have nothing else."""
        marks = {topic: mark for topic, mark in self._marks.items() if mark > self._floor}
        empty = sorted(mark for topic, mark in marks.items() if topic not in self._topics)
        if len(empty) > _EMPTY_TOPICS:
            forgotten = self._forgotten = max(self._forgotten, empty[-_EMPTY_TOPICS - 1])
            marks = {
                topic: mark
                for topic, mark in marks.items()
                if topic in self._topics or mark > forgotten
            }
        self._marks = marks

    def _discard_of_topic(self, entry: _Entry) -> None:
        """Discard an entry that is too many on one of its topics: then it is gone on all."""
        assert entry.publication is not None
        for topic in entry.publication.topics:
            self._marks[topic] = max(self._marks.get(topic, 0), entry.position)
        self._marked = max(self._marked, entry.position)
        self._discard(entry)

    def _discard(self, entry: _Entry) -> None:
        publication, entry.publication = entry.publication, None
        assert publication is not None
        self._size -= len(publication.wire)
        self._all.discarded()
        for topic in publication.topics:
            trail = self._topics[topic]
            trail.discarded()
            if not trail.kept:
                del self._topics[topic]
        self._remove_id(publication.id, entry.position)

    def _add_id(self, id_: str, position: int) -> None:
        earlier = self._ids.get(id_)
        if earlier is None:
            self._ids[id_] = position
        elif isinstance(earlier, list):
            earlier.append(position)
        else:
            self._ids[id_] = [earlier, position]

    def _remove_id(self, id_: str, position: int) -> None:
        positions = self._ids[id_]
        if isinstance(positions, list) and len(positions) > 1:
            positions.remove(position)
        else:
            del self._ids[id_]


@final
class _Entry:
    """A place in the history; its publication is None once it was discarded."""

    __slots__ = ("at", "position", "publication")

    def __init__(self, position: int, at: float, publication: Publication) -> None:
        self.position = position
        self.at = at
        self.publication: Publication | None = publication


@final
class _Trail:
    """Entries in their order, of which the oldest go; `after` finds its place by halving."""

    __slots__ = ("_entries", "_start", "kept")

    def __init__(self) -> None:
        self.kept = 0
        self._entries: list[_Entry] = []
        self._start = 0  # what comes before it is empty

    def append(self, entry: _Entry) -> None:
        self._entries.append(entry)
        self.kept += 1

    def first(self) -> _Entry:
        """Return the oldest entry that was not discarded; there must be one."""
        while self._entries[self._start].publication is None:
            self._start += 1
        return self._entries[self._start]

    def discarded(self) -> None:
        """Note that one of the entries was; when most are empty, the list is made anew."""
        self.kept -= 1
        if len(self._entries) > 2 * self.kept + _SPARE:
            self._entries = [each for each in self._entries if each.publication is not None]
            self._start = 0

    def after(self, position: int) -> Iterator[_Entry]:
        """Return the entries behind a position; valid until the trail is changed."""
        entries = self._entries
        start = bisect_right(entries, position, lo=self._start, key=_position)
        return (entries[index] for index in range(start, len(entries)))


def _position(entry: _Entry) -> int:
    return entry.position


def _merged(trails: list[Iterator[_Entry]]) -> Iterator[_Entry]:
    """Iterate several trails in the order of their positions, each entry once."""
    last = 0
    for entry in heapq.merge(*trails, key=_position):
        if entry.position > last:
            last = entry.position
            yield entry
