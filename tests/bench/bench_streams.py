"""A stream with a producer of its own for each client: what is compared, and the tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import product
from typing import Final

from bench_machine import BASES, Machine
from bench_measure import Row, measure
from bench_servers import SERVERS, BenchError
from bench_table import Column, Ratio, ratio_table, table

__all__ = ["compare_streams"]

# Seconds for which idle streams are held before their memory is read.
IDLE_SECONDS: Final = 2.0

CLIENTS: Final[Column[Row]] = ("clients", lambda row: f"{row.clients:,}")
NAMES: Final[list[Column[Row]]] = [("server", lambda row: row.server), CLIENTS]
MEMORY: Final[list[Column[Row]]] = [
    ("kB per stream", lambda row: f"{row.memory / 1000:.1f}"),
    ("accepts/s", lambda row: f"{row.accepts:,.0f}"),
    ("errors", lambda row: f"{row.errors:,}"),
]
STREAMS: Final[list[Column[Row]]] = [
    *NAMES,
    ("p50 ms", lambda row: f"{row.p50:.2f}"),
    ("p99 ms", lambda row: f"{row.p99:.2f}"),
    ("max ms", lambda row: f"{row.maximum:.1f}"),
    ("events/s", lambda row: f"{row.events:,.0f}"),
    ("bytes", lambda row: f"{row.size:.0f}"),
    ("CPU s per 1,000 events", lambda row: f"{row.cpu_per_1000:.3f}"),
    ("CPU", lambda row: f"{row.cpu:.0%}"),
    ("disturbed", lambda row: f"{row.disturbed:.0%}"),
    *MEMORY,
    ("client's CPU", lambda row: f"{row.load_cpu:.0%}"),
]
RATIOS: Final[list[Ratio[Row]]] = [
    ("p99", lambda row: row.p99),
    ("events/s", lambda row: row.events),
    ("CPU per event", lambda row: row.cpu_per_1000),
    ("memory", lambda row: row.memory),
    ("accepts/s", lambda row: row.accepts),
]
IDLE_RATIOS: Final = RATIOS[-2:]


def compare_streams(
    servers: Sequence[str], clients: Sequence[int], idle: int, seconds: float, machine: Machine
) -> list[str]:
    """Measure streams that send, and so many that do not; print the tables; return what failed."""
    failures: list[str] = []
    for silent, counts in ((False, clients), (True, [idle] if idle else [])):
        rows: list[Row] = []
        for count, name in product(counts, servers):
            what = f"{name}, {count:,} {'idle ' if silent else ''}streams"
            if not silent and (SERVERS[name].most or count) < count:
                print(f"{what}: skipped, it is saturated", file=sys.stderr)
                continue
            print(what, file=sys.stderr)
            window = IDLE_SECONDS if silent else seconds
            try:
                row = measure(SERVERS[name], count, window, idle=silent, machine=machine)
            except BenchError as error:
                failures.append(f"{what}: {error}")
                continue
            rows.append(row)
            if row.errors:
                failures.append(f"{what}: {_errors(row)}")
        if rows:
            _print_tables(rows, idle=silent)
    return failures


def _print_tables(rows: Sequence[Row], *, idle: bool) -> None:
    names = {row.server for row in rows}
    print("", "Streams that send nothing:" if idle else "An event every 500 ms each:", sep="\n")
    print("", table(rows, [*NAMES, *MEMORY] if idle else STREAMS), sep="\n", flush=True)
    ratios = IDLE_RATIOS if idle else RATIOS
    for base in BASES:
        if base in names != {base}:
            print("", ratio_table(rows, base=base, same=[CLIENTS], ratios=ratios), sep="\n")


def _errors(row: Row) -> str:
    said = [f"{row.unanswered:,} not answered"] if row.unanswered else []
    if row.lost:
        said.append(f"{row.lost:,} lost, the first one: {row.reason}")
    return ", ".join(said)
