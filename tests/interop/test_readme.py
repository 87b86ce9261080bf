"""What the README and the pages of the documentation say is what happens."""

from __future__ import annotations

import ast
import html
import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from docs_blocks import DOCS, PAGES, README, ROOT, blocks_of
from docs_shell import check_session
from faults_rows import ROWS
from hypercorn.config import Config
from processes import PENSTOCK, CurlFixture, Server, serving

from penstock import ServerSentEvent
from penstock.demo import application
from penstock.hypercorn import Settings
from penstock.quart import EventSourceResponse


def blocks(language: str, page: Path = README) -> list[str]:
    return [block.source for block in blocks_of(page) if block.language == language]


@contextmanager
def served(name: str, folder: Path, page: Path = README) -> Iterator[Server]:
    """Save the block that starts with a file's name under that name, and serve its `app`."""
    (source,) = (each for each in blocks("python", page) if each.startswith(f"# {name}.py\n"))
    (folder / f"{name}.py").write_text(source)
    arguments = (PENSTOCK, "serve", f"{name}:app", "--bind", "127.0.0.1:0")
    with serving(*arguments, folder=folder, cwd=folder) as server:
        yield server


def test_the_application_of_ones_own(tmp_path: Path, curl: CurlFixture) -> None:
    """It counts, a second for each."""
    with served("hello", tmp_path) as server:
        client = curl(f"{server.url}/count")
        lines = "".join(next(client.lines).decode() for _ in range(5))
        assert lines == ":\ndata: 0\n\ndata: 1\n\n"


def test_the_application_that_resumes(tmp_path: Path, curl: CurlFixture) -> None:
    """It goes on where the client was, and at the end tells it to stay away."""
    with served("resume", tmp_path, DOCS / "producers.md") as server:
        url = f"{server.url}/countdown"
        client = curl("-H", "Last-Event-ID: 2", url)
        assert re.findall(rb"data: (\d)", client.lines.read()) == [b"1", b"0"]
        client = curl("-i", "-H", "Last-Event-ID: 0", url)
        assert client.lines.readline().startswith(b"HTTP/1.1 204")
        client = curl(url)
        assert [next(client.lines) for _ in range(4)][2:] == [b"id: 10\n", b"event: count\n"]


def test_the_application_with_a_hub(tmp_path: Path, curl: CurlFixture) -> None:
    """Who is there hears a price, and who comes back later what was missed."""
    with served("prices", tmp_path, DOCS / "hub.md") as server:
        first = curl(f"{server.url}/prices")
        assert next(first.lines) == b":\n"
        ids = [
            curl("-d", price, f"{server.url}/prices/tea").lines.read().decode()
            for price in ("3.10", "3.20")
        ]
        heard = ""
        while "data: 3.20\n" not in heard:
            heard += next(first.lines).decode()
        assert re.findall(r"id: (.*)\nevent: price\ndata: (.*)\n", heard) == [
            (ids[0], "3.10"),
            (ids[1], "3.20"),
        ]
    with served("prices", tmp_path, DOCS / "hub.md") as server:
        later = curl("-H", f"Last-Event-ID: {ids[0]}", f"{server.url}/prices")
        missed = b"".join(next(later.lines) for _ in range(4)).decode()
        assert missed == f":\nid: {ids[1]}\nevent: price\ndata: 3.20\n"


class Bare(ast.NodeTransformer):
    """Takes away what a column has no room for: annotations and docstrings."""

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AsyncFunctionDef:
        node.returns = None
        for argument in node.args.args:
            argument.annotation = None
        if ast.get_docstring(node):
            del node.body[0]
        return node


def bare(source: str) -> dict[str, str]:
    functions = Bare().visit(ast.parse(source)).body
    return {f.name: ast.dump(f) for f in functions if isinstance(f, ast.AsyncFunctionDef)}


