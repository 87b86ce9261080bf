"""A history in a file: what it is told to use, what the disk does to it, and what it is beside."""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Iterator
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


def publications(*numbers: int, size: int = 10) -> list[Publication]:
    return [
        Publication(ServerSentEvent("x" * size, id=f"id {number}"), ["a"]) for number in numbers
    ]


async def kept(path: Path, **options: Any) -> list[str]:
    """Return the ids that a file has."""
    history = SQLiteHistory(path, **options)
    await history.open()
    page = await history.read(0, history.newest.position, None, count=10**6, size=10**9)
    await history.aclose()
    return [each.id for each in page.publications]


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def open_files() -> set[str]:
    links = list(Path("/proc/self/fd").iterdir())
    return {os.readlink(link) for link in links if link.is_symlink()}


async def refusal(path: Path) -> str:
    """Return why a file cannot be opened; nothing of it must have changed."""
    before = content(path)
    history = SQLiteHistory(path)
    with pytest.raises(HistoryError) as caught:
        await history.open()
    await history.aclose()
    assert content(path) == before
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said.removeprefix(f"{path}: ")


async def made(path: Path, *numbers: int) -> None:
    history = SQLiteHistory(path)
    await history.open()
    await history.append(publications(*numbers))
    await history.aclose()


async def test_a_text_file(tmp_path: Path) -> None:
    """A file that is no database is left as it is."""
    path = tmp_path / "notes.txt"
    path.write_text("Buy milk, and then some more of it.\n" * 100)
    assert await refusal(path) == "it is not a history of Penstock's: choose another file"


async def test_another_programs_database(tmp_path: Path) -> None:
    """So is a database that is not ours."""
    path = tmp_path / "music.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE songs (name)")
    other.close()
    assert await refusal(path) == "it is another program's database: choose another file"
    assert names_in(tmp_path) == ["music.db"]


async def test_another_programs_empty_database(tmp_path: Path) -> None:
    """Even if there is nothing in it yet."""
    path = tmp_path / "music.db"
    other = sqlite3.connect(path)
    other.execute("PRAGMA application_id = 77")
    other.close()
    assert await refusal(path) == "it is another program's database: choose another file"
    assert names_in(tmp_path) == ["music.db"]


async def test_a_newer_version(tmp_path: Path) -> None:
    """So is a history of a later Penstock."""
    path = tmp_path / "events.db"
    await made(path, 1)
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 7")
    newer.close()
    said = await refusal(path)
    assert said.startswith("it was written by a newer Penstock (its version is 7")


async def test_a_damaged_file(tmp_path: Path) -> None:
    """A file that was cut, or overwritten, is told from a whole one."""
    path = tmp_path / "events.db"
    await made(path, *range(2000))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in await refusal(path)
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    assert "damaged" in await refusal(path)
    path.write_bytes(whole[:16] + b"\xff" * 84 + whole[100:])
    await refusal(path)


async def test_damage_that_is_met_later(tmp_path: Path) -> None:
    """What cannot be read is told, and that is all: the rest is read, and more is kept."""
    path = tmp_path / "events.db"
    history = SQLiteHistory(path)
    await history.open()
    await history.append(publications(*range(1, 2001), size=1000))
    await history.aclose()
    pages = path.read_bytes()
    place = pages.index(b"id: id 1000\n") // 4096 * 4096
    path.write_bytes(pages[:place] + b"\xff" * 4096 + pages[place + 4096 :])
    await history.open()
    with pytest.raises(HistoryError, match="it is damaged: restore a copy, or move it away"):
        await history.read(0, 2000, None, count=2000, size=10**9)
    page = await history.read(1990, 2000, None, count=20, size=10**9)
    assert [each.id for each in page.publications] == [f"id {n}" for n in range(1991, 2001)]
    await history.append(publications(2001))
    assert history.newest.position == 2001
    await history.aclose()


async def test_an_old_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SQLite that does not know what is asked of it is named, with what is needed."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    assert "3.37 is needed" in await refusal(tmp_path / "events.db")
    assert names_in(tmp_path) == []


async def test_a_strange_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is a name, whatever it means to SQLite, and wherever the process goes meanwhile."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    for name in (":memory:", "file:x?mode=memory", "a%20b #1"):
        history = SQLiteHistory(name)
        await history.open()
        monkeypatch.chdir(tmp_path / "elsewhere")
        await history.append(publications(1))
        assert await history.locate("id 1") == 1
        await history.aclose()
        monkeypatch.chdir(tmp_path)
        assert await kept(tmp_path / name) == ["id 1"]
    assert names_in(tmp_path / "elsewhere") == []


async def test_an_empty_file_is_begun(tmp_path: Path) -> None:
    """A file without bytes, such as `mktemp` makes, becomes a history."""
    path = tmp_path / "events.db"
    path.touch()
    await made(path, 1)
    assert await kept(path) == ["id 1"]


async def test_no_such_directory(tmp_path: Path) -> None:
    """It says so."""
    said = "its directory does not exist: make that first"
    assert await refusal(tmp_path / "none" / "events.db") == said


async def test_a_directory(tmp_path: Path) -> None:
    """It says so."""
    assert await refusal(tmp_path) == "it is a directory: name a file in it"


