"""The history in a file: what is kept, how long, what it costs, what a failed append leaves."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from penstock.errors import HistoryError
from penstock.event import ServerSentEvent
from penstock.history import Newest
from penstock.hub import open_hub
from penstock.publication import Publication
from penstock.stores import SQLiteHistory, sqlite_writer
from sqlite_steps import kept, made, names_in, open_files, publications


async def test_closing_waits_for_who_reads(tmp_path: Path) -> None:
    """Nothing is open when it is closed, and what comes too late is told so."""
    path = tmp_path / "events.db"
    reading, go_on = threading.Event(), threading.Event()

    def clock() -> float:
        reading.set()
        assert go_on.wait(10)
        return 0.0

    go_on.set()
    history = SQLiteHistory(path, age=60, clock=clock)
    await history.open()
    await history.append(publications(1))
    go_on.clear()
    reading.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(history.locate, "id 1")
        await trio.to_thread.run_sync(reading.wait)
        nursery.start_soon(history.aclose)
        await trio.testing.wait_all_tasks_blocked()
        assert any(name.startswith(str(tmp_path)) for name in open_files())
        go_on.set()
    assert not any(name.startswith(str(tmp_path)) for name in open_files())
    with pytest.raises(HistoryError, match="it is closed"):
        await history.locate("id 1")
    assert not any(name.startswith(str(tmp_path)) for name in open_files())


async def test_much_that_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes little by little, so that nobody waits for it; none of it is returned meanwhile."""
    monkeypatch.setattr(sqlite_writer, "_AT_ONCE", 10)
    now = 1000.0
    history = SQLiteHistory(tmp_path / "events.db", age=60, clock=lambda: now)
    await history.open()
    await history.append(publications(*range(1, 101)))
    now += 100

    async def read() -> tuple[list[str], bool]:
        page = await history.read(0, history.newest.position, None, count=1000, size=10**6)
        return [each.id for each in page.publications], page.lost

    assert await read() == (["id 100"], True)
    young: list[str] = []
    for number, figures in ((101, 89), (102, 78), (103, 67)):
        await history.append(publications(number))
        young.append(f"id {number}")
        assert await read() == (young, True)
        assert await history.locate("id 99") is None
        assert history.statistics().publications == figures
    await history.append(publications(*range(104, 140)))
    assert history.statistics().publications == 39
    await history.aclose()


