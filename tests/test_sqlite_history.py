"""A history in a file: what it is told to use, what the disk does to it, and what it is beside."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from penstock.errors import HistoryError
from penstock.event import ServerSentEvent
from penstock.history import Newest
from penstock.hub import open_hub
from penstock.publication import Publication
from penstock.stores import SQLiteHistory


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


async def test_an_empty_file_is_begun(tmp_path: Path) -> None:
    """A file without bytes, such as `mktemp` makes, becomes a history."""
    path = tmp_path / "events.db"
    path.touch()
    await made(path, 1)
    assert await kept(path) == ["id 1"]


async def test_no_such_directory(tmp_path: Path) -> None:
    """It says so."""
    assert await refusal(tmp_path / "none" / "events.db") == "No such file or directory"


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
    await history.append(publications(1))
    await history.aclose()
    assert await kept(path) == ["id 1"]


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
    now += 20
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
    """The same: publishing fails while it is, subscribers are served, and it recovers."""
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


async def test_nothing_is_left_open(tmp_path: Path) -> None:
    """Closed, it holds no file; only the database and its lock are left beside it."""
    path = tmp_path / "events.db"
    await made(path, 1)
    assert await kept(path) == ["id 1"]
    assert names_in(tmp_path) == ["events.db", "events.db-lock"]
    assert not any(name.startswith(str(tmp_path)) for name in open_files())
