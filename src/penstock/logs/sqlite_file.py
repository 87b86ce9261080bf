"""An SQLite log's file: its schema and migration, its lock, and the checks when it is opened.

Rule 1: one hub uses a file at a time, whatever its name: the lock is on the file itself, so hard
links share it.

Rule 2: a publication is acknowledged only if the file still exists under the path where it was
opened: anything written to a deleted or replaced file is lost.

Rule 3: a migration is one transaction. If it is interrupted, the file is unchanged.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

from penstock.errors import LogError
from penstock.position_ids import KEY_SIZE
from penstock.publication import TOPIC_OVERHEAD

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

__all__ = ["SIZE", "LogFile", "translate_errors"]

# "PnSt": names the application to which a database belongs, for SQLite and the command `file`.
APPLICATION_ID: Final = 0x506E5374
VERSION: Final = 2

# The first version with STRICT tables, the newest feature used here.
_OLDEST_SQLITE: Final = (3, 37)

# Spec: https://sqlite.org/fileformat2.html#the_database_header
_MAGIC: Final = b"SQLite format 3\0"
_HEADER_SIZE: Final = 100
_APPLICATION_ID_AT: Final = slice(68, 72)

# `Publication.size` of a row: topics are joined with LF, which they cannot contain.
SIZE: Final = (
    "(length(wire) + length(CAST(topics AS BLOB)) "
    f"+ {TOPIC_OVERHEAD} * (1 + length(topics) - length(replace(topics, char(10), ''))))"
)

_STATE: Final = """\
CREATE TABLE state (
    floor INTEGER NOT NULL,
    kept INTEGER NOT NULL,
    size INTEGER NOT NULL,
    newest INTEGER NOT NULL,
    newest_id TEXT,
    discarded INTEGER NOT NULL,
    discarded_id TEXT,
    forgotten INTEGER NOT NULL,
    key BLOB NOT NULL
) STRICT;
"""

# Everything up to `floor` is discarded, on all topics. `discarded` is the newest position discarded
# for any reason, of a topic or of the log; `forgotten` is the highest of a topic whose row was
# deleted. `kept` and `size` count the publications and their bytes.
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
    discarded INTEGER NOT NULL,
    discarded_id TEXT
) STRICT;
CREATE INDEX empty_topics ON topics (discarded) WHERE kept = 0;
CREATE TABLE on_topic (
    number INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (number, position)
) STRICT, WITHOUT ROWID;
{_STATE}INSERT INTO state VALUES (0, 0, 0, 0, NULL, 0, NULL, 0, randomblob({KEY_SIZE}));
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""

# Version 1 does not have the topics of publications that were discarded by age, count or size: up
# to its floor, any topic may have lost some. It counts the bytes of events only.
_FROM_VERSION_1: Final = f"""
ALTER TABLE topics RENAME COLUMN mark TO discarded;
ALTER TABLE topics ADD COLUMN discarded_id TEXT;
UPDATE topics SET discarded = max(discarded, (SELECT floor FROM state));
ALTER TABLE state RENAME TO state_1;
{_STATE}INSERT INTO state
    SELECT floor, kept, (SELECT coalesce(sum({SIZE}), 0) FROM publications), newest, newest_id,
        max(floor, marked), NULL, max(floor, forgotten), randomblob({KEY_SIZE})
    FROM state_1;
