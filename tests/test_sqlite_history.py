"""The history in a file: what is kept, how long, what it costs, what a failed append leaves."""

# Positions of these logs are 1, 2, …: they are counted here, as nobody else may.
# mypy: disable-error-code="arg-type, return-value"

from __future__ import annotations

import itertools
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from penstock.errors import LogError
from penstock.event import ServerSentEvent
from penstock.hub import open_hub
from penstock.logs import SQLiteLog, sqlite_file, sqlite_writer
from penstock.logs.log import Newest
from penstock.publication import Publication
from penstock.selection import EVERY_TOPIC, select
from sqlite_steps import kept, made, modes_in, names_in, open_files, publications


async def test_closing_waits_for_who_reads(tmp_path: Path) -> None:
    """Nothing is open when it is closed, and what comes too late is told so."""
    path = tmp_path / "events.db"
    reading, go_on = threading.Event(), threading.Event()

    def clock() -> float:
        reading.set()
        assert go_on.wait(10)
        return 0.0

    go_on.set()
    history = SQLiteLog(path, age=60, clock=clock)
    await history.open()
    await history.append(publications(1))
    go_on.clear()
    reading.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(history.locate, "id 1", EVERY_TOPIC)
        await trio.to_thread.run_sync(reading.wait)
        nursery.start_soon(history.aclose)
        await trio.testing.wait_all_tasks_blocked()
        assert any(name.startswith(str(tmp_path)) for name in open_files())
        go_on.set()
    assert not any(name.startswith(str(tmp_path)) for name in open_files())
    with pytest.raises(LogError, match="it is closed"):
        await history.locate("id 1", EVERY_TOPIC)
    assert not any(name.startswith(str(tmp_path)) for name in open_files())


async def test_much_that_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes little by little, so that nobody waits for it; none of it is returned meanwhile."""
    monkeypatch.setattr(sqlite_writer, "_MAX_DISCARDED", 10)
    now = 1000.0
    history = SQLiteLog(tmp_path / "events.db", age=60, clock=lambda: now)
    await history.open()
    await history.append(publications(*range(1, 101)))
    now += 100

    async def read() -> tuple[list[str], int]:
        page = await history.read(0, history.newest.position, EVERY_TOPIC, count=1000, size=10**6)
        return [each.id for each in page.publications], page.discarded_until

    assert await read() == (["id 100"], 99)
    young: list[str] = []
    for number, figures in ((101, 89), (102, 78), (103, 67)):
        await history.append(publications(number))
        young.append(f"id {number}")
        assert await read() == (young, 100)
        assert await history.locate("id 99", EVERY_TOPIC) is None
        assert await history.locate("id 100", EVERY_TOPIC) == 100
        assert history.statistics().publications == figures
    await history.append(publications(*range(104, 140)))
    assert history.statistics().publications == 39
    await history.aclose()


async def test_what_is_remembered_of_topics_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest silent topics are forgotten: they may have lost something."""
    monkeypatch.setattr(sqlite_writer, "_EMPTY_TOPICS", 50)
    history = SQLiteLog(tmp_path / "events.db", count=10)
    await history.open()

    async def append(number: int) -> None:
        event = ServerSentEvent("x", id=f"id {number}")
        await history.append([Publication(event, ["all", f"topic {number}"])])

    async def discarded_until(topic: str) -> int:
        until = history.newest.position
        return (await history.read(0, until, select([topic]), count=1, size=1)).discarded_until

    async def located(number: int) -> int | None:
        return await history.locate(f"id {number}", select([f"topic {number}"]))

    for number in range(1, 501):
        await append(number)
    writer: Any = history._writer
    (topics,) = writer._connection.execute("SELECT count(*) FROM topics").fetchone()
    assert topics < 220
    forgotten = await discarded_until("topic 1")
    assert 300 < forgotten < 450
    assert await discarded_until("topic 150") == await discarded_until("new") == forgotten
    assert await discarded_until("topic 480") == 480
    assert (await located(480), await located(150)) == (480, None)
    await history.aclose()
    await history.open()
    assert (await located(480), await located(150)) == (480, None)
    await append(1)
    assert await discarded_until("topic 1") == forgotten
    await history.aclose()


