"""Writes an SQLite log's file: appends publications, and discards those beyond the bounds."""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple, final

from penstock.logs.log import Bounds, LogStatistics, Newest, Position
from penstock.logs.sqlite_file import SIZE
from penstock.logs.sqlite_reader import expired_until
from penstock.publication import Publication

__all__ = ["Writer"]

# Topics whose numbers are cached in memory.
_KNOWN_TOPICS: Final = 10_000

# Empty topics to remember, of which no publication is kept. A topic that is forgotten may have a
# gap reported although nothing is missing.
_EMPTY_TOPICS: Final = 100_000

# Publications that an append may discard, beyond twice as many as it adds. If more are beyond the
# bounds, because nothing was published for long or the bounds are new, later appends discard the
# rest. Discarding this many takes a tenth of a second, for which publishers wait.
_MAX_DISCARDED: Final = 10_000


class _StateRow(NamedTuple):
    """The row of the table ``state``; see `penstock.logs.sqlite_file` for its columns."""

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
    """Appends to the file; used by one thread at a time.

    Args:
      connection: a connection to the file, with `isolation_level` None.
      bounds: how much to keep.
    """

    def __init__(self, connection: sqlite3.Connection, bounds: Bounds) -> None:
        self._connection = connection
        self._bounds = bounds
        self._numbers: dict[str, int] = {}
        (self._empty,) = connection.execute(  # the number of empty topics, or more
            "SELECT count(*) FROM topics WHERE kept = 0"
        ).fetchone()
        self._state = _StateRow(*connection.execute("SELECT * FROM state").fetchone())

    @property
    def key(self) -> bytes:
        """The key of position ids."""
        return self._state.key

    def statistics(self) -> LogStatistics:
        """Return the log's statistics after the last transaction."""
        state = self._state
        newest = Newest(Position(state.newest), state.newest_id)
        return LogStatistics(state.kept, state.size, newest)

    def append(self, publications: Sequence[Publication], now: float) -> Sequence[Position]:
        """Append publications, and discard those beyond the bounds, in one transaction.

        Returns:
          Their positions.

        Raises:
          sqlite3.Error: nothing has changed.
        """
        before = self._state
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._insert(publications, now)
            if self._bounds.per_topic is not None:
                self._trim_topics(publications, self._bounds.per_topic)
            self._trim(now, 2 * len(publications) + _MAX_DISCARDED)
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
            [(count, number) for number, count in Counter(each for each, _ in on_topic).items()],
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
                # The topic may have been forgotten.
                row = self._connection.execute(
                    "INSERT INTO topics (topic, discarded) VALUES (?, ?) RETURNING number",
                    (topic, self._state.forgotten),
                ).fetchone()
            number = int(row[0])
            if len(self._numbers) >= _KNOWN_TOPICS:
                self._numbers.clear()
            self._numbers[topic] = number
        return number

    def _trim_topics(self, publications: Sequence[Publication], limit: int) -> None:
        """Discard the oldest publications of each topic that has too many.

        This replays the additions one by one, since a publication is discarded on all its topics:
        the result must not depend on which publications were appended together.
        """
        added = Counter(topic for each in publications for topic in each.topics)
        kept = {topic: self._kept(topic) - count for topic, count in added.items()}
        left = 2 * added.total() + _MAX_DISCARDED
        for publication in publications:
            for topic in publication.topics:
                kept[topic] += 1
                while kept[topic] > limit and left:
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
        """Update the topics of discarded publications.

        Args:
          topics: for each topic, its number, how many publications on it were discarded, and the
            position and id of the newest of them. An earlier call may have had a later position,
            since `per_topic` discards out of order.
        """
        self._connection.executemany(
            "UPDATE topics SET kept = kept - ?2, "
            "discarded_id = iif(?3 > discarded, ?4, discarded_id), discarded = max(discarded, ?3) "
            "WHERE number = ?1",
            topics,
        )
        self._empty += len(topics)  # an upper bound
        _, _, position, id_ = max(topics, key=lambda each: each[2])
        if position > self._state.discarded:
            self._state = self._state._replace(discarded=position, discarded_id=id_)

    def _trim(self, now: float, limit: int) -> None:
        """Discard the oldest publications, up to a limit, as the bounds say; the newest stays."""
        state = self._state
        min_time = -math.inf if self._bounds.age is None else now - self._bounds.age
        expired = expired_until(self._connection, state.floor, state.newest, min_time)
        surplus = state.kept - (self._bounds.count or state.kept)
        excess = state.size - (self._bounds.size or state.size)
        if surplus <= 0 and excess <= 0 and expired <= state.floor:
            return
        floor, count, size = state.floor, 0, 0
        on_topics: dict[str, tuple[int, int, str]] = {}
        for position, id_, topics, its_size in self._connection.execute(
            f"SELECT position, id, topics, {SIZE} FROM publications "
            "WHERE position < ? ORDER BY position LIMIT ?",
            (state.newest, limit),
        ):
            if position > expired and count >= surplus and size >= excess:
                break
            floor, count, size = position, count + 1, size + its_size
            for topic in topics.split("\n"):
                earlier = on_topics[topic][0] if topic in on_topics else 0
                on_topics[topic] = (earlier + 1, position, id_)
        self._state = state._replace(floor=floor, kept=state.kept - count, size=state.size - size)
        self._discard_until(floor, on_topics)

    def _discard_until(self, floor: int, on_topics: dict[str, tuple[int, int, str]]) -> None:
        """Discard everything up to a position.

        Args:
          floor: the position.
          on_topics: by topic, how many publications that are, and the newest one's position and id.
        """
        self._connection.execute("DELETE FROM publications WHERE position <= ?", (floor,))
        topics = [(self._number(topic), *last) for topic, last in on_topics.items()]
        self._connection.executemany(
            "DELETE FROM on_topic WHERE number = ? AND position <= ?",
            [(number, floor) for number, *_ in topics],
        )
        if topics:
            self._note_discarded(topics)

    def _forget_topics(self) -> None:
        """Forget the empty topics that were silent longest, if there may be too many."""
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
