"""What is written to the file of a history: publications, and what passes the bounds goes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final, final

from penstock.history import Bounds, HistoryStatistics, Newest
from penstock.publication import Publication

__all__ = ["Writer"]

# Topics whose numbers are known without asking.
_KNOWN_TOPICS: Final = 10_000

# Rows that are looked at together when the oldest have to go.
_AT_ONCE: Final = 256


@final
class Writer:
    """The one who writes; in one thread at a time.

    Args:
      connection: to the file, without transactions of its own.
      bounds: what is kept.
    """

    def __init__(self, connection: sqlite3.Connection, bounds: Bounds) -> None:
        self._connection = connection
        self._bounds = bounds
        self._numbers: dict[str, int] = {}
        self._floor = self._count = self._size = 0
        self._newest = Newest()
        self._load()

    def statistics(self) -> HistoryStatistics:
        """Return the figures after the last transaction."""
        return HistoryStatistics(self._count, self._size, self._newest)

    def append(self, publications: Sequence[Publication], now: float) -> HistoryStatistics:
        """Keep publications, and discard what passes the bounds, in one transaction.

        Raises:
          sqlite3.Error: nothing was changed.
        """
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._insert(publications, now)
            if self._bounds.per_topic is not None:
                self._trim_topics(publications, self._bounds.per_topic)
            self._trim(now)
            self._connection.execute(
                "UPDATE state SET floor = ?, count = ?, size = ?, newest = ?, newest_id = ?",
                (self._floor, self._count, self._size, *self._newest),
            )
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._numbers.clear()
            self._load()
            raise
        return self.statistics()

    def _load(self) -> None:
        state = self._connection.execute("SELECT * FROM state").fetchone()
        self._floor, self._count, self._size = state[:3]
        self._newest = Newest(*state[3:])

    def _insert(self, publications: Sequence[Publication], now: float) -> None:
        first = self._newest.position + 1
        rows = []
        on_topic = []
        for position, publication in enumerate(publications, start=first):
            topics = "\n".join(publication.topics)
            rows.append((position, publication.id, now, topics, publication.wire))
            on_topic += [(self._number(topic), position) for topic in publication.topics]
            self._size += len(publication.wire)
        self._connection.executemany("INSERT INTO publications VALUES (?, ?, ?, ?, ?)", rows)
        self._connection.executemany("INSERT INTO on_topic VALUES (?, ?)", on_topic)
        self._count += len(rows)
        self._newest = Newest(rows[-1][0], rows[-1][1])

    def _number(self, topic: str) -> int:
        number = self._numbers.get(topic)
        if number is None:
            row = self._connection.execute(
                "SELECT number FROM topics WHERE topic = ?", (topic,)
            ).fetchone()
            if row is None:
                row = self._connection.execute(
                    "INSERT INTO topics (topic) VALUES (?) RETURNING number", (topic,)
                ).fetchone()
            number = int(row[0])
            if len(self._numbers) >= _KNOWN_TOPICS:
                self._numbers.clear()
            self._numbers[topic] = number
        return number

    def _trim(self, now: float) -> None:
        """Discard the oldest until all is within the bounds; the newest stays."""
        bounds = self._bounds
        count = self._count if bounds.count is None else bounds.count
        size = self._size if bounds.size is None else bounds.size
        oldest_time = None if bounds.age is None else now - bounds.age
        while self._count > 1 and (
            self._count > count or self._size > size or oldest_time is not None
        ):
            rows = self._connection.execute(
                "SELECT position, at, topics, length(wire) FROM publications "
                "WHERE position < ? ORDER BY position LIMIT ?",
                (self._newest.position, _AT_ONCE),
            )
            gone = []
            for position, at, topics, length in rows:
                too_old = oldest_time is not None and at < oldest_time
                if not (too_old or self._count > count or self._size > size):
                    break
                gone.append((position, topics))
                self._count -= 1
                self._size -= length
            if not gone:
                break
            self._floor = gone[-1][0]
            self._discard(gone)
            self._connection.execute(
                "UPDATE topics SET mark = 0 WHERE mark > 0 AND mark <= ?", (self._floor,)
            )
            self._forget_topics({topic for _, topics in gone for topic in topics.split("\n")})

    def _trim_topics(self, publications: Sequence[Publication], most: int) -> None:
        """Discard the oldest of each topic that has too many."""
        for topic in dict.fromkeys(each for one in publications for each in one.topics):
            number = self._number(topic)
            (kept,) = self._connection.execute(
                "SELECT count(*) FROM on_topic WHERE number = ?", (number,)
            ).fetchone()
            if kept <= most:
                continue
            gone = self._connection.execute(
                "SELECT position, topics, length(wire) FROM on_topic JOIN publications "
                "USING (position) WHERE number = ? ORDER BY position LIMIT ?",
                (number, kept - most),
            ).fetchall()
            self._connection.execute(
                "UPDATE topics SET mark = ? WHERE number = ?", (gone[-1][0], number)
            )
            self._count -= len(gone)
            self._size -= sum(length for *_, length in gone)
            self._discard([(position, topics) for position, topics, _ in gone])

    def _discard(self, gone: Sequence[tuple[int, str]]) -> None:
        self._connection.executemany(
            "DELETE FROM publications WHERE position = ?", [(position,) for position, _ in gone]
        )
        self._connection.executemany(
            "DELETE FROM on_topic WHERE number = ? AND position = ?",
            [
                (self._number(topic), position)
                for position, topics in gone
                for topic in topics.split("\n")
            ],
        )

    def _forget_topics(self, topics: set[str]) -> None:
        """Forget topics on which nothing is left, and nothing is known."""
        for topic in topics:
            number = self._number(topic)
            gone = self._connection.execute(
                "DELETE FROM topics WHERE number = ? AND mark = 0 "
                "AND NOT EXISTS (SELECT 1 FROM on_topic WHERE on_topic.number = topics.number)",
                (number,),
            ).rowcount
            if gone:
                del self._numbers[topic]
