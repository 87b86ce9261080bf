"""What does a resume cost, beside how much there is? `throughput.py` prints it."""

from __future__ import annotations

import random
import statistics
import time
from pathlib import Path

from penstock import ServerSentEvent
from penstock.logs import MemoryLog, SQLiteLog
from penstock.logs.log import Log
from penstock.publication import Publication
from penstock.selection import EVERY_TOPIC, select

__all__ = ["STORED", "resume_costs"]

STORED = (10_000, 1_000_000)

# Of these topics a client selects one or all, and it has missed at least so many publications.
TOPICS = 100
MISSED = 50
RESUMES = 300


async def resume_costs(folder: Path) -> list[tuple[str, int, float, float]]:
    """Return the median times to resume on a topic, and on all, of so many that are stored."""
    costs = []
    for stored in STORED:
        in_file = SQLiteLog(folder / f"{stored}.db", count=stored)
        costs.append(("in a file", stored, *await _resume_cost(in_file, stored)))
        in_memory = MemoryLog(count=stored, size=None)
        costs.append(("in memory", stored, *await _resume_cost(in_memory, stored)))
    return costs


async def _resume_cost(history: Log, stored: int) -> tuple[float, float]:
    await history.open()
    try:
        for first in range(0, stored, 10_000):
            batch = [_publication(number) for number in range(first, first + 10_000)]
            if not history.append_nowait(batch):
                await history.append(batch)
        # From anywhere in what is stored.
        chance = random.Random(stored)
        places = [chance.randrange(stored - TOPICS * MISSED) for _ in range(RESUMES)]
        on_topic = [await _resume(history, place, True) for place in places]
        on_all = [await _resume(history, place, False) for place in places]
        return statistics.median(on_topic), statistics.median(on_all)
    finally:
        await history.aclose()


async def _resume(history: Log, number: int, on_topic: bool) -> float:
    selection = select([f"topic {number % TOPICS}"]) if on_topic else EVERY_TOPIC
    began = time.perf_counter()
    after = await history.locate(f"id {number}", selection)
    assert after is not None
    page = await history.read(after, history.newest.position, selection, count=MISSED, size=2**20)
    assert len(page.publications) == MISSED
    return time.perf_counter() - began


def _publication(number: int) -> Publication:
    event = ServerSentEvent("x" * 100, id=f"id {number}")
    return Publication(event, [f"topic {number % TOPICS}"])
