"""What is written to the file of a history: publications, and what passes the bounds goes."""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple, final

from penstock.history import Bounds, HistoryStatistics, Newest
from penstock.publication import Publication
from penstock.stores.sqlite_reader import gone_until

__all__ = ["Writer"]

# Topics whose numbers are known without asking.
_KNOWN_TOPICS: Final = 10_000

# Topics without publications whose marks are kept.
_EMPTY_TOPICS: Final = 10_000

# Publications that go with one append, beside twice as many as came: what is more, because nothing
# was published for long or the bounds are new, goes with the next ones. It takes a tenth of a
# second, for which publishers wait.
_AT_ONCE: Final = 10_000


class _State(NamedTuple):
    """The row of the table ``state``."""

    floor: int
    kept: int
    size: int
    newest: int
    newest_id: str | None
    marked: int
    forgotten: int


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
        self._emptied = 0  # the most topics that may have lost their last one for another's sake
        self._state = _State(*connection.execute("SELECT * FROM state").fetchone())

    def statistics(self) -> HistoryStatistics:
        """Return the figures after the last transaction."""
        state = self._state
        newest = Newest(state.newest, state.newest_id)
        return HistoryStatistics(state.kept, state.size, newest)

    def append(self, publications: Sequence[Publication], now: float) -> HistoryStatistics:
        """Keep publications, and discard what passes the bounds, in one transaction.

        Raises:
          sqlite3.Error: nothing was changed.
        """
        before = self._state
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._insert(publications, now)
            if self._bounds.per_topic is not None:
                self._trim_topics(publications, self._bounds.per_topic)
                self._forget_marks()
            self._trim(now, 2 * len(publications) + _AT_ONCE)
            self._connection.execute(
                "UPDATE state SET floor = ?, kept = ?, size = ?, newest = ?, newest_id = ?, "
                "marked = ?, forgotten = ?",
                self._state,
            )
            self._connection.execute("COMMIT")
        except BaseException:
            self._state = before
            self._numbers.clear()
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        return self.statistics()

    def _insert(self, publications: Sequence[Publication], now: float) -> None:
        state = self._state
        rows = []
        on_topic = []
        size = 0
        for position, publication in enumerate(publications, start=state.newest + 1):
            topics = "\n".join(publication.topics)
            rows.append((position, publication.id, now, topics, publication.wire))
            on_topic += [(self._number(topic), position) for topic in publication.topics]
            size += len(publication.wire)
        self._connection.executemany("INSERT INTO publications VALUES (?, ?, ?, ?, ?)", rows)
        self._connection.executemany("INSERT INTO on_topic VALUES (?, ?)", on_topic)
        self._connection.executemany(
            "UPDATE topics SET kept = kept + ? WHERE number = ?",
            [(many, number) for number, many in Counter(each for each, _ in on_topic).items()],
        )
        self._state = state._replace(
            kept=state.kept + len(rows),
            size=state.size + size,
            newest=rows[-1][0],
            newest_id=rows[-1][1],
        )

    def _number(self, topic: str) -> int:
        number = self._numbers.get(topic)
        if number is None:
            row = self._connection.execute(
                "SELECT number FROM topics WHERE topic = ?", (topic,)
            ).fetchone()
            if row is None:
                # It may be one that was forgotten.
                row = self._connection.execute(
                    "INSERT INTO topics (topic, mark) VALUES (?, ?) RETURNING number",
                    (topic, self._state.forgotten),
                ).fetchone()
            number = int(row[0])
            if len(self._numbers) >= _KNOWN_TOPICS:
                self._numbers.clear()
            self._numbers[topic] = number
        return number

    def _trim_topics(self, publications: Sequence[Publication], most: int) -> None:
        """Discard the oldest of each topic that has too many, as each publication is added.

        One after the other, since what goes is gone for its other topics, too: what is left must
        not depend on what was appended together.
        """
        added = Counter(topic for each in publications for topic in each.topics)
        kept = {topic: self._kept(topic) - count for topic, count in added.items()}
        left = 2 * added.total() + _AT_ONCE
        for publication in publications:
            for topic in publication.topics:
                kept[topic] += 1
                while kept[topic] > most and left:
                    left -= 1
                    for each in self._discard_oldest(topic):
                        if each in kept:
                            kept[each] -= 1

    def _kept(self, topic: str) -> int:
        (kept,) = self._connection.execute(
            "SELECT kept FROM topics WHERE number = ?", (self._number(topic),)
        ).fetchone()
        return int(kept)

    def _discard_oldest(self, topic: str) -> list[str]:
        """Discard the oldest publication on a topic, and return all its topics."""
        position, joined, length = self._connection.execute(
            "SELECT position, topics, length(wire) FROM on_topic JOIN publications USING (position)"
            " WHERE number = ? ORDER BY position LIMIT 1",
            (self._number(topic),),
        ).fetchone()
        topics: list[str] = joined.split("\n")
        numbers = [self._number(each) for each in topics]
        self._connection.execute("DELETE FROM publications WHERE position = ?", (position,))
        self._connection.executemany(
            "DELETE FROM on_topic WHERE number = ? AND position = ?",
            [(number, position) for number in numbers],
        )
        self._connection.executemany(
            "UPDATE topics SET kept = kept - 1, mark = max(mark, ?) WHERE number = ?",
            [(position, number) for number in numbers],
        )
        self._emptied += len(topics) - 1
        state = self._state
        self._state = state._replace(
            kept=state.kept - 1, size=state.size - length, marked=max(state.marked, position)
        )
        return topics

    def _trim(self, now: float, most: int) -> None:
        """Discard the oldest, up to so many, until all is within the bounds; the newest stays."""
        state = self._state
        oldest = -math.inf if self._bounds.age is None else now - self._bounds.age
        too_old = gone_until(self._connection, state.floor, state.newest, oldest)
        surplus = state.kept - (self._bounds.count or state.kept)
        excess = state.size - (self._bounds.size or state.size)
        if surplus <= 0 and excess <= 0 and too_old <= state.floor:
            return
        floor, count, size = state.floor, 0, 0
        on_topics: Counter[str] = Counter()
        for position, topics, length in self._connection.execute(
            "SELECT position, topics, length(wire) FROM publications "
            "WHERE position < ? ORDER BY position LIMIT ?",
            (state.newest, most),
        ):
            if position > too_old and count >= surplus and size >= excess:
                break
            floor, count, size = position, count + 1, size + length
            on_topics.update(topics.split("\n"))
        self._state = state._replace(floor=floor, kept=state.kept - count, size=state.size - size)
        self._discard_until(floor, on_topics)

    def _discard_until(self, floor: int, on_topics: Counter[str]) -> None:
        """Discard all up to a position, which are so many on each topic."""
        self._connection.execute("DELETE FROM publications WHERE position <= ?", (floor,))
        numbers = [(many, self._number(topic)) for topic, many in on_topics.items()]
        self._connection.executemany(
            "DELETE FROM on_topic WHERE number = ? AND position <= ?",
            [(number, floor) for _, number in numbers],
        )
        self._connection.executemany("UPDATE topics SET kept = kept - ? WHERE number = ?", numbers)
        self._forget_topics(floor)

    def _forget_marks(self) -> None:
        """Forget the oldest marks of topics that have nothing else, if there may be too many."""
        if self._emptied <= _EMPTY_TOPICS:
            return
        self._emptied = 0
        row = self._connection.execute(
            "SELECT mark FROM topics WHERE kept = 0 ORDER BY mark DESC LIMIT 1 OFFSET ?",
            (_EMPTY_TOPICS,),
        ).fetchone()
        if row is not None:
            self._state = self._state._replace(forgotten=max(self._state.forgotten, row[0]))
            self._forget_topics(row[0])

    def _forget_topics(self, mark: int) -> None:
        """Forget topics that have no publications, and no mark above this one."""
        for (topic,) in self._connection.execute(
            "DELETE FROM topics WHERE kept = 0 AND mark <= ? RETURNING topic", (mark,)
        ).fetchall():
            self._numbers.pop(topic, None)
