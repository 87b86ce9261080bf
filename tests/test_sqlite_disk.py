"""Disks that fill up or may not be written: told, overcome, and nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from penstock.errors import LogError
from penstock.event import ServerSentEvent
from penstock.hub import open_hub
from penstock.logs import SQLiteLog
from sqlite_steps import kept, publications, refusal, remount


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
    async with open_hub(log=SQLiteLog(path)) as hub:
        (small_disk / "other").write_bytes(b"x" * 500_000)
        async with hub.subscribe(["a"]) as heard:

            async def fill() -> None:
                while True:
                    event = ServerSentEvent("x" * 10_000)
                    acknowledged.append(await hub.publish(event, ["a"]))

            with pytest.raises(LogError, match="the disk is full: free some space") as caught:
                await fill()
            assert "\n" not in str(caught.value)
            with pytest.raises(LogError):
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
    async with open_hub(log=SQLiteLog(path)) as hub:
        first = await hub.publish(ServerSentEvent("1"), ["a"])
    remount(small_disk, "ro")
    try:
        history = SQLiteLog(path)
        with pytest.raises(LogError, match="Read-only file system"):
            await history.open()
        await history.aclose()
    finally:
        remount(small_disk, "rw")
    assert await kept(path) == [first]


async def test_a_file_that_may_not_be_written(tmp_path: Path) -> None:
    """Publishing fails while it may not, nothing else does, and it recovers."""
    path = tmp_path / "events.db"
    history = SQLiteLog(path)
    async with open_hub(log=history) as hub:
        first = await hub.publish(ServerSentEvent("1"), ["a"])
        writer: Any = history._writer
        writer._connection.execute("PRAGMA query_only = ON")
        with pytest.raises(LogError, match="it cannot be written: check its permissions"):
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
        history = SQLiteLog(path)
        await history.open()
        await history.append(publications(1))
        await history.aclose()
        path.chmod(0o444)
        assert await refusal(path) == "Permission denied"
        path.chmod(0o644)
        assert await kept(path) == ["id 1"]

    trio.run(main)
