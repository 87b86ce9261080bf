"""What the live tree costs: a server with streams, now watched and now not, and its processor time.

    python tests/tree_cost.py [STREAMS] [PAIRS]

Prints the percentage of a core that the server itself counts for its looks, and the one by which
the process takes more while it is watched, the median of pairs of seconds with and without.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import trio

# Seconds of one measurement.
PIECE: Final = 3.0
TICK: Final = 1 / os.sysconf("SC_CLK_TCK")

CROWD: Final = """
import sys, trio
async def client():
    stream = await trio.open_tcp_stream("127.0.0.1", int(sys.argv[1]))
    await stream.send_all(b"GET /sse HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    while await stream.receive_some(65536):
        pass
async def main():
    async with trio.open_nursery() as nursery:
        for number in range(int(sys.argv[2])):
            nursery.start_soon(client)
            if number % 20 == 19:
                await trio.sleep(0.05)
trio.run(main)
"""


class Cost(NamedTuple):
    """Percentages of one core."""

    counted: float
    """What the server counts for its looks, the median of seconds."""
    measured: float
    """What its process takes more while it is watched, the median of pairs."""
    alone: float
    """What it takes while nobody watches."""
    streams: int


class Watcher:
    """One that watches, and keeps the last figures."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.figures: dict[str, Any] = {}
        self.costs: list[float] = []
        self.frames = 0

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            yield
            nursery.cancel_scope.cancel()

    async def _watch(self) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            head = f"GET /tree HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n"
            await stream.send_all(head.encode())
            waiting = b""
            async for chunk in stream:
                *lines, waiting = (waiting + chunk).split(b"\n")
                for line in lines:
                    if line.startswith(b'data: {"now"'):
                        self.frames += 1
                        self._hear(json.loads(line[6:]))

    def _hear(self, said: dict[str, Any]) -> None:
        if figures := said["facts"].get("figures"):
            self.figures = figures
            if "cost" in figures:
                self.costs.append(figures["cost"])


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Kill a process at the block's end."""
    with process:  # which closes its pipe, and waits
        try:
            yield process
        finally:
            process.kill()


def processor_time(process: int) -> float:
    """Return the seconds of processor time that a process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


async def share(process: int) -> float:
    """Return the percentage of a core that a process takes now."""
    started, before = trio.current_time(), processor_time(process)
    await trio.sleep(PIECE)
    return (processor_time(process) - before) / (trio.current_time() - started) * 100


async def watched_and_not(process: int, port: int, streams: int, pairs: int) -> Cost:
    """Watch a server, when its streams are there, and have it alone, in turn."""
    watcher, with_, without = Watcher(port), [], []
    async with watcher.watching():
        with trio.fail_after(60):
            while watcher.figures.get("streams", 0) <= streams:  # noqa: ASYNC110 - of its own second
                await trio.sleep(0.1)
    watcher.costs.clear()
    for _ in range(pairs):
        await trio.sleep(0.5)
        without.append(await share(process))
        async with watcher.watching():
            await trio.sleep(0.5)
            with_.append(await share(process))
    return Cost(
        counted=statistics.median(watcher.costs),
        measured=statistics.median(a - b for a, b in zip(with_, without, strict=True)),
        alone=statistics.median(without),
        streams=streams,
    )


def measured(streams: int, pairs: int) -> Cost:
    """Serve so many streams, and return what watching them costs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    serve = [sys.executable, "-m", "penstock", "serve", "--bind", "127.0.0.1:0"]
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    try:
        with ended(subprocess.Popen(serve, stdout=pipe, stderr=nowhere, text=True)) as server:
            assert server.stdout is not None
            port = server.stdout.readline().strip().rpartition(":")[2]
            crowd = [sys.executable, "-c", CROWD, port, str(streams)]
            with ended(subprocess.Popen(crowd, text=True)):
                return trio.run(watched_and_not, server.pid, int(port), streams, pairs)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:]]
    cost = measured(*given, *(1000, 8)[len(given) :])
    print(
        f"{cost.streams} streams: {cost.alone:.1f} % of a core unwatched; "
        f"watching takes {cost.counted:.2f} % as counted, {cost.measured:+.1f} % as measured"
    )