async def test_marks_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of topics that have nothing left it forgets the oldest: they may have lost something."""
    monkeypatch.setattr(sqlite_writer, "_EMPTY_TOPICS", 50)
    history = SQLiteHistory(tmp_path / "events.db", per_topic=10)
    await history.open()

    async def append(number: int) -> None:
        event = ServerSentEvent("x", id=f"id {number}")
        await history.append([Publication(event, ["all", f"topic {number}"])])

    async def lost(after: int, topic: str) -> bool:
        until = history.newest.position
        return (await history.read(after, until, frozenset([topic]), count=1, size=1)).lost

    for number in range(1, 301):
        await append(number)
    writer: Any = history._writer
    (topics,) = writer._connection.execute("SELECT count(*) FROM topics").fetchone()
    assert topics < 120
    for topic in ("topic 1", "topic 150", "topic 290"):
        assert await lost(0, topic)
        assert not await lost(295, topic)
    await history.aclose()
    await history.open()
    await append(1)
    assert await lost(0, "topic 1")
    await history.aclose()


async def test_the_age_outlives_the_process(tmp_path: Path) -> None:
    """What was too old when it was opened again is not returned."""
    now = 1000.0
    path = tmp_path / "events.db"
    history = SQLiteHistory(path, age=60, clock=lambda: now)
    await history.open()
    await history.append(publications(1))
    now += 50
    await history.append(publications(2))
    await history.aclose()
    now += 10
    assert await kept(path, age=60, clock=lambda: now) == ["id 1", "id 2"]
    now += 10
    await history.open()
    page = await history.read(0, 2, None, count=10, size=1000)
    assert ([each.id for each in page.publications], page.lost) == (["id 2"], True)
    assert await history.locate("id 1") is None
    await history.append(publications(3))
    assert history.statistics().publications == 2
    await history.aclose()


async def test_many_publish_together(tmp_path: Path) -> None:
    """Each learns of its own commit, and there are far fewer commits than publications."""
    path = tmp_path / "events.db"
    history = SQLiteHistory(path)
    ids = []
    async with open_hub(history=history) as hub:

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
    history = SQLiteHistory(path, count=3)
    await history.open()
    await history.append(publications(1, 2))
    before = history.statistics()
    text: Any = "text, which the column refuses"
    broken = [*publications(3), Publication.restored("id 4", ("new topic",), text)]
    with pytest.raises(HistoryError):
        await history.append(broken)
    assert history.statistics() == before
    await history.append(publications(5, 6))
    assert history.newest == Newest(4, "id 6")
    await history.aclose()
    assert await kept(path) == ["id 2", "id 5", "id 6"]


async def test_an_append_that_fails_at_its_end_leaves_nothing(tmp_path: Path) -> None:
    """Not in memory, either: what comes next is kept as if there had been none."""
    path = tmp_path / "events.db"
    history = SQLiteHistory(path, count=3, per_topic=2)
    await history.open()
    await history.append(publications(1, 2))
    before = history.statistics()
    writer: Any = history._writer
    writer._connection.execute(
        "CREATE TEMP TRIGGER late BEFORE UPDATE ON state BEGIN SELECT RAISE(ABORT, 'late'); END"
    )
    new = [Publication(ServerSentEvent(id=f"id {n}", data="x"), ["new", "a"]) for n in (3, 4, 5)]
    with pytest.raises(HistoryError, match="late"):
        await history.append(new)
    assert history.statistics() == before
    writer._connection.execute("DROP TRIGGER late")
    await history.append([])
    assert history.statistics() == before
    await history.append(new[:1])
    assert history.newest == Newest(3, "id 3")
    assert history.statistics().publications == 2
    page = await history.read(0, 3, frozenset(["new"]), count=10, size=1000)
    assert ([each.id for each in page.publications], page.lost) == (["id 3"], False)
    await history.aclose()
    assert await kept(path) == ["id 2", "id 3"]


async def test_topics_that_went_are_forgotten(tmp_path: Path) -> None:
    """The file has topics for what it keeps, and no more, whatever there was."""
    history = SQLiteHistory(tmp_path / "events.db", count=5, per_topic=2)
    await history.open()
    for number in range(100):
        event = ServerSentEvent("x", id=f"id {number}")
        await history.append([Publication(event, [f"topic {number}", f"other {number // 2}"])])
    writer: Any = history._writer
    (topics,) = writer._connection.execute("SELECT count(*) FROM topics").fetchone()
    assert topics == 5 + 3
    await history.aclose()


async def test_a_resume_costs_what_it_returns(tmp_path: Path) -> None:
    """In steps of SQLite's machine: out of fifty times as much no more than a little more."""
    steps: dict[int, int] = {}
    for stored in (1000, 50_000):
        history = SQLiteHistory(tmp_path / f"{stored}.db", age=3600, per_topic=stored)
        await history.open()
        await history.append(publications(*range(stored)))
        await history.locate("")
        taken = itertools.count()
        reader: Any = history._readers[0]
        # It goes on when it is told 0 or None.
        reader.set_progress_handler(lambda taken=taken: next(taken) and None, 1)
        for topics in (None, frozenset("a"), frozenset(["a", "b", "none"])):
            after = await history.locate(f"id {stored - 200}")
            assert after == stored - 199
            page = await history.read(after, stored, topics, count=100, size=10**6)
            assert len(page.publications) == 100
        steps[stored] = next(taken)
        await history.aclose()
    assert 1000 < steps[50_000] < 1.5 * steps[1000], steps


async def test_nothing_is_left_open(tmp_path: Path) -> None:
    """Closed, it holds no file; only the database and its lock are left beside it."""
    path = tmp_path / "events.db"
    await made(path, 1)
    assert await kept(path) == ["id 1"]
    assert names_in(tmp_path) == ["events.db", "events.db-lock"]
    assert not any(name.startswith(str(tmp_path)) for name in open_files())
