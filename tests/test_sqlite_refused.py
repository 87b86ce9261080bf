"""Files that are no history of ours, or not ours alone: refused with a reason, and untouched."""

# Positions of these logs are 1, 2, …: they are counted here, as nobody else may.
# mypy: disable-error-code="arg-type, return-value"

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from penstock.errors import LogError
from penstock.logs import SQLiteLog
from penstock.selection import EVERY_TOPIC
from sqlite_steps import kept, made, names_in, publications, refusal


async def test_a_text_file(tmp_path: Path) -> None:
    """A file that is no database is left as it is."""
    path = tmp_path / "notes.txt"
    path.write_text("Buy milk, and then some more of it.\n" * 100)
    assert await refusal(path) == "it is not a Penstock history: choose another file"


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
    history = SQLiteLog(path)
    await history.open()
    await history.append(publications(*range(1, 2001), size=1000))
    await history.aclose()
    pages = path.read_bytes()
    place = pages.index(b"id: id 1000\n") // 4096 * 4096
    path.write_bytes(pages[:place] + b"\xff" * 4096 + pages[place + 4096 :])
    await history.open()
    with pytest.raises(LogError, match="it is damaged: restore a copy, or move it away"):
        await history.read(0, 2000, EVERY_TOPIC, count=2000, size=10**9)
    page = await history.read(1990, 2000, EVERY_TOPIC, count=20, size=10**9)
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
        history = SQLiteLog(name)
        await history.open()
        monkeypatch.chdir(tmp_path / "elsewhere")
        await history.append(publications(1))
        assert await history.locate("id 1", EVERY_TOPIC) == 1
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
    said = "its directory does not exist: create it first"
    assert await refusal(tmp_path / "none" / "events.db") == said


async def test_a_directory(tmp_path: Path) -> None:
    """It says so."""
    assert await refusal(tmp_path) == "it is a directory: name a file in it"


async def test_two_hubs(tmp_path: Path) -> None:
    """The second is refused while the first one runs, and not afterwards."""
    path = tmp_path / "events.db"
    history = SQLiteLog(path)
    await history.open()
    second = SQLiteLog(path)
    with pytest.raises(LogError, match="another hub is using it"):
        await second.open()
    await second.aclose()
    link = tmp_path / "link.db"
    link.symlink_to(path)
    by_its_other_name = SQLiteLog(link)
    with pytest.raises(LogError, match="another hub is using it"):
        await by_its_other_name.open()
    await by_its_other_name.aclose()
    hard_link = tmp_path / "hard.db"
    hard_link.hardlink_to(path)
    by_its_inode = SQLiteLog(hard_link)
    with pytest.raises(LogError, match="another hub is using it"):
        await by_its_inode.open()
    await by_its_inode.aclose()
    hard_link.unlink()
    await history.append(publications(1))
    await history.aclose()
    assert await kept(path) == ["id 1"]


async def test_another_program_writes(tmp_path: Path) -> None:
    """An append waits for it, while others read; if that takes long it fails, and later goes on."""
    path = tmp_path / "events.db"
    history = SQLiteLog(path)
    await history.open()
    await history.append(publications(1))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(history.append, publications(2))
        page = await history.read(0, 1, EVERY_TOPIC, count=10, size=1000)
        assert [each.id for each in page.publications] == ["id 1"]
        assert history.newest.position == 1
        other.execute("ROLLBACK")
    assert history.newest.position == 2
    other.execute("BEGIN IMMEDIATE")
    writer: Any = history._writer
    writer._connection.execute("PRAGMA busy_timeout = 1")
    with pytest.raises(LogError, match="another program is using it"):
        await history.append(publications(3))
    other.execute("ROLLBACK")
    other.close()
    await history.append(publications(4))
    await history.aclose()
    assert await kept(path) == ["id 1", "id 2", "id 4"]
