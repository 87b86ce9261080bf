"""What the tests do with a history in a file: fill it, look into it, be refused."""

# Positions of these logs are 1, 2, …: they are counted here, as nobody else may.
# mypy: disable-error-code="arg-type, return-value"

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import LogError
from penstock.event import ServerSentEvent
from penstock.logs import SQLiteLog
from penstock.publication import Publication
from penstock.selection import EVERY_TOPIC


def publications(*numbers: int, size: int = 10) -> list[Publication]:
    return [
        Publication(ServerSentEvent("x" * size, id=f"id {number}"), ["a"]) for number in numbers
    ]


async def kept(path: Path, **options: Any) -> list[str]:
    """Return the ids that a file has."""
    history = SQLiteLog(path, **options)
    await history.open()
    page = await history.read(0, history.newest.position, EVERY_TOPIC, count=10**6, size=10**9)
    await history.aclose()
    return [each.id for each in page.publications]


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def modes_in(folder: Path) -> dict[str, int]:
    return {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}


def open_files() -> set[str]:
    links = list(Path("/proc/self/fd").iterdir())
    return {os.readlink(link) for link in links if link.is_symlink()}


async def refusal(path: Path) -> str:
    """Return why a file cannot be opened; nothing of it must have changed."""
    before = content(path)
    history = SQLiteLog(path)
    with pytest.raises(LogError) as caught:
        await history.open()
    await history.aclose()
    assert content(path) == before
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said.removeprefix(f"{path}: ")


async def made(path: Path, *numbers: int) -> None:
    history = SQLiteLog(path)
    await history.open()
    await history.append(publications(*numbers))
    await history.aclose()
