"""The tables, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from bench_measure import Row

__all__ = ["idle_table", "ratio_table", "streams_table"]

Column = tuple[str, Callable[[Row], str]]

NAMES: Final[list[Column]] = [
    ("server", lambda row: row.server),
    ("clients", lambda row: f"{row.clients:,}"),
]
STREAMS: Final[list[Column]] = [
    ("p50 ms", lambda row: f"{row.p50:.2f}"),
    ("p99 ms", lambda row: f"{row.p99:.2f}"),
    ("max ms", lambda row: f"{row.maximum:.1f}"),
    ("events/s", lambda row: f"{row.events:,.0f}"),
    ("bytes", lambda row: f"{row.size:.0f}"),
    ("CPU s per 1,000 events", lambda row: f"{row.cpu_per_1000:.3f}"),
    ("CPU", lambda row: f"{row.cpu:.0%}"),
    ("disturbed", lambda row: f"{row.disturbed:.0%}"),
]
MEMORY: Final[Column] = ("kB per stream", lambda row: f"{row.memory / 1000:.1f}")
ACCEPTS: Final[Column] = ("accepts/s", lambda row: f"{row.accepts:,.0f}")
ERRORS: Final[Column] = ("errors", lambda row: f"{row.errors:,}")
LOAD: Final[Column] = ("client's CPU", lambda row: f"{row.load_cpu:.0%}")

# What a ratio is taken of, in the tables of streams and of idle streams.
RATIOS: Final[list[tuple[str, Callable[[Row], float]]]] = [
    ("p99", lambda row: row.p99),
    ("events/s", lambda row: row.events),
    ("CPU per event", lambda row: row.cpu_per_1000),
    ("memory", lambda row: row.memory),
    ("accepts/s", lambda row: row.accepts),
]
IDLE_RATIOS: Final = RATIOS[-2:]


def streams_table(rows: Sequence[Row]) -> str:
    """Return the table of streams with an event every half a second each."""
    return _rows(rows, [*NAMES, *STREAMS, MEMORY, ACCEPTS, ERRORS, LOAD])


def idle_table(rows: Sequence[Row]) -> str:
    """Return the table of streams that send nothing."""
    return _rows(rows, [*NAMES, MEMORY, ACCEPTS, ERRORS])


def ratio_table(rows: Sequence[Row], *, base: str, idle: bool) -> str:
    """Return the table of all servers' figures divided by those of one, client count by count."""
    ratios = IDLE_RATIOS if idle else RATIOS
    bases = {row.clients: row for row in rows if row.server == base}
    return _table(
        ["server", "clients", *(f"{name} ÷ {base}" for name, _ in ratios)],
        [
            [row.server, f"{row.clients:,}"]
            + [_ratio(figure(row), figure(bases[row.clients])) for _, figure in ratios]
            for row in rows
            if row.server != base and row.clients in bases
        ],
    )


def _ratio(value: float, base: float) -> str:
    return f"{value / base:.3g}" if base else ""


def _rows(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    return _table(
        [name for name, _ in columns], [[cell(row) for _, cell in columns] for row in rows]
    )


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))
