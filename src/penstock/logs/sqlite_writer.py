"""What is written to the file of a log: publications, and what passes the bounds goes."""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple, final

from penstock.logs.log import Bounds, LogStatistics, Newest, Position
from penstock.logs.sqlite_file import SIZE
from penstock.logs.sqlite_reader import gone_until
from penstock.publication import Publication

__all__ = ["Writer"]

# Topics whose numbers are known without asking.
_KNOWN_TOPICS: Final = 10_000

# Topics of which nothing is kept, and what was discarded last is remembered. A topic that is
# forgotten may be told of a gap that it does not have.
_EMPTY_TOPICS: Final = 100_000

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
    discarded: int
    discarded_id: str | None
    forgotten: int
    key: bytes


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
        (self._empty,) = connection.execute(  # topics of which nothing is kept, or more
            "SELECT count(*) FROM topics WHERE kept = 0"
        ).fetchone()
        self._state = _State(*connection.execute("SELECT * FROM state").fetchone())

    @property
    def key(self) -> bytes:
        """The key of the log's position ids."""
        return self._state.key

    def statistics(self) -> LogStatistics:
        """Return the figures after the last transaction."""
        state = self._state
        newest = Newest(Position(state.newest), state.newest_id)
        return LogStatistics(state.kept, state.size, newest)

    def append(self, publications: Sequence[Publication], now: float) -> Sequence[Position]:
        """Keep publications, and discard what passes the bounds, in one transaction.

        Returns:
          Their positions.

        Raises:
          sqlite3.Error: nothing was changed.
        """
        before = self._state
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._insert(publications, now)
            if self._bounds.per_topic is not None:
                self._trim_topics(publications, self._bounds.per_topic)
            self._trim(now, 2 * len(publications) + _AT_ONCE)
            self._forget_topics()
            self._connection.execute(
                "UPDATE state SET floor = ?, kept = ?, size = ?, newest = ?, newest_id = ?, "
                "discarded = ?, discarded_id = ?, forgotten = ?",
                self._state[:-1],
            )
            self._connection.execute("COMMIT")
        except BaseException:
            self._state = before
            self._numbers.clear()
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        first = before.newest + 1
        return [Position(first + number) for number in range(len(publications))]

    def _insert(self, publications: Sequence[Publication], now: float) -> None:
        state = self._state
        rows = []
        on_topic = []
        size = 0
        for position, publication in enumerate(publications, start=state.newest + 1):
            topics = "\n".join(publication.topics)
            rows.append((position, publication.id, now, topics, publication.wire))
            on_topic += [(self._number(topic), position) for topic in publication.topics]
            size += publication.size
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
                    "INSERT INTO topics (topic, discarded) VALUES (?, ?) RETURNING number",
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
        position, id_, joined, size = self._connection.execute(
            f"SELECT position, id, topics, {SIZE} FROM on_topic JOIN publications USING (position)"
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
        self._note_discarded([(number, 1, position, id_) for number in numbers])
        self._state = self._state._replace(kept=self._state.kept - 1, size=self._state.size - size)
        return topics

    def _note_discarded(self, topics: Sequence[tuple[int, int, int, str]]) -> None:
        """Note what was discarded: number, how many, and the last one's position and id, for each.

        `max` is of what was noted before, since `per_topic` discards out of order.
        """
        self._connection.executemany(
            "UPDATE topics SET kept = kept - ?2, "
            "discarded_id = iif(?3 > discarded, ?4, discarded_id), discarded = max(discarded, ?3) "
            "WHERE number = ?1",
            topics,
        )
        self._empty += len(topics)  # at most
        _, _, position, id_ = max(topics, key=lambda each: each[2])
        if position > self._state.discarded:
            self._state = self._state._replace(discarded=position, discarded_id=id_)

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
        on_topics: dict[str, tuple[int, int, str]] = {}
        for position, id_, topics, its_size in self._connection.execute(
            f"SELECT position, id, topics, {SIZE} FROM publications "
            "WHERE position < ? ORDER BY position LIMIT ?",
            (state.newest, most),
        ):
            if position > too_old and count >= surplus and size >= excess:
                break
            floor, count, size = position, count + 1, size + its_size
            for topic in topics.split("\n"):
                many = on_topics[topic][0] if topic in on_topics else 0
                on_topics[topic] = (many + 1, position, id_)
        self._state = state._replace(floor=floor, kept=state.kept - count, size=state.size - size)
        self._discard_until(floor, on_topics)

    def _discard_until(self, floor: int, on_topics: dict[str, tuple[int, int, str]]) -> None:
        """Discard all up to a position: how many on each topic, and the last one of each."""
        self._connection.execute("DELETE FROM publications WHERE position <= ?", (floor,))
        numbers = [(self._number(topic), *last) for topic, last in on_topics.items()]
        self._connection.executemany(
            "DELETE FROM on_topic WHERE number = ? AND position <= ?",
            [(number, floor) for number, *_ in numbers],
        )
        if numbers:
            self._note_discarded(numbers)

    def _forget_topics(self) -> None:
        """Forget the longest silent topics of which nothing is kept, if there may be too many."""
        if self._empty <= 2 * _EMPTY_TOPICS:
            return
        (self._empty,) = self._connection.execute(
            "SELECT count(*) FROM topics WHERE kept = 0"
        ).fetchone()
        row = self._connection.execute(
            "SELECT discarded FROM topics WHERE kept = 0 ORDER BY discarded DESC LIMIT 1 OFFSET ?",
            (_EMPTY_TOPICS,),
        ).fetchone()
        if row is None:
            return
        self._empty = _EMPTY_TOPICS
        self._state = self._state._replace(forgotten=max(self._state.forgotten, row[0]))
        for (topic,) in self._connection.execute(
            "DELETE FROM topics WHERE kept = 0 AND discarded <= ? RETURNING topic", (row[0],)
        ).fetchall():
            self._numbers.pop(topic, None)
