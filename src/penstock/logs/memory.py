"""A log in the process's own memory: as fast as it gets, and gone with the process."""

from __future__ import annotations

import heapq
import secrets
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, final

import trio

from penstock.logs.growth import Growth
from penstock.logs.log import START, Bounds, Entry, LogStatistics, Newest, Page, Position
from penstock.position_ids import KEY_SIZE
from penstock.publication import Publication
from penstock.selection import Selection

__all__ = ["MemoryLog"]

# A client that was away for a minute finds what it missed at a hundred events a second, and more.
DEFAULT_COUNT: Final = 10_000
DEFAULT_SIZE: Final = 64 * 1024 * 1024

# Entries of a trail that may be empty beside as many that are not, before it is made anew.
_SPARE: Final = 64

# Bytes of what is remembered of topics of which nothing is kept: some 40,000 of them. A topic that
# is forgotten may be told of a gap that it does not have.
_REMEMBERED_SIZE: Final = 16 * 1024 * 1024
_REMEMBERED_OVERHEAD: Final = 300  # of each, beside its text and an id


@final
class MemoryLog:
    """A `penstock.logs.log.Log` in memory.

    Args:
      count: how many publications it keeps, or None.
      size: how many bytes it keeps, or None: each publication counts for its `Publication.size`,
        and takes some 500 bytes more.
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
        self._key = secrets.token_bytes(KEY_SIZE)
        self._growth = Growth()
        self._newest = Newest()
        self._all = _Trail()
        self._size = 0
        self._offset = 0.0  # of its own clock from that of the Trio run
        self._closed_at: tuple[float, float] | None = None  # by its own clock, and by the system's
        self._topics: dict[str, _Trail] = {}  # of which something is kept
        self._ids: dict[str, Position | list[Position]] = {}  # a list where several have the id
        # Topics of which nothing is kept, with what was discarded last; the longest silent first.
        self._remembered: dict[str, _Discarded] = {}
        self._remembered_size = 0
        self._forgotten = START  # the highest position discarded on a topic that was forgotten

    def __repr__(self) -> str:
        return f"<MemoryLog {self._all.kept} publications, {self._size} bytes>"

    async def open(self) -> None:
        """Go on with the age of what it has, whatever this run's clock shows; not a checkpoint."""
        if self._closed_at is not None:
            then, at = self._closed_at
            self._offset = then + (time.monotonic() - at) - trio.current_time()

    async def aclose(self) -> None:
        """Remember how old all is; not a checkpoint."""
        self._closed_at = (self._now(), time.monotonic())

    def _now(self) -> float:
        """Return the time of its own clock, which goes on from one Trio run to the next."""
        return trio.current_time() + self._offset

    @property
    def newest(self) -> Newest:
        """The newest publication it has ever taken."""
        return self._newest

    @property
    def key(self) -> bytes:
        """The key of its position ids; see `Log.key`."""
        return self._key

    @property
    def shared(self) -> bool:
        """False: only its hub appends."""
        return False

    async def follow(self, after: Position) -> Sequence[Entry]:
        """Return what was appended; see `Log.follow`."""
        return await self._growth.follow(self, after)

    async def append(self, publications: Sequence[Publication]) -> Sequence[Position]:
        """Keep publications; not a checkpoint. See `Log.append`."""
        return self.append_nowait(publications)

    def append_nowait(self, publications: Sequence[Publication]) -> Sequence[Position]:
        """Keep publications; see `Log.append`."""
        now = self._now()
        positions: list[Position] = []
        for publication in publications:
            entry = _Place(Position(self._newest.position + 1), now, publication)
            positions.append(entry.position)
            self._newest = Newest(entry.position, publication.id)
            self._all.append(entry)
            self._size += publication.size
            self._add_id(publication.id, entry.position)
            for topic in publication.topics:
                trail = self._topics.get(topic)
                if trail is None:
                    trail = self._topics[topic] = _Trail(self._recall(topic))
                trail.append(entry)
                if trail.kept > (self._bounds.per_topic or trail.kept):
                    self._discard(trail.first())  # which is gone on its other topics, too
        self._trim(now)
        self._growth.note()
        return positions

    async def locate(self, id: str, selection: Selection) -> Position | None:  # noqa: A002 - as there
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
        for entry in self._entries(after, selection.topics):
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
        newest = max(discarded.position for discarded in self._discarded(selection))
        return Page(entries, until, newest)

    def statistics(self) -> LogStatistics:
        """Return its figures as they are now."""
        return LogStatistics(self._all.kept, self._size, self._newest)

    def _entries(self, after: Position, topics: frozenset[str] | None) -> Iterator[_Place]:
        if topics is None:
            return self._all.after(after)
        trails = [self._topics[topic] for topic in topics if topic in self._topics]
        if len(trails) == 1:
            return trails[0].after(after)
        return _merged([trail.after(after) for trail in trails])

    def _discarded(self, selection: Selection) -> Iterator[_Discarded]:
        """Iterate what was discarded last, on each of the selected topics or of all."""
        if selection.topics is None:
            yield self._all.discarded
            return
        for topic in selection.topics:
            trail = self._topics.get(topic)
            if trail is not None:
                yield trail.discarded
            else:
                yield self._remembered.get(topic) or _Discarded(self._forgotten, None)

    def _trim(self, now: float) -> None:
        """Discard the oldest until all is within the bounds."""
        bounds, trail = self._bounds, self._all
        count = bounds.count or trail.kept
        while trail.kept > 1 and (
            trail.kept > count
            or (bounds.size is not None and self._size > bounds.size)
            or (bounds.age is not None and trail.first().at < now - bounds.age)
        ):
            self._discard(trail.first())

    def _discard(self, entry: _Place) -> None:
        publication, entry.publication = entry.publication, None
        assert publication is not None
        discarded = _Discarded(entry.position, publication.id)
        self._size -= publication.size
        self._all.discard(discarded)
        for topic in publication.topics:
            trail = self._topics[topic]
            trail.discard(discarded)
            if not trail.kept:
                del self._topics[topic]
                self._remember(topic, trail.discarded)
        self._remove_id(publication.id, entry.position)

    def _remember(self, topic: str, discarded: _Discarded) -> None:
        """Remember a topic of which nothing is kept, and forget the longest silent ones."""
        self._remembered[topic] = discarded
        self._remembered_size += _size_of(topic, discarded)
        while self._remembered_size > _REMEMBERED_SIZE:
            silent = next(iter(self._remembered))
            self._forgotten = max(self._forgotten, self._recall(silent).position)

    def _recall(self, topic: str) -> _Discarded:
        """Return what was discarded last on a topic of which nothing is kept, and forget it."""
        discarded = self._remembered.pop(topic, None)
        if discarded is None:
            return _Discarded(self._forgotten, None)  # the topic is new, or was forgotten
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