async def test_two_hubs(tmp_path: Path) -> None:
    """The second is refused while the first one runs, and not afterwards."""
    path = tmp_path / "events.db"
    history = SQLiteHistory(path)
    await history.open()
    second = SQLiteHistory(path)
    with pytest.raises(HistoryError, match="another hub is using it"):
        await second.open()
    await second.aclose()
    link = tmp_path / "link.db"
    link.symlink_to(path)
    by_its_other_name = SQLiteHistory(link)
    with pytest.raises(HistoryError, match="another hub is using it"):
        await by_its_other_name.open()
    await by_its_other_name.aclose()
    await history.append(publications(1))
    await history.aclose()
    assert await kept(path) == ["id 1"]


async def test_another_program_writes(tmp_path: Path) -> None:
    """An append waits for it, while others read; if that takes long it fails, and later goes on."""
    path = tmp_path / "events.db"
    history = SQLiteHistory(path)
    await history.open()
    await history.append(publications(1))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(history.append, publications(2))
        page = await history.read(0, 1, None, count=10, size=1000)
        assert [each.id for each in page.publications] == ["id 1"]
        assert history.newest.position == 1
        other.execute("ROLLBACK")
    assert history.newest.position == 2
    other.execute("BEGIN IMMEDIATE")
    writer: Any = history._writer
    writer._connection.execute("PRAGMA busy_timeout = 1")
    with pytest.raises(HistoryError, match="another program is using it"):
        await history.append(publications(3))
    other.execute("ROLLBACK")
    other.close()
    await history.append(publications(4))
    await history.aclose()
    assert await kept(path) == ["id 1", "id 2", "id 4"]


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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a disk of one megabyte, where this process may have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.getuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root, to mount a small disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "penstock", folder])
    if mounted.returncode:
        pytest.skip("may not mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


async def test_a_full_disk(small_disk: Path) -> None:
    """Publishing fails, and says why; what was acknowledged stays; with room it goes on."""
    path = small_disk / "events.db"
    acknowledged = []
    async with open_hub(history=SQLiteHistory(path)) as hub:
        (small_disk / "other").write_bytes(b"x" * 500_000)
        async with hub.subscribe(["a"]) as heard:

            async def fill() -> None:
                while True:
                    event = ServerSentEvent("x" * 10_000)
                    acknowledged.append(await hub.publish(event, ["a"]))

            with pytest.raises(HistoryError, match="the disk is full: make room on it") as caught:
                await fill()
            assert "\n" not in str(caught.value)
            with pytest.raises(HistoryError):
                await hub.publish_batch([(ServerSentEvent("x" * 100_000), ["a"])] * 3)
            for id_ in acknowledged:
                assert (await anext(heard)).id == id_
            assert len(acknowledged) > 5
            (small_disk / "other").unlink()
            acknowledged.append(await hub.publish(ServerSentEvent("at last"), ["a"]))
            assert (await anext(heard)).data == "at last"
    assert await kept(path) == acknowledged


async def test_a_disk_that_becomes_read_only(small_disk: Path) -> None:
    """It is refused at the start, and the file is as it was."""
    path = small_disk / "events.db"
    async with open_hub(history=SQLiteHistory(path)) as hub:
        first = await hub.publish(ServerSentEvent("1"), ["a"])
    remount(small_disk, "ro")
    try:
        history = SQLiteHistory(path)
        with pytest.raises(HistoryError, match="Read-only file system"):
            await history.open()
        await history.aclose()
    finally:
        remount(small_disk, "rw")
    assert await kept(path) == [first]


async def test_a_file_that_may_not_be_written(tmp_path: Path) -> None:
    """Publishing fails while it may not, nothing else does, and it recovers."""
    path = tmp_path / "events.db"
    history = SQLiteHistory(path)
    async with open_hub(history=history) as hub:
        first = await hub.publish(ServerSentEvent("1"), ["a"])
        writer: Any = history._writer
        writer._connection.execute("PRAGMA query_only = ON")
        with pytest.raises(HistoryError, match="it cannot be written: see to its permissions"):
            await hub.publish(ServerSentEvent("2"), ["a"])
        async with hub.subscribe(["a"], last_event_id="earliest") as heard:
            assert (await anext(heard)).id == first
        writer._connection.execute("PRAGMA query_only = OFF")
        second = await hub.publish(ServerSentEvent("3"), ["a"])
    assert await kept(path) == [first, second]


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """Be a user to whom permissions apply; give a folder of this user's own."""
    folder = Path(tempfile.mkdtemp())
    user, other = os.geteuid(), 65534
    if user == 0:
        os.chown(folder, other, -1)
        os.seteuid(other)
    try:
        yield folder
    finally:
        os.seteuid(user)
        shutil.rmtree(folder)


def test_a_file_that_may_only_be_read(unprivileged: Path) -> None:
    """It is refused at the start, and not when the first event is published."""

    async def main() -> None:
        path = unprivileged / "events.db"
        history = SQLiteHistory(path)
        await history.open()
        await history.append(publications(1))
        await history.aclose()
        path.chmod(0o444)
        assert await refusal(path) == "Permission denied"
        path.chmod(0o644)
        assert await kept(path) == ["id 1"]

    trio.run(main)


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
