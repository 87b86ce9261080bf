"""A history in a file, which outlives the process: SQLite, in the standard library.

Rule 1: what was acknowledged is on disk: each `append` is one transaction, and SQLite waits for the
disk at its end (WAL, ``synchronous=FULL``).

Rule 2: one connection writes, in one thread at a time; others read, beside it.

Rule 3: the figures that bounds are checked against are kept with the data, in the same transaction,
so that nothing is ever counted.
"""

from __future__ import annotations

import heapq
import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar, final

import trio

from penstock.history import Bounds, HistoryStatistics, Newest, Page
from penstock.publication import Publication
from penstock.stores.sqlite_file import HistoryFile, told
from penstock.stores.sqlite_writer import Writer

__all__ = ["SQLiteHistory"]

# A day at ten a second, and what that takes with a kilobyte each.
DEFAULT_COUNT: Final = 1_000_000
DEFAULT_SIZE: Final = 2**30

# Threads that read at the same time: more would only wait for each other, in the interpreter.
_READERS: Final = 2

_ROWS: Final = "SELECT position, id, at, topics, wire FROM publications WHERE"
_ORDER: Final = "ORDER BY position"

_T = TypeVar("_T")


@final
class SQLiteHistory:
    """A `penstock.history.History` in a file.

    Args:
      path: the file, which is made if there is none; beside it come ``-wal``, ``-shm`` and
        ``-lock``. One hub uses it at a time.
      count: how many publications it keeps, or None.
      size: how many bytes of events, as they go over the wire, or None. The file is larger.
      age: for how many seconds it keeps them, or None.
      per_topic: how many on each topic, or None.
      clock: what tells the Unix time, in seconds.

    Raises:
      ValueError: a bound is not above 0.

    Cancellation:
      Its methods wait for the thread that does the work, even when they are cancelled: then
      `append` has kept all.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        count: int | None = DEFAULT_COUNT,
        size: int | None = DEFAULT_SIZE,
        age: float | None = None,
        per_topic: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bounds = Bounds(count=count, size=size, age=age, per_topic=per_topic)
        self._clock = clock
        self._file = HistoryFile(Path(path))
        self._writer: Writer | None = None
        self._writing = trio.CapacityLimiter(1)
        self._reading = trio.CapacityLimiter(_READERS)
        self._readers: list[sqlite3.Connection] = []  # that nobody uses now
        self._statistics = HistoryStatistics(0, 0, Newest())

    def __repr__(self) -> str:
        return f"<SQLiteHistory {str(self._file.path)!r} {self._statistics.publications}>"

    async def open(self) -> None:
        """Open the file, or make it; see `History.open`."""
        await self._in_thread(self._open, self._writing)

    async def aclose(self) -> None:
        """Close the file; see `History.aclose`."""
        with trio.CancelScope(shield=True):
            await self._in_thread(self._close, self._writing)

    @property
    def newest(self) -> Newest:
        """The newest publication it has ever taken."""
        return self._statistics.newest

    def append_nowait(self, publications: Sequence[Publication]) -> bool:
        """Return False: the disk has to be waited for."""
        return False

    async def append(self, publications: Sequence[Publication]) -> None:
        """Keep publications, in one transaction; see `History.append`."""

        def append() -> HistoryStatistics:
            assert self._writer is not None
            return self._writer.append(publications, self._clock())

        self._statistics = await self._in_thread(append, self._writing)

    async def locate(self, id: str) -> int | None:  # noqa: A002 - as in the contract
        """Return the position of an id; see `History.locate`."""

        def locate() -> int | None:
            with self._reader() as reader:
                row = reader.execute(
                    "SELECT position, at FROM publications WHERE id = ? ORDER BY position LIMIT 1",
                    (id.encode(errors="replace").decode(),),
                ).fetchone()
            return row[0] if row is not None and row[1] >= self._oldest_time() else None

        return await self._in_thread(locate, self._reading)

    async def read(
        self, after: int, until: int, topics: frozenset[str] | None, *, count: int, size: int
    ) -> Page:
        """Return a part of the history; see `History.read`."""

        def read() -> Page:
            with self._reader() as reader:
                return self._read(reader, after, until, topics, count, size)

        return await self._in_thread(read, self._reading)

    def statistics(self) -> HistoryStatistics:
        """Return its figures as they are now."""
        return self._statistics

    def _open(self) -> None:
        connection = self._file.open()
        self._writer = Writer(connection, self._bounds)
        self._statistics = self._writer.statistics()

    def _close(self) -> None:
        for reader in self._readers:
            reader.close()
        self._readers.clear()
        self._writer = None
        self._file.close()

    def _oldest_time(self) -> float:
        return -math.inf if self._bounds.age is None else self._clock() - self._bounds.age

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection, which sees the file as it was at its first question."""
        reader = self._readers.pop() if self._readers else self._file.reader()
        try:
            reader.execute("BEGIN")
            yield reader
            reader.execute("COMMIT")
        except BaseException:
            reader.close()
            raise
        self._readers.append(reader)

    def _read(
        self,
        reader: sqlite3.Connection,
        after: int,
        until: int,
        topics: frozenset[str] | None,
        count: int,
        size: int,
    ) -> Page:
        (floor,) = reader.execute("SELECT floor FROM state").fetchone()
        if topics is None:
            (mark,) = reader.execute("SELECT max(mark) FROM topics").fetchone()
            rows = reader.execute(
                f"{_ROWS} position > ? AND position <= ? {_ORDER}", (after, until)
            )
        else:
            known = [_topic(reader, topic) for topic in topics]
            mark = max((each[1] for each in known if each), default=0)
            merged = _merged([_on_topic(reader, each[0], after, until) for each in known if each])
            positions = list(islice(merged, count))
            if len(positions) == count:
                until = positions[-1]
            chosen = "position IN (SELECT value FROM json_each(?))"
            rows = reader.execute(f"{_ROWS} {chosen} {_ORDER}", (json.dumps(positions),))
        lost = after < floor or (mark or 0) > after
        oldest = self._oldest_time()
        publications: list[Publication] = []
        for position, id_, at, on, wire in rows:
            if at < oldest:
                lost = True
                continue
            publications.append(Publication.restored(id_, tuple(on.split("\n")), wire))
            size -= len(wire)
            if len(publications) >= count or size <= 0:
                until = position
                break
        return Page(publications, until, lost)

    async def _in_thread(self, function: Callable[[], _T], limiter: trio.CapacityLimiter) -> _T:
        def told_function() -> _T:
            with told(self._file.path):
                return function()

        return await trio.to_thread.run_sync(told_function, limiter=limiter)


def _topic(reader: sqlite3.Connection, topic: str) -> tuple[int, int] | None:
    """Return a topic's number and mark, if the history knows it."""
    row: tuple[int, int] | None = reader.execute(
        "SELECT number, mark FROM topics WHERE topic = ?", (topic,)
    ).fetchone()
    return row


def _on_topic(reader: sqlite3.Connection, number: int, after: int, until: int) -> Iterator[int]:
    rows = reader.execute(
        "SELECT position FROM on_topic "
        "WHERE number = ? AND position > ? AND position <= ? ORDER BY position",
        (number, after, until),
    )
    return (position for (position,) in rows)


def _merged(sorted_positions: list[Iterator[int]]) -> Iterator[int]:
    """Iterate several in one order, each position once."""
    last = 0
    for position in heapq.merge(*sorted_positions):
        if position > last:
            last = position
            yield position