class _Discarded(NamedTuple):
    """The newest publication that was discarded of a topic, or of all."""

    position: Position
    id: str | None


_NOTHING: Final = _Discarded(START, None)


def _size_of(topic: str, discarded: _Discarded) -> int:
    return len(topic) + len(discarded.id or "") + _REMEMBERED_OVERHEAD


@final
class _Place:
    """An entry; its publication is None once it was discarded."""

    __slots__ = ("at", "position", "publication")

    def __init__(self, position: Position, at: float, publication: Publication) -> None:
        self.position = position
        self.at = at
        self.publication: Publication | None = publication


@final
class _Trail:
    """Entries in their order, of which the oldest go; `after` finds its place by halving."""

    __slots__ = ("_entries", "_start", "discarded", "kept")

    def __init__(self, discarded: _Discarded = _NOTHING) -> None:
        self.discarded = discarded
        self.kept = 0
        self._entries: list[_Place] = []
        self._start = 0  # what comes before it is empty

    def append(self, entry: _Place) -> None:
        self._entries.append(entry)
        self.kept += 1

    def first(self) -> _Place:
        """Return the oldest entry that was not discarded; there must be one."""
        while self._entries[self._start].publication is None:
            self._start += 1
        return self._entries[self._start]

    def discard(self, discarded: _Discarded) -> None:
        """Note that one of the entries is gone; when most are empty, the list is made anew."""
        if discarded.position > self.discarded.position:
            self.discarded = discarded
        self.kept -= 1
        if len(self._entries) > 2 * self.kept + _SPARE:
            self._entries = [each for each in self._entries if each.publication is not None]
            self._start = 0

    def after(self, position: Position) -> Iterator[_Place]:
        """Return the entries behind a position; valid until the trail is changed."""
        entries = self._entries
        start = bisect_right(entries, position, lo=self._start, key=_position)
        return (entries[index] for index in range(start, len(entries)))


def _position(entry: _Place) -> Position:
    return entry.position


def _merged(trails: list[Iterator[_Place]]) -> Iterator[_Place]:
    """Iterate several trails in the order of their positions, each entry once."""
    last = START
    for entry in heapq.merge(*trails, key=_position):
        if entry.position > last:
            last = entry.position
            yield entry
