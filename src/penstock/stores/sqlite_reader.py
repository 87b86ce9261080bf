"""What is read from the file of a history; each function in one transaction of its caller."""

from __future__ import annotations

import heapq
import json
import math
import sqlite3
from collections.abc import Iterator
from itertools import islice
from typing import Final

from penstock.history import Page
from penstock.publication import Publication

__all__ = ["gone_until", "locate", "read"]

_ROWS: Final = "SELECT position, id, topics, wire FROM publications WHERE"
_ORDER: Final = "ORDER BY position"


def locate(connection: sqlite3.Connection, id_: str, oldest: float) -> int | None:
    """Return the position of the earliest publication with this id that is left.

    Args:
      connection: to the file.
      id_: any text.
      oldest: the time before which all is too old.
    """
    try:
        id_.encode()
    except UnicodeEncodeError:  # no publication has such an id, and SQLite takes no such text
        return None
    floor, newest = connection.execute("SELECT floor, newest FROM state").fetchone()
    row: tuple[int] | None = connection.execute(
        "SELECT position FROM publications WHERE id = ? AND position > ? ORDER BY position LIMIT 1",
        (id_, gone_until(connection, floor, newest, oldest)),
    ).fetchone()
    return None if row is None else row[0]


def read(
    connection: sqlite3.Connection,
    after: int,
    until: int,
    topics: frozenset[str] | None,
    *,
    count: int,
    size: int,
    oldest: float,
) -> Page:
    """Return a part of the history; see `History.read`.

    Args:
      connection: to the file.
      after: as there.
      until: as there.
      topics: as there.
      count: as there.
      size: as there.
      oldest: the time before which all is too old.
    """
    floor, newest, mark, forgotten = connection.execute(
        "SELECT floor, newest, marked, forgotten FROM state"
    ).fetchone()
    gone = gone_until(connection, floor, newest, oldest)
    first = max(after, gone)
    if topics is None:
        rows = connection.execute(
            f"{_ROWS} position > ? AND position <= ? {_ORDER}", (first, until)
        )
    else:
        known = [each for topic in topics if (each := _topic(connection, topic)) is not None]
        mark = max((each[1] for each in known), default=0)
        if len(known) < len(topics):
            mark = max(mark, forgotten)
        found = _merged([_on_topic(connection, number, first, until) for number, _ in known])
        positions = list(islice(found, count))
        chosen = "position IN (SELECT value FROM json_each(?))"
        rows = connection.execute(f"{_ROWS} {chosen} {_ORDER}", (json.dumps(positions),))
    publications: list[Publication] = []
    for position, id_, on, wire in rows:
        publications.append(Publication.restored(id_, tuple(on.split("\n")), wire))
        size -= len(wire)
        if len(publications) >= count or size <= 0:
            until = position
            break
    return Page(publications, until, after < gone or after < mark)


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


def _topic(connection: sqlite3.Connection, topic: str) -> tuple[int, int] | None:
    """Return a topic's number and mark, if the history knows it."""
    row: tuple[int, int] | None = connection.execute(
        "SELECT number, mark FROM topics WHERE topic = ?", (topic,)
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
