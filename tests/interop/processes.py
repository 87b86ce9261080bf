"""Servers as a user starts them: processes of their own, read through their output."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Self, TypeVar

import forked

from require import require

T = TypeVar("T")

BIN = Path(sys.executable).parent
PENSTOCK = forked.PENSTOCK
HYPERCORN = forked.HYPERCORN
UVICORN = str(BIN / "uvicorn")

# Seconds within which anything that is waited for has to happen. How fast it is on an idle machine
# is measured elsewhere; here a machine may be busy with other things.
PATIENCE = 60.0


def wait_until(condition: Callable[[], T | None], *, within: float = PATIENCE) -> T:
    """Return a condition's value soon after it is true; fail if it does not become so in time.

    The longer it takes, the more seldom it is looked at: to look, at a page say, takes time that
    a busy machine may need to make it true.
    """
    began = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - began
        assert waited < within, f"not within {within} s"
        time.sleep(min(0.005 + waited / 10, 0.1))
    return value


_ports = count(os.getpid())  # so that two runs on one machine seldom try the same


def free_port() -> int:
    """Return a port on which nothing listens, and that nothing else is given meanwhile.

    It is below those that the kernel hands out by itself, and none of another worker's of this
    test run.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = 20_000 + 1000 * worker + next(_ports) % 1000
        try:
            with closing(socket.create_server(("127.0.0.1", port))):
                return port
        except OSError:
            continue


class Server:
    """A server process, its address, and what it has written so far."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path, log: Path) -> None:
        self.process = process
        self._output = output
        self._log = log

    @property
    def output(self) -> str:
        """What the process has written to stdout."""
        return self._output.read_text()

    @property
    def log(self) -> str:
        """What the process has written to stderr."""
        return self._log.read_text()

    @property
    def url(self) -> str:
        """The first address it says it listens on."""

        def said() -> re.Match[str] | None:
            assert self.process.poll() is None, self.output + self.log
            return re.search(r"https?://[^\s/)]+", self.output + self.log)

        return wait_until(said).group()

    @property
    def port(self) -> int:
        """The port of that address."""
        return int(self.url.rpartition(":")[2])

    def wait_for_log(self, pattern: str, *, within: float = PATIENCE) -> re.Match[str]:
        """Return the first match of a pattern in the log, waiting for it."""
        return wait_until(lambda: re.search(pattern, self.log), within=within)

    def stop(self, number: signal.Signals = signal.SIGTERM, *, within: float = PATIENCE) -> int:
        """Send a signal, and return the process's status when it has ended."""
        self.process.send_signal(number)
        return self.process.wait(timeout=within)


@contextmanager
def serving(*command: str, folder: Path, cwd: Path | None = None) -> Iterator[Server]:
    """Run a server for the length of the block; at its end, kill it and all that it started.

    It has a process group of its own: workers outlive a master that is killed.
    """
    number = len(list(folder.glob("*.out")))
    output, log = folder / f"server{number}.out", folder / f"server{number}.err"
    # Unbuffered output would hide that a line is not flushed.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with output.open("wb") as out, log.open("wb") as err:
        process = forked.Process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
    try:
        yield Server(process, output, log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Curl:
    """A `curl -N` that reads one URL; leave its block to make it go away."""

    def __init__(self, *arguments: str) -> None:
        program = require("curl", install="apt-get install curl")
        self._process = subprocess.Popen([program, "-sN", *arguments], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.lines = self._process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.go_away()

    def go_away(self) -> None:
        """Kill it: the kernel closes its connection."""
        self._process.kill()
        self._process.wait()
        self.lines.close()

    def status(self) -> int:
        """Return its exit status when it has ended: 0 after a proper end, 18 after none."""
        return self._process.wait(timeout=PATIENCE)


CurlFixture = Callable[..., Curl]
