"""A log in memory, which is lost when the process ends."""

from __future__ import annotations

import heapq
import secrets
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final, final

import trio

from penstock.logs.log import (
    START,
    Bounds,
    Entry,
    LogStatistics,
    Newest,
    Page,
    Position,
    follow_local,
)
from penstock.position_ids import KEY_SIZE
from penstock.publication import Publication
from penstock.selection import Selection

__all__ = ["MemoryLog"]

# Enough for a client that is disconnected for a minute, at more than a hundred events a second.
DEFAULT_COUNT: Final = 10_000
DEFAULT_SIZE: Final = 64 * 1024 * 1024

# Discarded entries that a list may have, beyond the number of those kept, before it is compacted.
_SPARE: Final = 64

# Bytes for remembering empty topics, of which no publication is kept: some 40,000 of them. A topic
# that is forgotten may have a gap reported although nothing is missing.
_REMEMBERED_SIZE: Final = 16 * 1024 * 1024
_REMEMBERED_OVERHEAD: Final = 300  # of each topic, in addition to its text and an id

_NOTHING: Final = Newest()


@final
class MemoryLog:
    """A `penstock.logs.log.Log` in memory.

    Args:
      count: the most publications to keep, or None.
      size: the most bytes to keep, or None, as the sum of `Publication.size`. Each publication
        takes some 500 bytes more.
      age: the most seconds for which to keep a publication, or None.
      per_topic: the most publications to keep on each topic, or None.

    Raises:
      ValueError: a bound is not above 0.
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
        self._key = secrets.token_bytes(KEY_SIZE)
        self._appended = trio.lowlevel.ParkingLot()
        self._newest = Newest()
        self._all = _Entries()
        self._size = 0
        self._offset = 0.0  # from the Trio run's clock to the log's
        self._closed_at: tuple[float, float] | None = None  # by the log's clock and the system's
        self._topics: dict[str, _Entries] = {}  # those that are not empty
        self._ids: dict[str, Position | list[Position]] = {}  # a list where several have the id
        # Empty topics, with their newest discarded publication; the topic silent longest is first.
        self._remembered: dict[str, Newest] = {}
        self._remembered_size = 0
        self._forgotten = START  # the highest position discarded on a topic that was forgotten

    def __repr__(self) -> str:
        return f"<MemoryLog {self._all.kept} publications, {self._size} bytes>"

    async def open(self) -> None:
        """Continue the log's clock, whatever this Trio run's clock shows; not a checkpoint."""
        if self._closed_at is not None:
            by_own_clock, by_system = self._closed_at
            self._offset = by_own_clock + time.monotonic() - by_system - trio.current_time()

    async def aclose(self) -> None:
        """Remember the time, so that the ages of publications continue; not a checkpoint."""
        self._closed_at = (self._now(), time.monotonic())

    def _now(self) -> float:
        """Return the time of the log's clock, which continues from one Trio run to the next."""
        return trio.current_time() + self._offset

    @property
    def newest(self) -> Newest:
        """The newest publication that it has ever taken."""
        return self._newest

    @property
    def key(self) -> bytes:
        """The key of position ids; see `Log.key`."""
        return self._key

    @property
    def shared(self) -> bool:
        """False: only one hub appends."""
        return False

    async def follow(self, after: Position) -> Sequence[Entry]:
        """Return appended entries; see `Log.follow`."""
        return await follow_local(self, after, self._appended)

    async def append(self, publications: Sequence[Publication]) -> Sequence[Position]:
        """Append publications; not a checkpoint. See `Log.append`."""
        return self.append_nowait(publications)

    def append_nowait(self, publications: Sequence[Publication]) -> Sequence[Position]:
        """Append publications; see `Log.append`."""
        now = self._now()
        positions: list[Position] = []
        for publication in publications:
            entry = _MemoryEntry(Position(self._newest.position + 1), now, publication)
            positions.append(entry.position)
            self._newest = Newest(entry.position, publication.id)
            self._all.append(entry)
            self._size += publication.size
            self._add_id(publication.id, entry.position)
            for topic in publication.topics:
                entries = self._topics.get(topic)
                if entries is None:
                    entries = self._topics[topic] = _Entries(self._recall(topic))
                entries.append(entry)
                if entries.kept > (self._bounds.per_topic or entries.kept):
                    self._discard(entries.first())  # on all its topics
        self._trim(now)
        if self._appended:
            self._appended.unpark_all()
        return positions

    async def locate(self, id: str, selection: Selection) -> Position | None:  # noqa: A002 - as in Log
        """Return the position of an id; not a checkpoint. See `Log.locate`."""
        self._trim(self._now())
        known = self._ids.get(id)
        for position in known if isinstance(known, list) else () if known is None else (known,):
            entry = next(self._all.after(Position(position - 1)))
            assert entry.publication is not None
            if selection.matches(entry.publication.topics):
                return position
        for discarded in self._discarded(selection):
            if discarded.id == id:
                return discarded.position
        return None

    async def read(
        self, after: Position, until: Position, selection: Selection, *, count: int, size: int
    ) -> Page:
        """Return a part of the log; not a checkpoint. See `Log.read`."""
        self._trim(self._now())
        entries: list[Entry] = []
        for entry in self._after(after, selection.topics):
            if entry.position > until:
                break
            if entry.publication is None:
                continue
            entries.append(Entry(entry.position, entry.publication))
            count -= 1
            size -= len(entry.publication.wire)
            if count <= 0 or size <= 0:
                until = entry.position
                break
        discarded_until = max(discarded.position for discarded in self._discarded(selection))
        return Page(entries, until, discarded_until)

    def statistics(self) -> LogStatistics:
        """Return the log's statistics as they are now."""
        return LogStatistics(self._all.kept, self._size, self._newest)

    def _after(self, position: Position, topics: frozenset[str] | None) -> Iterator[_MemoryEntry]:
        """Iterate the entries after a position, on any of the topics or in the log."""
        if topics is None:
            return self._all.after(position)
        lists = [self._topics[topic].after(position) for topic in topics if topic in self._topics]
        return lists[0] if len(lists) == 1 else _merged(lists)

    def _discarded(self, selection: Selection) -> Iterator[Newest]:
        """Iterate the newest discarded publications, of each selected topic or of the log."""
        if selection.topics is None:
            yield self._all.discarded
            return
        for topic in selection.topics:
            entries = self._topics.get(topic)
            if entries is not None:
                yield entries.discarded
            else:
                yield self._remembered.get(topic) or Newest(self._forgotten)

    def _trim(self, now: float) -> None:
        """Discard the oldest publications until the log is within its bounds."""
        bounds, entries = self._bounds, self._all
        count = bounds.count or entries.kept
        while entries.kept > 1 and (
            entries.kept > count
            or (bounds.size is not None and self._size > bounds.size)
            or (bounds.age is not None and entries.first().at < now - bounds.age)
        ):
            self._discard(entries.first())

    def _discard(self, entry: _MemoryEntry) -> None:
        publication, entry.publication = entry.publication, None
        assert publication is not None
        discarded = Newest(entry.position, publication.id)
        self._size -= publication.size
        self._all.note_discarded(discarded)
        for topic in publication.topics:
            entries = self._topics[topic]
            entries.note_discarded(discarded)
            if not entries.kept:
                del self._topics[topic]
                self._remember(topic, entries.discarded)
        self._remove_id(publication.id, entry.position)

    def _remember(self, topic: str, discarded: Newest) -> None:
        """Remember an empty topic; forget those silent longest if there are too many."""
        self._remembered[topic] = discarded
        self._remembered_size += _size_of(topic, discarded)
        while self._remembered_size > _REMEMBERED_SIZE:
            silent = next(iter(self._remembered))
            self._forgotten = max(self._forgotten, self._recall(silent).position)

    def _recall(self, topic: str) -> Newest:
        """Return the newest discarded publication of an empty topic, and forget the topic."""
        discarded = self._remembered.pop(topic, None)
        if discarded is None:
            return Newest(self._forgotten)  # the topic is new, or was forgotten
        self._remembered_size -= _size_of(topic, discarded)
        return discarded

    def _add_id(self, id_: str, position: Position) -> None:
        earlier = self._ids.get(id_)
        if earlier is None:
            self._ids[id_] = position
        elif isinstance(earlier, list):
            earlier.append(position)
        else:
            self._ids[id_] = [earlier, position]

    def _remove_id(self, id_: str, position: Position) -> None:
        positions = self._ids[id_]
        if isinstance(positions, list) and len(positions) > 1:
            positions.remove(position)
        else:
            del self._ids[id_]


