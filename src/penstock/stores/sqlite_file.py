"""The file of a history: made, opened, told from other files, and locked."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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

_MAGIC: Final = b"SQLite format 3\0"

# Topics are joined with LF, which they cannot contain. A topic's mark is the newest position that
# was discarded from it alone; what comes up to the floor was discarded, whatever its topics.
_SCHEMA: Final = f"""
CREATE TABLE publications (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    at REAL NOT NULL,
    topics TEXT NOT NULL,
    wire BLOB NOT NULL
) STRICT;
CREATE INDEX by_id ON publications (id, position);
CREATE TABLE topics (
    number INTEGER PRIMARY KEY,
    topic TEXT NOT NULL UNIQUE,
    mark INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX by_mark ON topics (mark);
CREATE TABLE on_topic (
    number INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (number, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE state (
    floor INTEGER NOT NULL,
    count INTEGER NOT NULL,
    size INTEGER NOT NULL,
    newest INTEGER NOT NULL,
    newest_id TEXT
) STRICT;
INSERT INTO state VALUES (0, 0, 0, 0, NULL);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""

_REMEDIES: Final = {
    "SQLITE_FULL": "the disk is full: make room on it",
    "SQLITE_READONLY": "it cannot be written: see to its permissions, and its directory's",
    "SQLITE_CANTOPEN": "it cannot be opened: see that its directory exists, and to permissions",
    "SQLITE_PERM": "it cannot be opened: see to its permissions",
    "SQLITE_IOERR": "the disk does not work as it should",
    "SQLITE_CORRUPT": "it is damaged: restore a copy, or move it away to begin anew",
    "SQLITE_NOTADB": "it is not a history of Penstock's: choose another file",
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
        self._lock: Any = None
        self._connection: sqlite3.Connection | None = None

    def open(self) -> sqlite3.Connection:
        """Open the file, or make it, and return the connection that writes.

        Raises:
          HistoryError: it is not ours, is newer, damaged, or in use.
          sqlite3.Error: it cannot be opened.
          OSError: its lock cannot.
        """
        self._refuse_other_files()
        self._take_lock()
        self._connection = connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        self._refuse_other_databases(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def reader(self) -> sqlite3.Connection:
        """Return a connection that only reads."""
        reader = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        reader.execute("PRAGMA query_only = ON")
        return reader

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _refuse_other_files(self) -> None:
        if self.path.is_dir():
            raise HistoryError(f"{self.path}: it is a directory: name a file in it")
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            begin = file.read(len(_MAGIC))
            if begin and begin != _MAGIC:
                raise HistoryError(
                    f"{self.path}: it is not a history of Penstock's: choose another file"
                )

    def _refuse_other_databases(self, connection: sqlite3.Connection) -> None:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if application != APPLICATION_ID:
            raise HistoryError(
                f"{self.path}: it is another program's database: choose another file"
            )
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise HistoryError(
                f"{self.path}: it was written by a newer Penstock (its version is {version}, and "
                f"this one knows {VERSION}): update Penstock, or choose another file"
            )
        newest = connection.execute("SELECT newest FROM state").fetchone()
        last = connection.execute("SELECT max(position) FROM publications").fetchone()
        if newest is None or (last[0] or 0) != newest[0]:
            raise HistoryError(
                f"{self.path}: it is damaged: restore a copy, or move it away to begin anew"
            )

    def _take_lock(self) -> None:
        """Take a lock beside the file: SQLite's own let others write between two transactions."""
        if fcntl is None:
            return
        self._lock = Path(f"{self.path}-lock").open("ab")  # noqa: SIM115 - held until `close`
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            self._lock = None
            raise HistoryError(
                f"{self.path}: another hub is using it: stop that, or choose another file"
            ) from None
