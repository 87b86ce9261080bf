"""The file of a history: made, opened, told from other files, and locked."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, final

from penstock.errors import HistoryError

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

__all__ = ["HistoryFile", "told"]

# "PnSt": what `file` and SQLite call the application that a database belongs to.
APPLICATION_ID: Final = 0x506E5374
VERSION: Final = 1

# The first that has STRICT tables, the youngest of what is asked of it.
_OLDEST_SQLITE: Final = (3, 37)

# Spec: https://sqlite.org/fileformat2.html#the_database_header
_MAGIC: Final = b"SQLite format 3\0"
_HEADER_SIZE: Final = 100
_APPLICATION_ID_AT: Final = slice(68, 72)

# Topics are joined with LF, which they cannot contain. What comes up to the floor was discarded,
# whatever its topics. A topic's mark is the newest position that was discarded for being too many,
# on it or on another of its topics; `marked` is the highest mark that there ever was, and
# `forgotten` that of a topic whose row, which had nothing else to tell, was removed.
_SCHEMA: Final = f"""
CREATE TABLE publications (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    at REAL NOT NULL,
    topics TEXT NOT NULL,
    wire BLOB NOT NULL
) STRICT;
CREATE INDEX by_id ON publications (id);
CREATE TABLE topics (
    number INTEGER PRIMARY KEY,
    topic TEXT NOT NULL UNIQUE,
    kept INTEGER NOT NULL DEFAULT 0,
    mark INTEGER NOT NULL
) STRICT;
CREATE INDEX empty_topics ON topics (mark) WHERE kept = 0;
CREATE TABLE on_topic (
    number INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (number, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE state (
    floor INTEGER NOT NULL,
    kept INTEGER NOT NULL,
    size INTEGER NOT NULL,
    newest INTEGER NOT NULL,
    newest_id TEXT,
    marked INTEGER NOT NULL,
    forgotten INTEGER NOT NULL
) STRICT;
INSERT INTO state VALUES (0, 0, 0, 0, NULL, 0, 0);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""

_DAMAGED: Final = "it is damaged: restore a copy, or move it away to begin anew"
_NOT_OURS: Final = "it is not a history of Penstock's: choose another file"

_REMEDIES: Final = {
    "SQLITE_FULL": "the disk is full: make room on it",
    "SQLITE_READONLY": "it cannot be written: see to its permissions, and its directory's",
    "SQLITE_CANTOPEN": "it cannot be opened: see that its directory exists, and to permissions",
    "SQLITE_PERM": "it cannot be opened: see to its permissions",
    "SQLITE_IOERR": "the disk does not work as it should",
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_NOTADB": _NOT_OURS,
    "SQLITE_BUSY": "another program is using it",
    "SQLITE_LOCKED": "another program is using it",
}


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system raise into a `HistoryError` that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        base = "_".join(name.split("_")[:2])
        remedy = _REMEDIES.get(base)
        said = f"{remedy} ({error})" if remedy else str(error)
        raise HistoryError(f"{path}: {said}") from error
    except OSError as error:
        raise HistoryError(f"{path}: {error.strerror or error}") from error


@final
class HistoryFile:
    """A history's file, which one process uses at a time.

    Args:
      path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path: Path = path
        self._resolved = path  # so that all who open it mean the same, whatever changes
        self._lock: Any = None
        self._connection: sqlite3.Connection | None = None

    def open(self) -> sqlite3.Connection:
        """Open the file, or make it, and return the connection that writes.

        Raises:
          HistoryError: it is not ours, is newer, damaged, or in use.
          sqlite3.Error: it cannot be opened.
          OSError: its lock cannot.
        """
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            needed = ".".join(map(str, _OLDEST_SQLITE))
            raise self._error(
                f"this Python has SQLite {sqlite3.sqlite_version}, and {needed} is needed"
            )
        self._resolved = self.path.resolve()
        self._refuse_other_files()
        self._take_lock()
        self._connection = connection = sqlite3.connect(
            self._resolved, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        self._refuse_newer_and_damaged(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def reader(self) -> sqlite3.Connection:
        """Return a connection that only reads.

        Raises:
          HistoryError: the file is not open.
          sqlite3.Error: it cannot be opened.
        """
        if self._connection is None:
            raise self._error("it is closed: open the hub that it is for")
        return sqlite3.connect(
            f"{self._resolved.as_uri()}?mode=ro",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _refuse_other_files(self) -> None:
        """Refuse what is not ours by its first bytes, or not to be written; before SQLite has it.

        SQLite opens what it may only read, and fails at the first publication.
        """
        if self._resolved.is_dir():
            raise self._error("it is a directory: name a file in it")
        if not self._resolved.parent.is_dir():
            raise self._error("its directory does not exist: make that first")
        try:
            with self._resolved.open("r+b") as file:
                header = file.read(_HEADER_SIZE)
        except FileNotFoundError:
            return
        if not header:
            return
        if not header.startswith(_MAGIC):
            raise self._error(_NOT_OURS)
        if int.from_bytes(header[_APPLICATION_ID_AT], "big") != APPLICATION_ID:
            raise self._error("it is another program's database: choose another file")

    def _refuse_newer_and_damaged(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise self._error(
                f"it was written by a newer Penstock (its version is {version}, and this one knows "
                f"{VERSION}): update Penstock, or choose another file"
            )
        newest = connection.execute("SELECT newest FROM state").fetchone()
        last = connection.execute("SELECT max(position) FROM publications").fetchone()
        if newest is None or (last[0] or 0) != newest[0]:
            raise self._error(_DAMAGED)

    def _take_lock(self) -> None:
        """Take a lock beside the file: SQLite's own let others write between two transactions."""
        if fcntl is None:
            return
        self._lock = Path(f"{self._resolved}-lock").open("ab")  # noqa: SIM115 - held until `close`
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            self._lock = None
            raise self._error(
                "another hub is using it: stop that, or choose another file"
            ) from None

    def _error(self, what: str) -> HistoryError:
        return HistoryError(f"{self.path}: {what}")
