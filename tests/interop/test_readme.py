"""What the README shows is what happens."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from processes import PENSTOCK, CurlFixture, Server, serving

from penstock import demo

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", README)


@contextmanager
def served(name: str, folder: Path) -> Iterator[Server]:
    """Save the block that starts with a file's name under that name, and serve its `app`."""
    (source,) = (block for block in blocks("python") if block.startswith(f"# {name}.py\n"))
    (folder / f"{name}.py").write_text(source)
    arguments = (PENSTOCK, "serve", f"{name}:app", "--bind", "127.0.0.1:0")
    with serving(*arguments, folder=folder, cwd=folder) as server:
        yield server


def test_the_application_of_ones_own(tmp_path: Path, curl: CurlFixture) -> None:
    """It counts, a second for each."""
    with served("hello", tmp_path) as server:
        client = curl(f"{server.url}/count")
        lines = "".join(next(client.lines).decode() for _ in range(8))
        assert lines == ":\n\nid: 0\ndata: 0\n\nid: 1\ndata: 1\n\n"


def test_the_application_that_resumes(tmp_path: Path, curl: CurlFixture) -> None:
    """It goes on where the client was, and at the end tells it to stay away."""
    with served("resume", tmp_path) as server:
        url = f"{server.url}/countdown"
        client = curl("-H", "Last-Event-ID: 2", url)
        assert re.findall(rb"data: (\d)", client.lines.read()) == [b"1", b"0"]
        client = curl("-i", "-H", "Last-Event-ID: 0", url)
        assert client.lines.readline().startswith(b"HTTP/1.1 204")
        client = curl(url)
        assert [next(client.lines) for _ in range(6)][4:] == [b"id: 10\n", b"event: count\n"]


async def test_the_test_of_a_producer() -> None:
    """It passes as it stands."""
    (source,) = (block for block in blocks("python") if "test_countdown" in block)
    names: dict[str, object] = {}
    exec(source, names)
    test = names["test_countdown"]
    assert callable(test)
    with trio.fail_after(5):
        await test()


@pytest.mark.parametrize("name", ["ping", "send_data", "sse", "ticks"])
def test_the_trio_program_is_the_demonstration(name: str) -> None:
    """The README's lines are the demonstration's, but for what a column has no room for."""
    (source,) = (block for block in blocks("python") if "async def send_data" in block)
    shown = re.search(rf"(?ms)^async def {name}\(.*?(?=^\S|\Z)", source)
    assert shown is not None

    def words(code: str) -> set[str]:
        return set(re.findall(r"[A-Za-z_]\w+", code))

    used = inspect.getsource(getattr(demo, name))
    assert words(shown.group()) - {"event"} <= words(used) | {"event"}


def test_the_table_of_modules_is_complete() -> None:
    """Every name that the table of modules gives can be had."""
    table = README.partition("## What there is")[2].partition("## What Penstock")[0]
    for module, names in re.findall(r"(?m)^\| `(penstock[\w.]*)` \| (.*) \|$", table):
        namespace = __import__(module, fromlist=["x"])
        for name in re.findall(r"`([A-Za-z_]+)(?:\(.*?\))?`", names):
            if name != "json":
                assert hasattr(namespace, name), (module, name)


def test_the_commands_are_sessions() -> None:
    """The two commands name sessions that exist, and links lead to files that do."""
    listed = subprocess.run(
        [sys.executable, "-m", "nox", "-l"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    for session in re.findall(r"nox -s (\w+)", README):
        assert f"{session} ->" in listed.stdout, session
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).exists(), target