async def test_the_age_outlives_the_process(tmp_path: Path) -> None:
    """What was too old when it was opened again is not returned."""
    now = 1000.0
    path = tmp_path / "events.db"
    history = SQLiteLog(path, age=60, clock=lambda: now)
    await history.open()
    await history.append(publications(1))
    now += 50
    await history.append(publications(2))
    await history.aclose()
    now += 10
    assert await kept(path, age=60, clock=lambda: now) == ["id 1", "id 2"]
    now += 10
    await history.open()
    page = await history.read(0, 2, EVERY_TOPIC, count=10, size=1000)
    assert ([each.id for each in page.publications], page.discarded_until) == (["id 2"], 1)
    assert await history.locate("id 1", EVERY_TOPIC) == 1
    await history.append(publications(3))
    assert history.statistics().publications == 2
    await history.aclose()


async def test_many_publish_together(tmp_path: Path) -> None:
    """Each learns of its own commit, and there are far fewer commits than publications."""
    path = tmp_path / "events.db"
    history = SQLiteLog(path)
    ids = []
    async with open_hub(log=history) as hub:

        async def publish() -> None:
            for _ in range(10):
                ids.append(await hub.publish(ServerSentEvent("x"), ["a"]))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(publish)
    assert sorted(await kept(path)) == sorted(ids)
    assert len(set(ids)) == 500


async def test_a_failed_append_leaves_nothing(tmp_path: Path) -> None:
    """All or nothing: figures and positions are as before, and are given to the next ones."""
    path = tmp_path / "events.db"
    history = SQLiteLog(path, count=3)
    await history.open()
    await history.append(publications(1, 2))
    before = history.statistics()
    text: Any = "text, which the column refuses"
    broken = [*publications(3), Publication.from_log("id 4", ("new topic",), b"")]
    broken[1].wire = text
    with pytest.raises(LogError):
        await history.append(broken)
    assert history.statistics() == before
    await history.append(publications(5, 6))
    assert history.newest == Newest(4, "id 6")
    await history.aclose()
    assert await kept(path) == ["id 2", "id 5", "id 6"]


async def test_an_append_that_fails_at_its_end_leaves_nothing(tmp_path: Path) -> None:
    """Not in memory, either: what comes next is kept as if there had been none."""
    path = tmp_path / "events.db"
    history = SQLiteLog(path, count=3, per_topic=2)
    await history.open()
    await history.append(publications(1, 2))
    before = history.statistics()
    writer: Any = history._writer
    writer._connection.execute(
        "CREATE TEMP TRIGGER late BEFORE UPDATE ON state BEGIN SELECT RAISE(ABORT, 'late'); END"
    )
    new = [Publication(ServerSentEvent(id=f"id {n}", data="x"), ["new", "a"]) for n in (3, 4, 5)]
    with pytest.raises(LogError, match="late"):
        await history.append(new)
    assert history.statistics() == before
    writer._connection.execute("DROP TRIGGER late")
    await history.append([])
    assert history.statistics() == before
    await history.append(new[:1])
    assert history.newest == Newest(3, "id 3")
    assert history.statistics().publications == 2
    page = await history.read(0, 3, select(["new"]), count=10, size=1000)
    assert ([each.id for each in page.publications], page.discarded_until) == (["id 3"], 0)
    await history.aclose()
    assert await kept(path) == ["id 2", "id 3"]


async def test_a_resume_costs_what_it_returns(tmp_path: Path) -> None:
    """In steps of SQLite's machine: out of fifty times as much no more than a little more."""
    steps: dict[int, int] = {}
    for stored in (1000, 50_000):
        history = SQLiteLog(tmp_path / f"{stored}.db", age=3600, per_topic=stored)
        await history.open()
        await history.append(publications(*range(stored)))
        await history.locate("", EVERY_TOPIC)
        taken = itertools.count()
        reader: Any = history._readers[0]
        # It goes on when it is told 0 or None.
        reader.set_progress_handler(lambda taken=taken: next(taken) and None, 1)
        for selection in (EVERY_TOPIC, select(["a"]), select(["a", "b", "none"])):
            after = await history.locate(f"id {stored - 200}", selection)
            assert after == stored - 199
            page = await history.read(after, stored, selection, count=100, size=10**6)
            assert len(page.publications) == 100
        steps[stored] = next(taken)
        await history.aclose()
    assert 1000 < steps[50_000] < 1.5 * steps[1000], steps


