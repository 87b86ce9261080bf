"""What is compared: each server's command, and how it is started on a core of its own."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

__all__ = [
    "BACKLOG",
    "SERVERS",
    "BenchError",
    "Server",
    "ServerProcess",
    "go",
    "penstock",
    "serving",
    "uvicorn",
]

HERE: Final = Path(__file__).parent
BIN: Final = Path(sys.executable).parent

# As many connections as Penstock lets wait, for each of them: none is refused for its lack.
BACKLOG: Final = 4096

# Seconds until a server answers its first request.
START_LIMIT: Final = 20.0


class BenchError(Exception):
    """A server or the load client did not do its part; the message is one line, or a log's end."""


@dataclass(frozen=True)
class Server:
    """One of the servers compared.

    Args:
      name: in the tables and on the command line.
      command: takes the port to listen on, and the folder of the Go programs.
      most: not measured with more clients than this, because it is saturated.
      ready: what it answers 200 to when it runs.
    """

    name: str
    command: Callable[[int, Path], list[str]]
    most: int | None = None
    ready: str = "/idle"


def go(program: str, port: int, programs: Path) -> list[str]:
    """Return the command that runs a Go program."""
    return [str(programs / program), f"127.0.0.1:{port}"]


def uvicorn(app: str, port: int, programs: Path) -> list[str]:
    """Return the command that serves an app with uvicorn."""
    command = [str(BIN / "uvicorn"), "--host=127.0.0.1", f"--port={port}", f"--backlog={BACKLOG}"]
    return [*command, "--log-level=warning", "--no-access-log", app]


def penstock(app: str, port: int, programs: Path) -> list[str]:
    """Return the command that serves an app with Penstock."""
    return [str(BIN / "penstock"), "serve", f"--bind=127.0.0.1:{port}", app]


def _stock(port: int, programs: Path) -> list[str]:
    hypercorn = [str(BIN / "hypercorn"), "-k", "trio", "-w", "0", "--backlog", str(BACKLOG)]
    return [*hypercorn, "--bind", f"127.0.0.1:{port}", "bench_penstock:app"]


SERVERS: Final = {
    server.name: server
    for server in (
        Server("go", partial(go, "server")),
        Server("sse-starlette", partial(uvicorn, "bench_starlette:app")),
        Server("penstock", partial(penstock, "bench_penstock:app")),
        Server("stock", _stock, most=1000),
    )
}


class ServerProcess:
    """A server that runs, and what the kernel says of its process."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.port = port
        self._process = process
        self._log = log

    def rss(self) -> int:
        """Return the memory it has in RAM, in bytes."""
        for line in self._read("smaps_rollup").splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
        raise self.failure("has no Rss")

    def cpu(self) -> float:
        """Return the CPU time it has used, user's and system's, in seconds."""
        after_name = self._read("stat").rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")

    def waited(self) -> float:
        """Return how long its threads were ready to run while others had the core, in seconds."""
        tasks = os.listdir(f"/proc/{self._process.pid}/task")
        return sum(int(self._read(f"task/{task}/schedstat").split()[1]) for task in tasks) / 1e9

    def wait_until_it_answers(self, path: str) -> None:
        """Wait for an answer to a request, which also loads what is loaded with the first one."""
        deadline = time.monotonic() + START_LIMIT
        while True:
            if self._process.poll() is not None:
                raise self.failure("did not start")
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", path)
                if (status := connection.getresponse().status) != 200:
                    raise self.failure(f"answers {status}")
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise self.failure("does not answer") from None
                time.sleep(0.05)
            finally:
                connection.close()

    def failure(self, what: str) -> BenchError:
        """Return an error that ends with the end of the server's log."""
        return BenchError(
            "\n".join([f"the server {what}", *self._log.read_text().splitlines()[-5:]])
        )

    def _read(self, name: str) -> str:
        if (status := self._process.poll()) is not None:
            raise self.failure(f"ended with status {status}")
        return Path(f"/proc/{self._process.pid}/{name}").read_text()


@contextmanager
def serving(server: Server, *, core: int, work: Path) -> Iterator[ServerProcess]:
    """Run a server for the length of the block, then kill it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = work / f"{server.name}.log"
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    with log.open("wb") as output:
        process = subprocess.Popen(
            server.command(port, work / "bin"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=HERE / "apps",
            env={**os.environ, "GOMAXPROCS": "1", "PYTHONPATH": path},
            preexec_fn=partial(os.sched_setaffinity, 0, {core}),
        )
    running = ServerProcess(port, process, log)
    try:
        running.wait_until_it_answers(server.ready)
        time.sleep(0.5)  # until that request is forgotten
        yield running
    finally:
        process.kill()
        process.wait()
