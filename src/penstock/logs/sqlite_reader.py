"""What is read from the file of a log; each function in one transaction of its caller."""

from __future__ import annotations

import heapq
import json
import math
import sqlite3
from collections.abc import Iterator
from itertools import islice
from typing import Final

from penstock.logs.log import Entry, Page, Position
from penstock.publication import Publication
from penstock.selection import Selection

__all__ = ["gone_until", "locate", "read"]

_ROWS: Final = "SELECT position, id, topics, wire FROM publications WHERE"
_ORDER: Final = "ORDER BY position"
_NEWEST_ON_TOPIC: Final = (
    "position = (SELECT max(position) FROM on_topic WHERE number = ? AND position <= ?)"
)


def locate(
    connection: sqlite3.Connection, id_: str, selection: Selection, oldest: float
) -> Position | None:
    """Return the position of an id; see `Log.locate`.

    Args:
      connection: to the file.
      id_: any text.
      selection: what is to be resumed.
      oldest: the time before which all is too old.
    """
    try:
        id_.encode()
    except UnicodeEncodeError:  # no publication has such an id, and SQLite takes no such text
        return None
    floor, newest = connection.execute("SELECT floor, newest FROM state").fetchone()
    gone = gone_until(connection, floor, newest, oldest)
    for position, topics in connection.execute(
        "SELECT position, topics FROM publications WHERE id = ? AND position > ? ORDER BY position",
        (id_, gone),
    ):
        if selection.matches(topics.split("\n")):
            return Position(position)
    for position, discarded_id in _discarded(connection, selection, gone):
        if discarded_id == id_:
            return Position(position)
    return None


def read(
    connection: sqlite3.Connection,
    after: Position,
    until: Position,
    selection: Selection,
    *,
    count: int,
    size: int,
    oldest: float,
) -> Page:
    """Return a part of the log; see `Log.read`.

    Args:
      connection: to the file.
      after: as there.
      until: as there.
      selection: as there.
      count: as there.
      size: as there.
      oldest: the time before which all is too old.
    """
    floor, newest = connection.execute("SELECT floor, newest FROM state").fetchone()
    gone = gone_until(connection, floor, newest, oldest)
    discarded_until = max(position for position, _ in _discarded(connection, selection, gone))
    first = max(after, gone)
    if selection.topics is None:
        rows = connection.execute(
            f"{_ROWS} position > ? AND position <= ? {_ORDER}", (first, until)
        )
    else:
        numbers = [row[0] for topic in selection.topics if (row := _topic(connection, topic))]
        found = _merged([_on_topic(connection, number, first, until) for number in numbers])
        positions = list(islice(found, count))
        chosen = "position IN (SELECT value FROM json_each(?))"
        rows = connection.execute(f"{_ROWS} {chosen} {_ORDER}", (json.dumps(positions),))
    entries: list[Entry] = []
    for position, id_, on, wire in rows:
        publication = Publication.restored(id_, tuple(on.split("\n")), wire)
        entries.append(Entry(Position(position), publication))
        size -= len(wire)
        if len(entries) >= count or size <= 0:
            until = Position(position)
            break
    return Page(entries, until, Position(discarded_until))


def gone_until(connection: sqlite3.Connection, floor: int, newest: int, oldest: float) -> int:
    """Return the position up to which all is gone or too old; the newest never is.

    It halves what there is, so it costs some twenty questions, however much has become too old
    while nothing was published. Where the clock was set back meanwhile it is one of the positions
    that this may mean.

    Args:
      connection: to the file.
      floor: the position up to which all is gone.
      newest: the newest publication's.
      oldest: the time before which all is too old.
    """
    if oldest == -math.inf:
        return floor
    low, high = floor, newest
    middle = low + 1  # first the oldest there is, which is mostly young enough
    while low + 1 < high:
        position, at = connection.execute(
            "SELECT position, at FROM publications WHERE position >= ? ORDER BY position LIMIT 1",
            (middle,),
        ).fetchone()
        if position >= high or at >= oldest:
            high = middle
        else:
            low = position
        middle = (low + high) // 2
    return low


def _discarded(
    connection: sqlite3.Connection, selection: Selection, gone: int
) -> Iterator[tuple[int, str | None]]:
    """Iterate position and id of what was discarded last, on each selected topic or of all.

    Args:
      connection: to the file.
      selection: which topics.
      gone: the position up to which all is discarded, or is in the file and too old.
    """
    discarded, discarded_id, forgotten = connection.execute(
        "SELECT discarded, discarded_id, forgotten FROM state"
    ).fetchone()
    too_old: tuple[int, str | None]
    if selection.topics is None:
        too_old = _newest_of(connection, "position <= ?", (gone,))
        yield max((discarded, discarded_id), too_old, key=_position)
        return
    for topic in selection.topics:
        row = _topic(connection, topic)
        if row is None:
            yield forgotten, None
            continue
        number, position, id_ = row
        too_old = _newest_of(connection, _NEWEST_ON_TOPIC, (number, gone))
        yield max((position, id_), too_old, key=_position)


def _newest_of(
    connection: sqlite3.Connection, where: str, values: tuple[int, ...]
) -> tuple[int, str | None]:
    row: tuple[int, str | None] | None = connection.execute(
        f"SELECT position, id FROM publications WHERE {where} ORDER BY position DESC LIMIT 1",
        values,
    ).fetchone()
    return row or (0, None)


def _position(discarded: tuple[int, str | None]) -> int:
    return discarded[0]


def _topic(connection: sqlite3.Connection, topic: str) -> tuple[int, int, str | None] | None:
    """Return a topic's number, and what was discarded of it last, if the log knows it."""
    row: tuple[int, int, str | None] | None = connection.execute(
        "SELECT number, discarded, discarded_id FROM topics WHERE topic = ?", (topic,)
    ).fetchone()
    return row


def _on_topic(connection: sqlite3.Connection, number: int, after: int, until: int) -> Iterator[int]:
    rows = connection.execute(
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
