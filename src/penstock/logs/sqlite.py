"""A log in a file, which outlives the process: SQLite, in the standard library.

Rule 1: what was acknowledged is on disk: each `append` is one transaction, and SQLite waits for the
disk at its end (WAL, ``synchronous=FULL``).

Rule 2: one connection writes, in one thread at a time; others read, beside it.

Rule 3: the figures that bounds are checked against are kept with the data, in the same transaction,
so that nothing is ever counted, and what is trimmed is about as much as was added.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar, final

import trio

from penstock.logs import sqlite_reader
from penstock.logs.growth import Growth
from penstock.logs.log import Bounds, Entry, LogStatistics, Newest, Page, Position
from penstock.logs.sqlite_file import LogFile, told
from penstock.logs.sqlite_writer import Writer
from penstock.position_ids import KEY_SIZE
from penstock.publication import Publication
from penstock.selection import Selection

__all__ = ["SQLiteLog"]

# A day at ten a second, and what that takes with a kilobyte each.
DEFAULT_COUNT: Final = 1_000_000
DEFAULT_SIZE: Final = 2**30

# Threads that read at the same time: more would only wait for each other, in the interpreter.
_READERS: Final = 2

_T = TypeVar("_T")


@final
class SQLiteLog:
    """A `penstock.logs.log.Log` in a file.

    Args:
      path: the file, which is made if there is none; beside it come ``-wal`` and ``-shm``.
        One hub uses it at a time. It is created for its owner only.
      count: how many publications it keeps, or None.
      size: how many bytes it keeps, or None: each publication counts for its `Publication.size`.
        The file is somewhat larger.
      age: for how many seconds it keeps them, or None. What is older is no longer returned, and
        leaves the file when more is published.
      per_topic: how many on each topic, or None.
      clock: what tells the Unix time, in seconds.

    Raises:
      ValueError: a bound is not above 0.

    Cancellation:
      Its methods wait for the thread that does the work, even when they are cancelled meanwhile,
      and however slow the disk is: then `append` has kept all.
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
        self._readers: list[sqlite3.Connection] = []  # that nobody uses now
        self._growth = Growth()
        self._statistics = LogStatistics(0, 0, Newest())
        self._key = bytes(KEY_SIZE)  # until the file is open

    def __repr__(self) -> str:
        return f"<SQLiteLog {str(self._file.path)!r} {self._statistics.publications}>"

    async def open(self) -> None:
        """Open the file, or make it; see `Log.open`."""
        await self._in_thread(self._open, self._writing)

    async def aclose(self) -> None:
        """Close the file, when nothing is being read any more; see `Log.aclose`."""
        readers = [object() for _ in range(_READERS)]
        with trio.CancelScope(shield=True):
            async with self._closing:  # two at a time would wait for each other's readers
                for reader in readers:
                    await self._reading.acquire_on_behalf_of(reader)
                try:
                    await self._in_thread(self._close, self._writing)
                finally:
                    for reader in readers:
                        self._reading.release_on_behalf_of(reader)

    @property
    def newest(self) -> Newest:
        """The newest publication it has ever taken."""
        return self._statistics.newest

    @property
    def key(self) -> bytes:
        """The key of its position ids, which is stored in the file; see `Log.key`."""
        return self._key

    @property
    def shared(self) -> bool:
        """False: a file has one hub at a time."""
        return False

    async def follow(self, after: Position) -> Sequence[Entry]:
        """Return what was appended; see `Log.follow`."""
        return await self._growth.follow(self, after)

    def append_nowait(self, publications: Sequence[Publication]) -> None:
        """Return None: the disk has to be waited for."""

    async def append(self, publications: Sequence[Publication]) -> Sequence[Position]:
        """Keep publications, in one transaction; see `Log.append`."""

        def append() -> tuple[LogStatistics, Sequence[Position]]:
            assert self._writer is not None
            self._file.check_in_place()
            positions = self._writer.append(publications, self._clock())
            self._file.check_in_place()
            return self._writer.statistics(), positions

        if not publications:
            return []
        self._statistics, positions = await self._in_thread(append, self._writing)
        self._growth.note()
        return positions

    async def locate(self, id: str, selection: Selection) -> Position | None:  # noqa: A002 - as there
        """Return the position of an id; see `Log.locate`."""

        def locate() -> Position | None:
            with self._reader() as reader:
                return sqlite_reader.locate(reader, id, selection, self._oldest_time())

        return await self._in_thread(locate, self._reading)

    async def read(
        self, after: Position, until: Position, selection: Selection, *, count: int, size: int
    ) -> Page:
        """Return a part of the log; see `Log.read`."""

        def read() -> Page:
            with self._reader() as reader:
                oldest = self._oldest_time()
                return sqlite_reader.read(
                    reader, after, until, selection, count=count, size=size, oldest=oldest
                )

        return await self._in_thread(read, self._reading)

    def statistics(self) -> LogStatistics:
        """Return its figures as they are now."""
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

    def _oldest_time(self) -> float:
        return -math.inf if self._bounds.age is None else self._clock() - self._bounds.age

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection, which sees the file as it was at its first question."""
        try:
            reader = self._readers.pop()
        except IndexError:  # asked rather than looked at: another thread may take the last one
            reader = self._file.reader()
        try:
            reader.execute("BEGIN")
            yield reader
            reader.execute("COMMIT")
        except BaseException:
            reader.close()
            raise
        self._readers.append(reader)

    async def _in_thread(self, function: Callable[[], _T], limiter: trio.CapacityLimiter) -> _T:
        def told_function() -> _T:
            with told(self._file.path):
                return function()

        return await trio.to_thread.run_sync(told_function, limiter=limiter)
