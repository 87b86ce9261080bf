"""Kill the server while it is published to, again and again, and see what its history has.

Run it with `nox -s durability`. After each SIGKILL the file is read: what was acknowledged is
there, once, and each publisher's in the order of its numbers; what was not answered may be there.
"""

# Positions of these logs are 1, 2, …: they are counted here, as nobody else may.
# mypy: disable-error-code="arg-type, return-value"

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
from durability_client import Publisher, run_publishers

from penstock.logs import SQLiteLog
from penstock.selection import EVERY_TOPIC

# How many publications each request of the four publishers has.
BATCHES = (1, 1, 10, 100)

_PENSTOCK = str(Path(sys.executable).with_name("penstock"))


@contextmanager
def serving(history: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Serve the demonstration with this file as its history, while the block runs."""
    process = subprocess.Popen(
        [_PENSTOCK, "serve", "--bind", "127.0.0.1:0"],
        env={**os.environ, "PENSTOCK_HISTORY": str(history)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        listening = process.stdout.readline()
        assert listening, "the server did not start"
        yield process, int(listening.rpartition(":")[2])
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def kill_at_random(history: Path, number: int, chance: random.Random) -> list[Publisher]:
    """Publish, kill the server at a random moment, and return what its publishers know."""
    publishers = [Publisher(f"{number}.{index}", batch) for index, batch in enumerate(BATCHES)]
    with serving(history) as (server, port):
        killer = threading.Timer(chance.uniform(0.02, 0.5), server.send_signal, [signal.SIGKILL])
        killer.start()
        run_publishers(publishers, port, lambda: False)
        killer.join()
    return publishers


async def read(history: Path, after: int) -> tuple[list[str], int]:
    """Return the data of what a file has behind a position, and its newest position."""
    store = SQLiteLog(history, count=None, size=None)
    await store.open()
    try:
        data: list[str] = []
        newest = store.newest.position
        while after < newest:
            page = await store.read(after, newest, EVERY_TOPIC, count=10_000, size=2**30)
            data += [publication.event.data or "" for publication in page.publications]
            after = page.until
        return data, newest
    finally:
        await store.aclose()


def verdict(publishers: list[Publisher], found: list[str]) -> list[str]:
    """Return what is wrong with what was found after a kill."""
    wrong = []
    numbers: dict[str, list[int]] = {publisher.name: [] for publisher in publishers}
    for data in found:
        name, _, number = data.partition(" ")
        if name in numbers:
            numbers[name].append(int(number))
        else:
            wrong.append(f"{data!r} was published by nobody")
    for publisher in publishers:
        kept = numbers[publisher.name]
        if kept != list(range(len(kept))):
            wrong.append(f"{publisher.name} is not in its order, once each")
        if len(kept) < publisher.acknowledged:
            wrong.append(f"{publisher.name}: {publisher.acknowledged - len(kept)} lost")
        if len(kept) not in (publisher.acknowledged, publisher.acknowledged + publisher.unknown):
            wrong.append(f"{publisher.name}: a part of a batch, or more than was published")
    return wrong


def run(kills: int, seed: int) -> int:
    """Kill so many times; print what was seen, and return the status."""
    chance = random.Random(seed)
    acknowledged = unanswered_kept = newest = 0
    began = time.monotonic()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        history = Path(folder) / "events.db"
        for number in range(kills):
            publishers = kill_at_random(history, number, chance)
            found, newest = trio.run(read, history, newest)
            wrong += [f"kill {number}: {each}" for each in verdict(publishers, found)]
            known = sum(each.acknowledged for each in publishers)
            acknowledged += known
            unanswered_kept += len(found) - known
    print(
        f"{kills} kills in {time.monotonic() - began:.0f} s, seed {seed}: {acknowledged:,} "
        f"acknowledged, all there in their order, once; beside them {unanswered_kept:,} that were "
        "not answered for"
        if not wrong
        else "\n".join(wrong)
    )
    return 1 if wrong or not acknowledged else 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="durability", description="Kill a server 50 times.")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    return run(options.kills, options.seed)


if __name__ == "__main__":
    sys.exit(main())