DROP TABLE state_1;
PRAGMA user_version = {VERSION};
"""

_DAMAGED: Final = "it is damaged: restore a copy, or move it away to start an empty history"
_NOT_OURS: Final = "it is not a Penstock history: choose another file"
_IN_USE: Final = "another hub is using it: stop that hub, or choose another file"

# Events may be private, so only the owner has access; SQLite creates its other files likewise.
_MODE: Final = 0o600

_REMEDIES: Final = {
    "SQLITE_FULL": "the disk is full: free some space",
    "SQLITE_READONLY": "it cannot be written: check its permissions, and its directory's",
    "SQLITE_CANTOPEN": "it cannot be opened: check that its directory exists, and permissions",
    "SQLITE_PERM": "it cannot be opened: check its permissions",
    "SQLITE_IOERR": "the disk failed to read or write",
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_NOTADB": _NOT_OURS,
    "SQLITE_BUSY": "another program is using it",
    "SQLITE_LOCKED": "another program is using it",
}


@contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and the system into a `LogError` with a remedy."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        base = "_".join(name.split("_")[:2])
        remedy = _REMEDIES.get(base)
        message = f"{remedy} ({error})" if remedy else str(error)
        raise LogError(f"{path}: {message}") from error
    except OSError as error:
        raise LogError(f"{path}: {error.strerror or error}") from error


@final
class LogFile:
    """A log's file, which one process uses at a time.

    Args:
      path: the file's path.
    """

    def __init__(self, path: Path) -> None:
        self.path: Path = path
        self._resolved = path  # so that every connection opens the same file, whatever changes
        self._locked: int | None = None  # the descriptor that holds the lock
        self._inodes: dict[Path, tuple[int, int]] = {}
        self._connection: sqlite3.Connection | None = None

    def open(self) -> sqlite3.Connection:
        """Open the file, or create it, and return the connection that writes.

        Raises:
          LogError: it is not a log, is of a newer version, damaged, or in use.
          sqlite3.Error: it cannot be opened.
          OSError: it cannot be locked.
        """
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            needed = ".".join(map(str, _OLDEST_SQLITE))
            raise self._error(
                f"this Python has SQLite {sqlite3.sqlite_version}, but {needed} is needed"
            )
        self._resolved = self.path.resolve()
        if self._resolved.is_dir():
            raise self._error("it is a directory: name a file in it")
        if not self._resolved.parent.is_dir():
            raise self._error("its directory does not exist: create it first")
        self._lock()
        self._connection = connection = sqlite3.connect(
            self._resolved, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        self._migrate(connection)
        self._check_intact(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")  # the first transaction creates the -wal file
        connection.execute("UPDATE state SET floor = floor")
        connection.execute("COMMIT")
        for path in (self._resolved, Path(f"{self._resolved}-wal")):
            self._inodes[path] = _inode(path.stat())
        return connection

    def check_in_place(self) -> None:
        """Refuse a file that was deleted or replaced after it was opened.

        Raises:
          LogError: the file, or its ``-wal`` file, is no longer the one that was opened.
        """
        for path, inode in self._inodes.items():
            try:
                if _inode(path.stat()) == inode:
                    continue
            except FileNotFoundError:
                pass
            raise LogError(
                f"{path}: it was deleted or replaced while in use: restart the server to open or "
                "create it again"
            )

    def reader(self) -> sqlite3.Connection:
        """Return a connection that only reads.

        Raises:
          LogError: the file is not open.
          sqlite3.Error: it cannot be opened.
        """
        if self._connection is None:
            raise self._error("it is closed: run its hub to open it")
        return sqlite3.connect(
            f"{self._resolved.as_uri()}?mode=ro",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )

    def close(self) -> None:
        """Close the file, and release its lock."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._inodes.clear()
        if self._locked is not None:
            os.close(self._locked)
            self._locked = None

    def _check_ours(self, header: bytes) -> None:
        """Refuse other programs' files by their first bytes, before SQLite touches them."""
        if not header:
            return
        if not header.startswith(_MAGIC):
            raise self._error(_NOT_OURS)
        if int.from_bytes(header[_APPLICATION_ID_AT], "big") != APPLICATION_ID:
            raise self._error("it is another program's database: choose another file")

    def _migrate(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise self._error(
                f"it was written by a newer Penstock (its version is {version}, this Penstock "
                f"supports up to {VERSION}): update Penstock, or choose another file"
            )
        if version == 1:
            connection.executescript(f"BEGIN IMMEDIATE; {_FROM_VERSION_1} COMMIT;")

    def _check_intact(self, connection: sqlite3.Connection) -> None:
        newest = connection.execute("SELECT newest FROM state").fetchone()
        last = connection.execute("SELECT max(position) FROM publications").fetchone()
        if newest is None or (last[0] or 0) != newest[0]:
            raise self._error(_DAMAGED)

    def _lock(self) -> None:
        """Open the file, or create it for its owner only, and lock it until `close`.

        SQLite's own locks would let others write between two transactions. The descriptor is closed
        after the connection: closing any descriptor of a file releases SQLite's locks on it.
        """
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        self._locked = descriptor = os.open(self._resolved, flags, _MODE)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise self._error("it is not a regular file: choose another file")
        self._check_ours(os.pread(descriptor, _HEADER_SIZE, 0))
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._error(_IN_USE) from None

    def _error(self, what: str) -> LogError:
        return LogError(f"{self.path}: {what}")


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