async def test_nothing_is_left_open(tmp_path: Path) -> None:
    """Closed, it holds no file; only the database is left."""
    path = tmp_path / "events.db"
    await made(path, 1)
    assert await kept(path) == ["id 1"]
    assert names_in(tmp_path) == ["events.db"]
    assert not any(name.startswith(str(tmp_path)) for name in open_files())


async def test_it_is_for_its_owner_only(tmp_path: Path) -> None:
    """Events may be private: nobody else reads the file, nor what SQLite makes beside it."""
    history = SQLiteLog(tmp_path / "events.db")
    before = os.umask(0)
    try:
        await history.open()
        await history.append(publications(1))
    finally:
        os.umask(before)
    assert modes_in(tmp_path) == {
        "events.db": 0o600,
        "events.db-wal": 0o600,
        "events.db-shm": 0o600,
    }
    await history.aclose()


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_was_deleted_is_an_error(
    tmp_path: Path, suffix: str, replaced: bool
) -> None:
    """What would be written to a file without a name is not acknowledged."""
    path = tmp_path / "events.db"
    history = SQLiteLog(path)
    await history.open()
    await history.append(publications(1))
    gone = tmp_path / f"events.db{suffix}"
    gone.rename(tmp_path / "elsewhere")
    if replaced:
        gone.touch()
    with pytest.raises(LogError, match="was deleted or replaced while in use: restart"):
        await history.append(publications(2))
    assert history.newest == Newest(1, "id 1")
    await history.aclose()


async def test_a_file_of_version_1_is_migrated(tmp_path: Path) -> None:
    """What 0.1.0 wrote is kept; what it had discarded may be missing on any topic."""
    path = tmp_path / "events.db"
    write_version_1(path)
    history = SQLiteLog(path)
    await history.open()
    assert history.newest == Newest(4, "id 4")
    each = [Publication(ServerSentEvent("x", id=f"id {n}"), ["a", "b"]) for n in (3, 4)]
    assert history.statistics().bytes == sum(one.size for one in each)
    key = history.key
    for selection in (EVERY_TOPIC, select(["a"]), select(["b", "c"])):
        page = await history.read(0, 4, selection, count=10, size=10_000)
        assert (page.publications, page.discarded_until) == (each, 2)
    page = await history.read(0, 4, select(["c"]), count=10, size=10_000)
    assert (page.publications, page.discarded_until) == ([], 2)
    await history.append(publications(5))
    await history.aclose()
    await history.open()
    assert (history.key, history.newest) == (key, Newest(5, "id 5"))
    await history.aclose()


async def test_an_interrupted_migration_leaves_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one transaction: the file is then as 0.1.0 left it, and is migrated later."""
    path = tmp_path / "events.db"
    write_version_1(path)
    script = sqlite_file._FROM_VERSION_1
    for statement in range(1, script.count(";")):
        part = ";".join(script.split(";")[:statement])
        monkeypatch.setattr(sqlite_file, "_FROM_VERSION_1", f"{part}; SELECT nothing;")
        history = SQLiteLog(path)
        with pytest.raises(LogError):
            await history.open()
        await history.aclose()
        with closing(sqlite3.connect(path)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            state = connection.execute("SELECT * FROM state").fetchone()
        assert (version, state) == (1, (2, 2, 30, 4, "id 4", 0, 0))
    monkeypatch.undo()
    assert await kept(path) == ["id 3", "id 4"]


def write_version_1(path: Path) -> None:
    """Write the file that 0.1.0 wrote for four publications on "a" and "b" with ``count=2``."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)


# Of `sqlite3 events.db .dump`, after 0.1.0 had closed the file.
VERSION_1 = """
PRAGMA journal_mode = WAL;
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
INSERT INTO state VALUES (2, 2, 30, 4, 'id 4', 0, 0);
INSERT INTO publications VALUES (3, 'id 3', 1000.0, 'a' || char(10) || 'b',
    CAST('id: id 3' || char(10) || 'data: x' || char(10, 10) AS BLOB));
INSERT INTO publications VALUES (4, 'id 4', 1000.0, 'a' || char(10) || 'b',
    CAST('id: id 4' || char(10) || 'data: x' || char(10, 10) AS BLOB));
INSERT INTO topics VALUES (1, 'a', 2, 0), (2, 'b', 2, 0);
INSERT INTO on_topic VALUES (1, 3), (2, 3), (1, 4), (2, 4);
PRAGMA application_id = 1349407604;
PRAGMA user_version = 1;
"""
