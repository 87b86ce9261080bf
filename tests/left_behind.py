"""A test run leaves nothing behind: no process that a test started, and no socket that listens."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest

_PR_SET_CHILD_SUBREAPER = 36

# Lines about what was left, of this process or, in a run of several, of all its workers.
_LEFT = pytest.StashKey[list[str]]()


class Left:
    """What this process's tests started, and after which test each was first seen."""

    def __init__(self) -> None:
        self._first_seen: dict[str, str] = {}

    def note(self, test: str) -> None:
        """Note what there is after a test; fixtures may still need it."""
        for name in (*map(str, descendants()), *listening(os.getpid())):
            self._first_seen.setdefault(name, test)

    def end(self) -> list[str]:
        """Kill the processes that are there, and say what each is; and what listens."""
        lines = [
            f"socket {address} listens in the test process, since {self._since(address)}"
            for address in listening(os.getpid())
        ]
        for pid in descendants():
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            addresses = ", ".join(listening(pid))
            where = f", listening on {addresses}" if addresses else ""
            lines.append(f"process {pid} ({command.strip()}){where}, since {self._since(str(pid))}")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):  # another process is its parent, and waits for it
                os.waitpid(pid, 0)
        return lines

    def _since(self, name: str) -> str:
        return self._first_seen.get(name, "the end of the run")


def descendants() -> list[int]:
    """Return the running processes below this one; zombies are not among them.

    Orphans are among them: this process adopts them, see `pytest_configure`.
    """
    found: list[int] = []
    parents = [os.getpid()]
    while parents:
        for path in Path(f"/proc/{parents.pop()}/task").glob("*/children"):
            try:
                children = [int(pid) for pid in path.read_text().split()]
            except OSError:
                continue
            parents += children
            found += filter(_runs, children)
    return found


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# A line of the kernel's table; another program's socket may have a name of several.
UNIX = re.compile(
    r"^[0-9a-fA-F]+: \S+ \S+ (?P<flags>[0-9A-F]+) \S+ \S+ +(?P<inode>\d+)(?: (?P<name>.*))?$",
    re.MULTILINE,
)


def listening(pid: int) -> list[str]:
    """Return the addresses on which a process listens."""
    inodes = set()
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return []
    for descriptor in descriptors:
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    if not inodes:
        return []
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:  # TCP_LISTEN
                found.append(f"port {int(fields[1].rpartition(':')[2], 16)}")
    for match in UNIX.finditer(Path("/proc/net/unix").read_text(errors="replace")):
        if int(match["flags"], 16) & 0x10000 and match["inode"] in inodes:  # __SO_ACCEPTCON
            found.append(match["name"] or "an unnamed socket")
    return found


def pytest_configure(config: pytest.Config) -> None:
    """Adopt orphans: the children of a process that ended before them are then found.

    In a parallel run, the process that runs no tests adopts those of a worker that crashed.
    """
    config.stash[_LEFT] = []
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        config.pluginmanager.register(_Watch(config), "left-behind")


class _Watch:
    """Watches the tests that run in this process."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._left = Left()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        try:
            return (yield)
        finally:
            self._left.note(item.nodeid)

    # After pytest's own, which tears down the fixtures that are still there.
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        lines = self._left.end()
        self._config.stash[_LEFT] += lines
        if (output := getattr(self._config, "workeroutput", None)) is not None:
            output["left_behind"] = lines
        elif lines:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Take what a worker of a parallel run left."""
    config: pytest.Config = node.config  # type: ignore[attr-defined]
    config.stash[_LEFT] += getattr(node, "workeroutput", {}).get("left_behind", [])


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that left something."""
    if session.config.stash[_LEFT]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name what was left."""
    if lines := config.stash[_LEFT]:
        terminalreporter.section("left behind by the tests", red=True, bold=True)
        for line in lines:
            terminalreporter.line(line)
