"""A hub's fan-out: which rates and how many subscribers are compared, and the tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import product
from typing import Final

from bench_fanout import FanOut, measure_fan_out
from bench_hubs import HUBS
from bench_machine import BASES, Machine
from bench_servers import BenchError
from bench_table import Column, Ratio, ratio_table, table

__all__ = ["compare_hubs", "find_most", "search"]

# Seconds that tell that a server is saturated, where it was so at a lower rate already.
SATURATED_SECONDS: Final = 2.0

# What `find_most` asks for: subscribers, the p99 of their lateness in milliseconds, the rate it
# begins with and the one it ends with, which is more than the load client can take.
MOST_CLIENTS: Final = 500
MOST_P99: Final = 20.0
LOWEST: Final = 100.0
HIGHEST: Final = 12_800.0
MOST_SECONDS: Final = 4.0

CELL: Final[list[Column[FanOut]]] = [
    ("clients", lambda row: f"{row.clients:,}"),
    ("events/s", lambda row: f"{row.rate:,.0f}"),
]
COLUMNS: Final[list[Column[FanOut]]] = [
    ("server", lambda row: row.server),
    *CELL,
    ("deliveries/s", lambda row: f"{row.deliveries:,.0f}"),
    ("p50 ms", lambda row: f"{row.p50:.2f}"),
    ("p99 ms", lambda row: f"{row.p99:.2f}"),
    ("max ms", lambda row: f"{row.maximum:.1f}"),
    ("p99 ms since due", lambda row: f"{row.p99_due:.2f}"),
    ("bytes", lambda row: f"{row.size:.0f}"),
    ("CPU µs per delivery", lambda row: f"{row.cpu_per_delivery:.2f}"),
    ("CPU", lambda row: f"{row.cpu:.0%}"),
    ("disturbed", lambda row: f"{row.disturbed:.0%}"),
    ("dropped", lambda row: f"{row.dropped:,}"),
    ("lost", lambda row: f"{row.lost:,}"),
    ("kB per client", lambda row: f"{row.memory / 1000:.1f}"),
    ("client's CPU", lambda row: f"{row.load_cpu:.0%}"),
    ("notes", lambda row: row.notes),
]
RATIOS: Final[list[Ratio[FanOut]]] = [
    ("deliveries/s", lambda row: row.deliveries),
    ("p99", lambda row: row.p99),
    ("CPU per delivery", lambda row: row.cpu_per_delivery),
    ("memory", lambda row: row.memory),
]


def compare_hubs(
    servers: Sequence[str], cells: Sequence[tuple[int, float]], seconds: float, machine: Machine
) -> list[str]:
    """Measure each hub with so many clients at a rate; print the tables; return what failed."""
    failures: list[str] = []
    rows: list[FanOut] = []
    for (clients, rate), name in product(sorted(cells), servers):
        what = f"{name}, {clients:,} clients at {rate:,g} events/s"
        print(what, file=sys.stderr)
        # Rates come in their order: what was too much at a lower one is too much here.
        over = any(row.saturated for row in rows if (row.server, row.clients) == (name, clients))
        window = min(seconds, SATURATED_SECONDS) if over else seconds
        try:
            row = measure_fan_out(HUBS[name], clients, rate, window, machine=machine)
        except BenchError as error:
            failures.append(f"{what}: {error}")
            continue
        rows.append(row)
        # What the others lose is a figure of theirs.
        if name == "penstock" and (faults := _faults(row)):
            failures.append(f"{what}: {faults}")
    if rows:
        print("", "Published once, delivered to all:", "", table(rows, COLUMNS), sep="\n")
        for base in BASES:
            if base in {row.server for row in rows} != {base}:
                print("", ratio_table(rows, base=base, same=CELL, ratios=RATIOS), sep="\n")
        sys.stdout.flush()
    return failures


def find_most(servers: Sequence[str], machine: Machine) -> list[str]:
    """Find the highest rate with nothing dropped; print the table; return what failed."""
    failures: list[str] = []
    best: dict[str, FanOut] = {}
    for name in servers:

        def good(rate: float, name: str = name) -> bool:
            for _ in range(2):  # something else on the machine may have disturbed the first one
                row = measure_fan_out(HUBS[name], MOST_CLIENTS, rate, MOST_SECONDS, machine=machine)
                fits = not (row.saturated or row.unanswered) and row.p99 <= MOST_P99
                said = f"{'yes' if fits else 'no'}, p99 {row.p99:.1f} ms, {row.dropped:,} dropped"
                print(f"{name}, {rate:,.0f} events/s: {said}", file=sys.stderr)
                if fits:
                    best[name] = row
                    return True
            return False

        try:
            search(good)
        except BenchError as error:
            failures.append(f"{name}, highest rate: {error}")
    if best:
        title = f"The most, with nothing dropped and a p99 of {MOST_P99:.0f} ms at most:"
        print("", title, "", table(best.values(), COLUMNS), sep="\n", flush=True)
    return failures


def search(
    good: Callable[[float], bool], *, lowest: float = LOWEST, highest: float = HIGHEST
) -> float:
    """Return the highest rate that is good, to a sixteenth of it, or 0 where none is.

    Args:
      good: measures a rate; one below a good one is good.
      lowest: the rate to begin with, which is then doubled.
      highest: no higher rate is tried.
    """
    if not good(lowest):
        return 0
    while 2 * lowest <= highest and good(2 * lowest):
        lowest *= 2
    if 2 * lowest > highest:
        return lowest
    step = lowest / 2
    for _ in range(4):
        if good(lowest + step):
            lowest += step
        step /= 2
    return lowest


def _faults(row: FanOut) -> str:
    counts = {
        "events dropped": row.dropped,
        "events twice": row.repeated,
        "clients not answered": row.unanswered,
        "clients lost": row.lost,
    }
    said = [f"{count:,} {name}" for name, count in counts.items() if count]
    return ", ".join([*said, *([f"the first loss: {row.reason}"] if row.reason else [])])
