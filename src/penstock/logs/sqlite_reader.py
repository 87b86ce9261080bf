"""Reads an SQLite log's file, as it is in one transaction."""

from __future__ import annotations

import heapq
import json
import math
import sqlite3
from collections.abc import Iterator
from itertools import islice
from typing import Final, final

from penstock.logs.log import Entry, Newest, Page, Position
from penstock.publication import Publication
from penstock.selection import Selection

__all__ = ["Snapshot", "expired_until"]

_ROWS: Final = "SELECT position, id, topics, wire FROM publications WHERE"
_ORDER: Final = "ORDER BY position"
_NEWEST_ON_TOPIC: Final = (
    "position = (SELECT max(position) FROM on_topic WHERE number = ? AND position <= ?)"
)


@final
class Snapshot:
    """The log as one transaction sees it.

    Args:
      connection: a connection to the file, in a transaction.
      min_time: the time before which publications are expired.
    """

    def __init__(self, connection: sqlite3.Connection, min_time: float) -> None:
        self._connection = connection
        floor, newest = connection.execute("SELECT floor, newest FROM state").fetchone()
        # Up to this position, every publication is discarded, or is in the file and expired.
        self._expired_until = expired_until(connection, floor, newest, min_time)

    def locate(self, id_: str, selection: Selection) -> Position | None:
        """Return the position of an id; see `Log.locate`."""
        try:
            id_.encode()
        except UnicodeEncodeError:  # no publication has such an id, and SQLite refuses such text
            return None
        for position, topics in self._connection.execute(
            f"SELECT position, topics FROM publications WHERE id = ? AND position > ? {_ORDER}",
            (id_, self._expired_until),
        ):
            if selection.matches(topics.split("\n")):
                return Position(position)
        for discarded in self._discarded(selection):
            if discarded.id == id_:
                return discarded.position
        return None

    def read(
        self, after: Position, until: Position, selection: Selection, *, count: int, size: int
    ) -> Page:
        """Return a part of the log; see `Log.read`."""
        discarded_until = max(each.position for each in self._discarded(selection))
        first = max(after, self._expired_until)
        if selection.topics is None:
            rows = self._connection.execute(
                f"{_ROWS} position > ? AND position <= ? {_ORDER}", (first, until)
            )
        else:
            numbers = [row[0] for topic in selection.topics if (row := self._topic(topic))]
            found = _merged([self._on_topic(number, first, until) for number in numbers])
            positions = list(islice(found, count))
            chosen = "position IN (SELECT value FROM json_each(?))"
            rows = self._connection.execute(f"{_ROWS} {chosen} {_ORDER}", (json.dumps(positions),))
        entries: list[Entry] = []
        for position, id_, topics, wire in rows:
            publication = Publication.from_log(id_, tuple(topics.split("\n")), wire)
            entries.append(Entry(Position(position), publication))
            size -= len(wire)
            if len(entries) >= count or size <= 0:
                until = Position(position)
                break
        return Page(entries, until, discarded_until)

    def _discarded(self, selection: Selection) -> Iterator[Newest]:
        """Iterate the newest discarded publications, of each selected topic or of the log."""
        position, id_, forgotten = self._connection.execute(
            "SELECT discarded, discarded_id, forgotten FROM state"
        ).fetchone()
        if selection.topics is None:
            expired = self._newest_of("position <= ?", (self._expired_until,))
            yield max(Newest(position, id_), expired, key=_position)
            return
        for topic in selection.topics:
            row = self._topic(topic)
            if row is None:
                yield Newest(forgotten)
                continue
            number, position, id_ = row
            expired = self._newest_of(_NEWEST_ON_TOPIC, (number, self._expired_until))
            yield max(Newest(position, id_), expired, key=_position)

    def _newest_of(self, where: str, values: tuple[int, ...]) -> Newest:
        row: tuple[Position, str] | None = self._connection.execute(
            f"SELECT position, id FROM publications WHERE {where} ORDER BY position DESC LIMIT 1",
            values,
        ).fetchone()
        return Newest(*row) if row else Newest()

    def _topic(self, topic: str) -> tuple[int, Position, str | None] | None:
        """Return a topic's number and newest discarded publication, if the log knows it."""
        row: tuple[int, Position, str | None] | None = self._connection.execute(
            "SELECT number, discarded, discarded_id FROM topics WHERE topic = ?", (topic,)
        ).fetchone()
        return row

    def _on_topic(self, number: int, after: int, until: int) -> Iterator[int]:
        rows = self._connection.execute(
            "SELECT position FROM on_topic "
            f"WHERE number = ? AND position > ? AND position <= ? {_ORDER}",
            (number, after, until),
        )
        return (position for (position,) in rows)


def expired_until(connection: sqlite3.Connection, floor: int, newest: int, min_time: float) -> int:
    """Return the position up to which all is discarded or expired; the newest never is.

    A binary search, so it takes some twenty queries, however many publications have expired. If the
    clock was set back between publications, several positions may satisfy this; one is returned.

    Args:
      connection: a connection to the file.
      floor: the position up to which everything is discarded.
      newest: the position of the newest publication.
      min_time: the time before which publications are expired.
    """
    if min_time == -math.inf:
        return floor
    low, high = floor, newest
    middle = low + 1  # first the oldest publication, which is usually not expired
    while low + 1 < high:
        position, at = connection.execute(
            f"SELECT position, at FROM publications WHERE position >= ? {_ORDER} LIMIT 1",
            (middle,),
        ).fetchone()
        if position >= high or at >= min_time:
            high = middle
        else:
            low = position
        middle = (low + high) // 2
    return low


def _position(each: Newest) -> Position:
    return each.position


def _merged(sorted_positions: list[Iterator[int]]) -> Iterator[int]:
    """Merge sorted positions into one order, each position once."""
    last = 0
    for position in heapq.merge(*sorted_positions):
        if position > last:
            last = position
            yield position
