"""How fast is publishing, acknowledged on disk, and resuming? Run it with `nox -s durability`."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import trio
from durability_client import Publisher, run_publishers
from resume_cost import resume_costs

from durability import serving
from penstock import ServerSentEvent, open_hub
from penstock.logs import SQLiteLog

DATA = "x" * 100


async def in_process(history: Path, publishers: int, seconds: float) -> float:
    """Return publications a second, of so many tasks that publish one at a time."""
    published = 0

    async def publish() -> None:
        nonlocal published
        while True:
            await hub.publish(ServerSentEvent(DATA), ["durable"])
            published += 1

    async with open_hub(log=SQLiteLog(history)) as hub:
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for _ in range(publishers):
                    nursery.start_soon(publish)
    return published / seconds


def over_http(history: Path, connections: int, batch: int, seconds: float) -> float:
    """Return publications a second, of so many connections with batches of this size."""
    publishers = [Publisher(str(number), batch) for number in range(connections)]
    with serving(history) as (_, port):
        began = time.monotonic()
        run_publishers(publishers, port, lambda: time.monotonic() - began > seconds)
        took = time.monotonic() - began
    return sum(publisher.acknowledged for publisher in publishers) / took


def main() -> int:
    """Measure each for some seconds, and print a table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    with tempfile.TemporaryDirectory() as folder:
        print("| publishers | a second |", "| --- | ---: |", sep="\n")
        for publishers in (1, 64):
            rate = trio.run(in_process, Path(folder) / f"{publishers}.db", publishers, seconds)
            print(f"| {publishers} in the hub's process | {rate:,.0f} |", flush=True)
        for connections, batch in ((1, 1), (16, 1), (1, 100), (4, 100)):
            rate = over_http(
                Path(folder) / f"{connections}.{batch}.db", connections, batch, seconds
            )
            many = f"{connections} connection{'' if connections == 1 else 's'}"
            print(f"| HTTP, {many}, batches of {batch} | {rate:,.0f} |", flush=True)
        print(
            "\n| stored | where | resume on a topic | on all |",
            "| ---: | --- | ---: | ---: |",
            sep="\n",
        )
        for where, stored, on_topic, on_all in trio.run(resume_costs, Path(folder)):
            print(f"| {stored:,} | {where} | {on_topic * 1e3:.2f} ms | {on_all * 1e3:.2f} ms |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