def test_the_trio_program_is_the_demonstration() -> None:
    """The functions shown are the demonstration's, but for what a column has no room for."""
    (source,) = (each for each in blocks("python", DOCS / "go.md") if "async def send_data" in each)
    shown, real = bare(source), bare(inspect.getsource(application))
    assert set(shown) == {"ping", "send_data", "sse", "ticks"}
    for name, function in shown.items():
        assert function == real[name], name


def test_the_three_lines_are_the_pages() -> None:
    """Documentation and page show the same JavaScript, which `test_browser` tries."""
    page = html.unescape((ROOT / "web" / "demo" / "index.html").read_text())
    (shown,) = blocks("js", DOCS / "producers.md")
    assert len(shown.splitlines()) == 3
    assert shown.strip() in page


def test_the_signatures_are_so() -> None:
    """The two that the reference begins with are those of the code."""
    (shown,) = blocks("text", DOCS / "reference" / "index.md")

    def signature(made: type) -> str:
        parameters = inspect.signature(made).parameters.values()
        bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
        return f"{made.__name__}{inspect.Signature(bare)}\n"

    assert shown == signature(EventSourceResponse) + signature(ServerSentEvent)


def test_the_table_of_modules_is_complete() -> None:
    """Every name that the table of modules gives can be had, and it gives the modules there are."""
    table = (DOCS / "reference" / "index.md").read_text()
    rows = dict(re.findall(r"(?m)^\| `(penstock[\w.]*)` \| (.*) \|$", table))
    modules = ("client", "demo", "hypercorn", "logs", "quart", "testing")
    assert set(rows) == {"penstock", *(f"penstock.{module}" for module in modules)}
    for module, said in rows.items():
        namespace = importlib.import_module(module)
        names = set(re.findall(r"`([A-Za-z_]+)(?:\(.*?\))?`", said)) - {"json"}
        assert names <= set(namespace.__all__), module
        if module == "penstock.quart":
            assert names == set(namespace.__all__)


def test_the_commands_are_sessions() -> None:
    """The two commands, and all others, name sessions that exist; links lead to what does."""
    readme = README.read_text()
    assert {"serve", "tests"} <= set(re.findall(r"nox -s (\w+)", readme))
    named = {name for page in PAGES for name in re.findall(r"nox -s (\w+)", page.read_text())}
    for session in named:
        check_session(session)
    links = re.findall(r"\]\((?!http)([^)]+)\)|(?:src|srcset)=\"([^\"]+)\"", readme)
    assert len(links) > 5
    headings = {
        f"#{line.lower().replace(' ', '-')}" for line in re.findall("(?m)^## (.*)$", readme)
    }
    for target in ("".join(link) for link in links):
        # `nox -s docs` follows what is behind the `#` of another page.
        assert target in headings or (ROOT / target.partition("#")[0]).is_file(), target


def test_the_settings_are_settings() -> None:
    """Those that are named exist, with the defaults that are given; the TOML is taken."""
    page = " ".join((DOCS / "serving.md").read_text().split())
    (table,) = blocks("toml", DOCS / "serving.md")
    config: Any = Config.from_mapping(tomllib.loads(table))
    assert Settings.from_config(config) == Settings(send_timeout=30, drain_window=10)
    listed = page.partition("each with its reason: ")[2].partition("and a few more")[0]
    names = re.findall(r"`(\w+)`", listed)
    assert len(names) > 8
    assert set(names) <= {field.name for field in fields(Settings)}
    guarantee = (DOCS / "cancellation.md").read_text()
    stated = re.findall(r"`(\w+)` \((\d+) s\)", guarantee)
    assert {name for name, _ in stated} >= {"send_timeout", "tcp_user_timeout"}
    for name, seconds in stated:
        assert getattr(Settings(), name) == int(seconds)


def test_the_guarantees_commands_name_rows() -> None:
    """Each line of the table names rows of the faults that exist."""
    named = re.findall(r"`--only ([\w,]+)`", (DOCS / "cancellation.md").read_text())
    assert len(named) == 8
    for name in ",".join(named).split(","):
        assert any(row.number == name or name in row.what for row in ROWS), name