def _size_of(topic: str, discarded: Newest) -> int:
    return len(topic) + len(discarded.id or "") + _REMEMBERED_OVERHEAD


@final
class _MemoryEntry:
    """An entry of the log; its publication is None once it is discarded."""

    __slots__ = ("at", "position", "publication")

    def __init__(self, position: Position, at: float, publication: Publication) -> None:
        self.position = position
        self.at = at
        self.publication: Publication | None = publication


@final
class _Entries:
    """The entries of a topic or of the log, in their order; `after` is a binary search.

    Attributes:
      discarded: the newest discarded publication.
      kept: the number of entries that are not discarded.
    """

    __slots__ = ("_entries", "_start", "discarded", "kept")

    def __init__(self, discarded: Newest = _NOTHING) -> None:
        self.discarded = discarded
        self.kept = 0
        self._entries: list[_MemoryEntry] = []
        self._start = 0  # all entries before this index are discarded

    def append(self, entry: _MemoryEntry) -> None:
        self._entries.append(entry)
        self.kept += 1

    def first(self) -> _MemoryEntry:
        """Return the oldest entry that is not discarded; there must be one."""
        while self._entries[self._start].publication is None:
            self._start += 1
        return self._entries[self._start]

    def note_discarded(self, discarded: Newest) -> None:
        """Count an entry as discarded; compact the list if most of its entries are."""
        if discarded.position > self.discarded.position:
            self.discarded = discarded
        self.kept -= 1
        if len(self._entries) > 2 * self.kept + _SPARE:
            self._entries = [each for each in self._entries if each.publication is not None]
            self._start = 0

    def after(self, position: Position) -> Iterator[_MemoryEntry]:
        """Iterate the entries after a position; valid until the next change."""
        entries = self._entries
        start = bisect_right(entries, position, lo=self._start, key=_position)
        return (entries[index] for index in range(start, len(entries)))


def _position(entry: _MemoryEntry) -> Position:
    return entry.position


def _merged(lists: list[Iterator[_MemoryEntry]]) -> Iterator[_MemoryEntry]:
    """Iterate several lists in the order of their positions, each entry once."""
    last = START
    for entry in heapq.merge(*lists, key=_position):
        if entry.position > last:
            last = entry.position
            yield entry
