"""What does a resume cost, beside how much there is? `throughput.py` prints it."""

from __future__ import annotations

import random
import statistics
import time
from pathlib import Path

from penstock import ServerSentEvent
from penstock.publication import Publication
from penstock.stores import SQLiteHistory

__all__ = ["STORED", "resume_costs"]

STORED = (10_000, 1_000_000)

# Of these topics a client selects one or all, and it has missed at least so many publications.
TOPICS = 100
MISSED = 50
RESUMES = 300


async def resume_costs(folder: Path) -> list[tuple[int, float, float]]:
    """Return, of so many that are stored, the median time to resume on a topic, and on all."""
    return [(stored, *await _resume_cost(folder / f"{stored}.db", stored)) for stored in STORED]


async def _resume_cost(path: Path, stored: int) -> tuple[float, float]:
    history = SQLiteHistory(path, count=stored)
    await history.open()
    try:
        for first in range(0, stored, 10_000):
            await history.append([_publication(number) for number in range(first, first + 10_000)])
        # Both are resumed from alike, wherever in what is stored the client left off.
        chance = random.Random(stored)
        places = [chance.randrange(stored - TOPICS * MISSED) for _ in range(RESUMES)]
        on_topic = [await _resume(history, place, True) for place in places]
        on_all = [await _resume(history, place, False) for place in places]
        return statistics.median(on_topic), statistics.median(on_all)
    finally:
        await history.aclose()


async def _resume(history: SQLiteHistory, number: int, on_topic: bool) -> float:
    topics = frozenset([f"topic {number % TOPICS}"]) if on_topic else None
    began = time.perf_counter()
    after = await history.locate(f"id {number}")
    assert after is not None
    page = await history.read(after, history.newest.position, topics, count=MISSED, size=2**20)
    assert len(page.publications) == MISSED
    return time.perf_counter() - began


def _publication(number: int) -> Publication:
    event = ServerSentEvent("x" * 100, id=f"id {number}")
    return Publication(event, [f"topic {number % TOPICS}"])
