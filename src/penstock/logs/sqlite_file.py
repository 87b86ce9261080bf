"""The file of a log: created, migrated, locked, and told apart from other files.

Rule 1: one hub uses a file at a time, by whatever name: the lock is the file's own, so hard links
share it.

Rule 2: a publication is acknowledged only while the file is where it was opened: what is written to
a file that was deleted or replaced is lost.

Rule 3: a migration is one transaction. Interrupted, the file is as it was.
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

__all__ = ["SIZE", "LogFile", "told"]

# "PnSt": what `file` and SQLite call the application that a database belongs to.
APPLICATION_ID: Final = 0x506E5374
VERSION: Final = 2

# The first that has STRICT tables, the youngest of what is asked of it.
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

# All up to the floor was discarded, whatever its topics. `discarded` is the newest position that
# was discarded for any reason, of a topic or of all; `forgotten` is the highest one of a topic
# whose row was removed.
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

# Version 1 did not know which topics had lost what was discarded by age, count or size: so all may
# have, up to its floor. It counted the bytes of events only.
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

_DAMAGED: Final = "it is damaged: restore a copy, or move it away to begin anew"
_NOT_OURS: Final = "it is not a history of Penstock's: choose another file"
_IN_USE: Final = "another hub is using it: stop that, or choose another file"

# Events may be private: the file is for its owner only, as SQLite then makes those beside it.
_MODE: Final = 0o600

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
    """Turn what SQLite and the system raise into a `LogError` that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        base = "_".join(name.split("_")[:2])
        remedy = _REMEDIES.get(base)
        said = f"{remedy} ({error})" if remedy else str(error)
        raise LogError(f"{path}: {said}") from error
    except OSError as error:
        raise LogError(f"{path}: {error.strerror or error}") from error


@final
class LogFile:
    """A log's file, which one process uses at a time.

    Args:
      path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path: Path = path
        self._resolved = path  # so that all who open it mean the same, whatever changes
        self._locked: int | None = None  # the file's descriptor
        self._inodes: dict[Path, tuple[int, int]] = {}
        self._connection: sqlite3.Connection | None = None

    def open(self) -> sqlite3.Connection:
        """Open the file, or create it, and return the connection that writes.

        Raises:
          LogError: it is not ours, is newer, damaged, or in use.
          sqlite3.Error: it cannot be opened.
          OSError: its lock cannot.
        """
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            needed = ".".join(map(str, _OLDEST_SQLITE))
            raise self._error(
                f"this Python has SQLite {sqlite3.sqlite_version}, and {needed} is needed"
            )
        self._resolved = self.path.resolve()
        if self._resolved.is_dir():
            raise self._error("it is a directory: name a file in it")
        if not self._resolved.parent.is_dir():
            raise self._error("its directory does not exist: make that first")
        self._lock()
        self._connection = connection = sqlite3.connect(
            self._resolved, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        self._migrate(connection)
        self._refuse_damaged(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")  # the first transaction creates the log beside it
        connection.execute("UPDATE state SET floor = floor")
        connection.execute("COMMIT")
        for path in (self._resolved, Path(f"{self._resolved}-wal")):
            self._inodes[path] = _inode(path.stat())
        return connection

    def check_in_place(self) -> None:
        """Refuse to go on with a file that was deleted or replaced.

        Raises:
          LogError: it, or the log beside it, is no longer the one that was opened.
        """
        for path, inode in self._inodes.items():
            try:
                if _inode(path.stat()) == inode:
                    continue
            except FileNotFoundError:
                pass
            raise LogError(
                f"{path}: it was deleted or replaced while in use: restart the server, which opens "
                "or creates it anew"
            )

    def reader(self) -> sqlite3.Connection:
        """Return a connection that only reads.

        Raises:
          LogError: the file is not open.
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
        self._inodes.clear()
        if self._locked is not None:
            os.close(self._locked)
            self._locked = None

    def _refuse_other_files(self, header: bytes) -> None:
        """Refuse what is not ours by its first bytes, before SQLite touches it."""
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
                f"it was written by a newer Penstock (its version is {version}, and this one knows "
                f"{VERSION}): update Penstock, or choose another file"
            )
        if version == 1:
            connection.executescript(f"BEGIN IMMEDIATE; {_FROM_VERSION_1} COMMIT;")

    def _refuse_damaged(self, connection: sqlite3.Connection) -> None:
        newest = connection.execute("SELECT newest FROM state").fetchone()
        last = connection.execute("SELECT max(position) FROM publications").fetchone()
        if newest is None or (last[0] or 0) != newest[0]:
            raise self._error(_DAMAGED)

    def _lock(self) -> None:
        """Open the file, made for its owner only if there is none, and lock it until `close`.

        SQLite's own locks let others write between two transactions. This one is closed after the
        connection: closing any descriptor of a file gives up SQLite's locks on it.
        """
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        self._locked = descriptor = os.open(self._resolved, flags, _MODE)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise self._error("it is not a regular file: choose another one")
        self._refuse_other_files(os.pread(descriptor, _HEADER_SIZE, 0))
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._error(_IN_USE) from None

    def _error(self, what: str) -> LogError:
        return LogError(f"{self.path}: {what}")


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
