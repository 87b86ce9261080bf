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
from quart_trio import QuartTrio

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
    "yaml": "a manifest, for which no test has a cluster; its times are checked below",
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


def test_each_table_stands_once() -> None:
    """No row of a table is repeated on another page: other pages link to it."""
    homes: dict[str, Path] = {}
    for page in PAGES:
        rows = re.findall(r"(?m)^\|.*\d.*\|$", page.read_text())
        repeated = [row for row in rows if homes.setdefault(row, page) != page]
        assert repeated == [], page
    assert len(homes) > 100


def test_the_figures_of_the_readme_are_measured() -> None:
    """Each figure of the README's paragraph on performance is in a row of the benchmarks."""
    said = README.read_text().partition("## Performance\n")[2].partition("\n## ")[0]
    figures = re.findall(r"[\d,]+ (?:ms|kB)|[\d,]+(?= deliveries)", said)
    assert len(figures) == 7
    rows = re.findall(r"(?m)^\|.*\|$", (DOCS / "benchmarks.md").read_text())
    for figure in figures:
        assert any(f"| {figure} |" in row for row in rows), figure


def test_the_manifest_leaves_time_to_stop() -> None:
    """Kubernetes kills no pod before its hook, the drain and the application's end are over."""
    page = " ".join((DOCS / "kubernetes.md").read_text().split())
    (block,) = (block for block in blocks_of(DOCS / "kubernetes.md") if block.language == "yaml")
    hook = int(re.findall(r'command: \[sleep, "(\d+)"\]', block.source)[0])
    drain = int(re.findall(r'--drain-window, "(\d+)"', block.source)[0])
    grace = int(re.findall(r"terminationGracePeriodSeconds: (\d+)", block.source)[0])
    end = QuartTrio("shop").config["BACKGROUND_TASK_SHUTDOWN_TIMEOUT"]
    assert f"{hook} + {drain} + {end} + {grace - hook - drain - end} in this example" in page
    assert grace - hook - drain - end > 0


def test_the_files_that_pages_name_exist() -> None:
    """A path of the repository, or of a module of the package, leads to something."""
    for page in PAGES:
        text = page.read_text()
        for path in re.findall(r"`((?:src|tests|web)/[\w/.*-]+)`", text):
            assert list(ROOT.glob(path)), f"{page.name}: {path}"
        for path in re.findall(r"`([a-z0-9_]+(?:/[a-z0-9_]+)+\.py)`", text):
            if not path.startswith("tests/"):
                assert (ROOT / "src" / "penstock" / path).is_file(), f"{page.name}: {path}"


def test_the_tree_of_folders_is_complete() -> None:
    """The page for contributors has a line for each folder of the package, and for no other."""
    (tree,) = (block for block in blocks_of(DOCS / "contributing.md") if block.language == "text")
    package = tree.source.partition("src/penstock/\n")[2].partition("\nweb/")[0]
    names = re.findall(r"(?m)^  ([a-z]+)/ ", package)
    names += [f"hypercorn/{name}" for name in re.findall(r"(?m)^    ([a-z]+)/ ", package)]
    folders = (ROOT / "src" / "penstock").glob("**/__init__.py")
    packages = {str(path.parent.relative_to(ROOT / "src" / "penstock")) for path in folders}
    within = {name for name in packages if "/" not in name or name.startswith("hypercorn/")}
    assert set(names) == within - {"."}


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
