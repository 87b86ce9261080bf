"""Hypercorn's own tests, run twice: on Hypercorn as released, and with Penstock's classes in place.

    python upstream.py [SDIST]

SDIST is Hypercorn's source archive; without it, pip downloads the one of the installed version.
Exit status 1: a test fails with Penstock that does not fail without, a test was not run, or a class
was not in place.

Each of the two is run several times over, since some of these tests race against a clock of ten
milliseconds: a test has failed if it failed in any run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# What concerns the Trio worker and the protocols. Not tests/asyncio: that worker is not replaced.
FOLDERS: Final = ("tests/trio", "tests/protocol", "tests/e2e")

# Tests that may fail with Penstock alone, each with the reason why that is right.
ALLOWED: Final[Mapping[str, str]] = {
    "tests.protocol.test_h11::test_protocol_handle_max_incomplete": (
        "a head that is too long is 431, by one limit in bytes, and not 400"
    ),
    "tests.protocol.test_h11::test_protocol_handle_h2c_upgrade": (
        "the upgrade's settings, which h2 would refuse, are 400 before it is promised"
    ),
    "tests.protocol.test_h11::test_protocol_handle_send_client_error": (
        "a refused request has its line in the access log, for which a mock has no time"
    ),
    "tests.protocol.test_h11::test_protocol_handle_protocol_error": (
        "a refused request ends the idle time before it is answered"
    ),
    "tests.protocol.test_h2::test_protocol_handle_protocol_error": (
        "the frames are cut before h2 sees them, and the connection says GOAWAY before it closes"
    ),
    "tests.protocol.test_h2::test_protocol_keep_alive_max_requests": (
        "requests after the last one are refused; the streams that are open go on"
    ),
}

# Seconds: the whole of the tests takes three, and a test by itself less than one.
RUN_LIMIT: Final = 180
TEST_LIMIT: Final = 20

PLUGIN: Final = "penstock_in_place"


@dataclass
class Results:
    """What became of each test, over several runs."""

    name: str
    ran: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    used: dict[str, list[str]] = field(default_factory=dict)

    def add(self, report: Path) -> None:
        """Add one run's JUnit report."""
        for case in ElementTree.parse(report).iter("testcase"):
            test = f"{case.get('classname')}::{case.get('name')}"
            self.ran.add(test)
            for outcome in case:
                if outcome.tag in ("failure", "error"):
                    self.failed.setdefault(test, _last_line(outcome))
                elif outcome.tag == "skipped":
                    self.skipped.add(test)

    def row(self) -> str:
        """Return the table's row."""
        failed, skipped = len(self.failed), len(self.skipped - set(self.failed))
        passed = len(self.ran) - failed - skipped
        return f"{self.name:<28}{len(self.ran):>7}{passed:>8}{failed:>8}{skipped:>9}"


def _last_line(outcome: ElementTree.Element) -> str:
    lines = (outcome.get("message") or outcome.text or "").strip().splitlines() or ["?"]
    return lines[0][:160]


def main() -> int:
    """Run both, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(description="Run Hypercorn's own tests on Penstock.")
    parser.add_argument("sdist", nargs="?", type=Path, help="Hypercorn's source archive")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each [default: 3]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = _unpack(options.sdist or _download(folder), folder / "source")
        stock, ours = Results("stock"), Results("with Penstock's classes")
        for run in range(options.repeat):
            for results, plugin in ((stock, None), (ours, PLUGIN)):
                if not _run_tests(source, results, plugin, folder / f"{run}{plugin}"):
                    return 1
    return _compare(stock, ours)


def _download(folder: Path) -> Path:
    """Have pip download the source archive of the version that is installed."""
    version = importlib.metadata.version("hypercorn")
    pip = [sys.executable, "-m", "pip", "--quiet", "download", f"hypercorn=={version}"]
    subprocess.run(
        [*pip, "--no-binary", "hypercorn", "--no-deps", "--dest", str(folder)],
        check=True,
        timeout=RUN_LIMIT,
    )
    (archive,) = folder.glob("[Hh]ypercorn-*.tar.gz")
    return archive


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack the archive's tests, without its `src`: what is tested is what is installed."""
    shutil.unpack_archive(archive, folder)
    (source,) = folder.iterdir()
    version = importlib.metadata.version("hypercorn")
    if not source.name.endswith(f"-{version}"):
        raise SystemExit(f"{source.name} is not the installed version, {version}")
    shutil.rmtree(source / "src")
    return source


def _run_tests(source: Path, results: Results, plugin: str | None, report: Path) -> bool:
    """Run the tests once; False, with what pytest said, if there is no result."""
    files = sorted(str(path.relative_to(source)) for path in source.glob("tests/test_*.py"))
    command = [sys.executable, "-m", "pytest", "-q", *FOLDERS, *files]
    command += ["-o", "addopts=--strict-markers", "-p", "no:cacheprovider"]
    command += [f"--junitxml={report}.xml", f"--timeout={TEST_LIMIT}"]
    env = dict(os.environ, PENSTOCK_IN_PLACE_REPORT=f"{report}.json")
    if plugin is not None:
        command += ["-p", plugin]
        env["PYTHONPATH"] = str(Path(__file__).parent)
    try:
        done = subprocess.run(
            command, cwd=source, env=env, capture_output=True, text=True, timeout=RUN_LIMIT
        )
    except subprocess.TimeoutExpired:
        print(f"{results.name}: not done within {RUN_LIMIT} s")
        return False
    xml, in_place = Path(f"{report}.xml"), Path(f"{report}.json")
    # 0: all passed, 1: some failed; anything else is pytest's own trouble, or a module's.
    if done.returncode not in (0, 1) or not xml.exists():
        print(f"{results.name}: pytest ended with {done.returncode}\n{done.stdout}{done.stderr}")
        if not xml.exists():
            return False
    results.add(xml)
    if in_place.exists():
        said = json.loads(in_place.read_text())
        results.missing, results.used = said["missing"], said["used"]
    elif plugin is not None:
        results.missing = ["the plugin left no report"]
    return True


def _compare(stock: Results, ours: Results) -> int:
    """Print the table and what differs; return the exit status."""
    print(f"{'':<28}{'tests':>7}{'passed':>8}{'failed':>8}{'skipped':>9}")
    print(stock.row())
    print(ours.row())
    for path, modules in sorted(ours.used.items()):
        print(f"in place: {path}, in {', '.join(modules) or 'no module by name'}")
    for test in sorted(set(stock.failed) & set(ours.failed)):
        print(f"fails on both: {test}: {stock.failed[test]}")
    for test in sorted(set(stock.failed) - set(ours.failed)):
        print(f"fails on stock alone: {test}: {stock.failed[test]}")

    new = sorted(set(ours.failed) - set(stock.failed))
    wrong = [
        *(f"not in place: {path}" for path in ours.missing),
        *(f"not run with Penstock: {test}" for test in sorted(stock.ran - ours.ran)),
        *(f"skipped with Penstock: {test}" for test in sorted(ours.skipped - stock.skipped)),
        *(f"FAILS WITH PENSTOCK: {test}: {ours.failed[test]}" for test in new if _counts(test)),
    ]
    for test in (test for test in new if not _counts(test)):
        print(f"allowed to fail: {test}: {ALLOWED[test]}")
    print("\n".join(wrong) if wrong else "No test fails with Penstock that passes without.")
    return 1 if wrong else 0


def _counts(test: str) -> bool:
    return test not in ALLOWED


if __name__ == "__main__":
    sys.exit(main())
