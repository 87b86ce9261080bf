"""A log in an SQLite file, which outlives the process.

Rule 1: acknowledged means on disk: each `append` is one transaction, at the end of which SQLite
waits for the disk (WAL, ``synchronous=FULL``).

Rule 2: one connection writes, in one thread at a time; other connections read meanwhile.

Rule 3: the counters that bounds are checked against are stored in the same transaction as the data:
rows are never counted, and each append discards about as much as it adds.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar, final

import trio

from penstock.logs.log import (
    Bounds,
    Entry,
    LogStatistics,
    Newest,
    Page,
    Position,
    follow_local,
)
from penstock.logs.sqlite_file import LogFile, translate_errors
from penstock.logs.sqlite_reader import Snapshot
from penstock.logs.sqlite_writer import Writer
from penstock.position_ids import KEY_SIZE
from penstock.publication import Publication
from penstock.selection import Selection

__all__ = ["SQLiteLog"]

# A day at ten publications a second, of a kilobyte each.
DEFAULT_COUNT: Final = 1_000_000
DEFAULT_SIZE: Final = 2**30

# Threads that read at the same time: more would wait for each other in the interpreter.
_READERS: Final = 2

_T = TypeVar("_T")


@final
class SQLiteLog:
    """A `penstock.logs.log.Log` in a file.

    Args:
      path: the file, which is created if it does not exist; SQLite adds ``-wal`` and ``-shm``
        files to it. One hub uses it at a time. It is created for its owner only.
      count: the most publications to keep, or None.
      size: the most bytes to keep, or None, as the sum of `Publication.size`. The file is somewhat
        larger.
      age: the most seconds for which to keep a publication, or None. Older publications are no
        longer returned, and are deleted from the file by later appends.
      per_topic: the most publications to keep on each topic, or None.
      clock: returns the Unix time, in seconds.

    Raises:
      ValueError: a bound is not above 0.

    Cancellation:
      Its methods wait for the thread that does the work, even if they are cancelled meanwhile, and
      however slow the disk is: a cancelled `append` has kept all of its publications.
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
        self._file = LogFile(Path(path))
        self._writer: Writer | None = None
        self._writing = trio.CapacityLimiter(1)
        self._reading = trio.CapacityLimiter(_READERS)
        self._closing = trio.Lock()
        self._readers: list[sqlite3.Connection] = []  # not in use
        self._appended = trio.lowlevel.ParkingLot()
        self._statistics = LogStatistics(0, 0, Newest())
        self._key = bytes(KEY_SIZE)  # until the file is open

    def __repr__(self) -> str:
        return f"<SQLiteLog {str(self._file.path)!r} {self._statistics.publications}>"

    async def open(self) -> None:
        """Open the file, or create it; see `Log.open`."""
        await self._in_thread(self._open, self._writing)

    async def aclose(self) -> None:
        """Close the file once all reads have ended; see `Log.aclose`."""
        readers = [object() for _ in range(_READERS)]
        with trio.CancelScope(shield=True):
            async with self._closing:  # two closing tasks would wait for each other's readers
                for reader in readers:
                    await self._reading.acquire_on_behalf_of(reader)
                try:
                    await self._in_thread(self._close, self._writing)
                finally:
                    for reader in readers:
                        self._reading.release_on_behalf_of(reader)

    @property
    def newest(self) -> Newest:
        """The newest publication that it has ever taken."""
        return self._statistics.newest

    @property
    def key(self) -> bytes:
        """The key of position ids, which is stored in the file; see `Log.key`."""
        return self._key

    @property
    def shared(self) -> bool:
        """False: a file has one hub at a time."""
        return False

    async def follow(self, after: Position) -> Sequence[Entry]:
        """Return appended entries; see `Log.follow`."""
        return await follow_local(self, after, self._appended)

    def append_nowait(self, publications: Sequence[Publication]) -> None:
        """Return None: appending waits for the disk."""

    async def append(self, publications: Sequence[Publication]) -> Sequence[Position]:
        """Append publications, in one transaction; see `Log.append`."""

        def append() -> tuple[LogStatistics, Sequence[Position]]:
            assert self._writer is not None
            self._file.check_in_place()
            positions = self._writer.append(publications, self._clock())
            self._file.check_in_place()
            return self._writer.statistics(), positions

        if not publications:
            return []
        self._statistics, positions = await self._in_thread(append, self._writing)
        self._appended.unpark_all()
        return positions

    async def locate(self, id: str, selection: Selection) -> Position | None:  # noqa: A002 - as in Log
        """Return the position of an id; see `Log.locate`."""
        return await self._in_snapshot(lambda snapshot: snapshot.locate(id, selection))

    async def read(
        self, after: Position, until: Position, selection: Selection, *, count: int, size: int
    ) -> Page:
        """Return a part of the log; see `Log.read`."""
        return await self._in_snapshot(
            lambda snapshot: snapshot.read(after, until, selection, count=count, size=size)
        )

    def statistics(self) -> LogStatistics:
        """Return the log's statistics as they are now."""
        return self._statistics

    def _open(self) -> None:
        connection = self._file.open()
        self._writer = Writer(connection, self._bounds)
        self._key = self._writer.key
        self._statistics = self._writer.statistics()

    def _close(self) -> None:
        for reader in self._readers:
            reader.close()
        self._readers.clear()
        self._writer = None
        self._file.close()

    def _query(self, query: Callable[[Snapshot], _T]) -> _T:
        """Call a function with a snapshot of the file."""
        min_time = -math.inf if self._bounds.age is None else self._clock() - self._bounds.age
        try:
            reader = self._readers.pop()
        except IndexError:  # not tested before: another thread may take the last one
            reader = self._file.reader()
        try:
            reader.execute("BEGIN")
            result = query(Snapshot(reader, min_time))
            reader.execute("COMMIT")
        except BaseException:
            reader.close()
            raise
        self._readers.append(reader)
        return result

    async def _in_snapshot(self, query: Callable[[Snapshot], _T]) -> _T:
        return await self._in_thread(partial(self._query, query), self._reading)

    async def _in_thread(self, function: Callable[[], _T], limiter: trio.CapacityLimiter) -> _T:
        def translated() -> _T:
            with translate_errors(self._file.path):
                return function()

        return await trio.to_thread.run_sync(translated, limiter=limiter)
