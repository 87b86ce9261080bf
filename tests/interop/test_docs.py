"""What the README and the pages of the documentation show is run, block by block."""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docs_blocks import DOCS, PAGES, README, ROOT, Block, blocks_of
from docs_fetched import fetched
from docs_python import ELSEWHERE, run_python
from docs_shell import run_shell
from forked import run
from hypercorn.config import Config
from playwright.sync_api import Page
from processes import PENSTOCK

from penstock.hypercorn import Settings

BLOCKS = [block for page in PAGES for block in blocks_of(page)]

# What is not run here, and why. Everything else is, and a language that is unknown is a failure.
EXEMPT = {
    "text": "a picture, what a program prints, or what is quoted of a line",
    "go": "`nox -s docs` compiles it: tests/interop/docs_go.py",
    "nginx": "a part of a configuration of web/docs/proxies, which other tests run",
    "caddy": "as nginx",
    "caddyfile": "as nginx",
    "haproxy": "as nginx",
}


def _run_toml(block: Block, folder: Path) -> None:
    table: Any = tomllib.loads(block.source)
    if "penstock" in table:
        Settings.from_config(Config.from_mapping(table))


def _run_json(block: Block, folder: Path) -> None:
    json.loads(block.source)


def _run_ini(block: Block, folder: Path) -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.read_string(block.source)
    assert unit.sections()


RUN: dict[str, Callable[[Block, Path], None]] = {
    "python": run_python,
    "sh": run_shell,
    "toml": _run_toml,
    "json": _run_json,
    "ini": _run_ini,
}


def check(block: Block, folder: Path, page: Callable[[], Page]) -> None:
    """Run a block, by its language."""
    if block.language in EXEMPT or block.language.startswith("{"):  # `{toctree}`: Sphinx's own
        return
    if block.language == "js":
        page().evaluate("source => { new Function(source) }", block.source)
    elif block.language == "html":
        page().set_content(block.source)
    else:
        assert block.language in RUN, f"nobody runs {block.language!r}"
        RUN[block.language](block, folder)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_each_block_runs(block: Block, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """What a page shows does what the page says, or at least runs."""
    check(block, tmp_path, lambda: request.getfixturevalue("page"))


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("python", "raise SystemExit(3)\n"),
        ("python", "from quart_trio import QuartTrio\napp = QuartTrio(__name__)\n"),
        ("python", "def test_it():\n    assert False\n"),
        ("python", "import warnings\nwarnings.warn('it is old')\n"),
        ("sh", "rm -rf /nothing/at/all\n"),
        ("sh", "penstock publish http://127.0.0.1:8080/publish Hello\n"),
        ("sh", "python -m nox -s nothing\n"),
        ("sh", "penstock serve nothing:app\n"),
        ("sh", "penstock doctor --nothing http://127.0.0.1:8080/sse\n"),
        ("sh", "penstock doctor --nothing https://example.org/\n"),
        ("toml", "[penstock]\nsend_timout = 3\n"),
        ("json", "{'a': 1}\n"),
        ("ini", "nothing\n"),
        ("js", "const = 3\n"),
        ("bash", "true\n"),
        ("", "nothing\n"),
    ],
)
def test_a_block_that_is_wrong_fails(
    language: str, source: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Code that is broken, and a language that nobody runs, are found."""
    (block,) = blocks_of(README, f"text\n\n```{language}\n{source}```\n")
    with pytest.raises(Exception):  # noqa: PT011 - each fails in its own way
        check(block, tmp_path, lambda: request.getfixturevalue("page"))


def test_the_blocks_are_found() -> None:
    """All fences are part of a block, and what is tested elsewhere is there."""
    for page in PAGES:
        fences = re.findall(r"(?m)^ *(?:```|~~~)", page.read_text())
        assert len(fences) == 2 * len(blocks_of(page)), page
    for start, test in ELSEWHERE.items():
        assert len([block for block in BLOCKS if block.source.startswith(start)]) == 1
        module, _, name = test.partition(".")
        assert f"def {name}(" in (ROOT / f"tests/interop/{module}.py").read_text()


def test_what_stands_twice_is_the_same() -> None:
    """The guarantee and the limits are the same word for word; the figures are some of all."""
    readme = README.read_text()

    def part(text: str, start: str, end: str) -> str:
        return text.partition(f"## {start}\n")[2].partition(f"\n## {end}\n")[0].strip()

    guarantee = part(readme, "The guarantee", "How fast it is")
    assert len(guarantee) > 1000
    assert guarantee in (DOCS / "cancellation.md").read_text()
    limits = part(readme, "What Penstock does not do", "Working on it")
    assert len(limits) > 1000
    assert limits in (DOCS / "limits.md").read_text()
    figures = (DOCS / "figures.md").read_text()
    rows = re.findall(r"(?m)^\|.*\|$", part(readme, "How fast it is", "What Penstock does not do"))
    assert len(rows) > 10
    assert all(row in figures for row in rows)


def test_the_options_of_serve_are_told() -> None:
    """The page on serving has each option of `penstock serve`, with its default, and no other."""
    told = run(PENSTOCK, "serve", "--help").stdout.decode()
    options = set(re.findall(r"--[a-z][a-z0-9-]+", told.partition("Examples:")[0]))
    page = (DOCS / "serving.md").read_text()
    rows = dict(re.findall(r"(?m)^\| (`--.*?) \| (.*?) \|", page))
    named = {option for row in rows for option in re.findall(r"--[a-z][a-z0-9-]+", row)}
    assert named == options - {"--help", "--no-http2"}
    for option in ("send_timeout", "drain_window", "reconnect_spread"):
        row = f"`--{option.replace('_', '-')}`"
        assert rows[row] == f"{getattr(Settings(), option):g} s"


def test_what_a_page_fetches_is_found() -> None:
    """A script, style, font or picture from elsewhere is found; a link is none of them."""
    page = """<a href="https://example.org/">x</a> <script src="//cdn.example.org/x.js"></script>
      <link rel="stylesheet" href="https://example.org/x.css"> <img src="_static/x.svg">
      <link rel="canonical" href="https://example.org/page"> <style>@import "https://a/x";</style>"""
    assert fetched(page) == ["https://a/x", "//cdn.example.org/x.js", "https://example.org/x.css"]
    style = 'a { background: url("https://a/x.png") } b { background: url(data:x) }'
    assert fetched(style, style=True) == ["https://a/x.png"]
