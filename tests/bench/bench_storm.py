"""A connect storm: thousands join a hub at once, and it goes on serving those who are there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench_hubs import HUBS, Hub, load_command
from bench_load import loading
from bench_machine import Machine
from bench_servers import BenchError, serving
from bench_table import Column, table

__all__ = ["WATCHERS", "compare_storms"]

RATE: Final = 100.0
WATCHERS: Final = 50


@dataclass(frozen=True)
class Storm:
    """What became of those who joined, and of those who were there; times in milliseconds."""

    server: str
    joined: int
    served: int
    served_seconds: float  # until the last one's response had begun
    p50: float  # of those who were there, until everyone had had an event
    p99: float
    maximum: float
    missing: int  # events, of all clients, after their first one
    early: int  # events between a client's answer and its first one
    repeated: int
    errors: int  # clients that were lost, or not answered
    reason: str
    cpu: float
    load_cpu: float


COLUMNS: Final[list[Column[Storm]]] = [
    ("server", lambda row: row.server),
    ("joined", lambda row: f"{row.joined:,}"),
    ("served", lambda row: f"{row.served:,}"),
    ("within s", lambda row: f"{row.served_seconds:.2f}"),
    ("p50 ms", lambda row: f"{row.p50:.2f}"),
    ("p99 ms", lambda row: f"{row.p99:.2f}"),
    ("max ms", lambda row: f"{row.maximum:.1f}"),
    ("gaps", lambda row: f"{row.missing:,}"),
    ("missed at the start", lambda row: f"{row.early:,}"),
    ("duplicates", lambda row: f"{row.repeated:,}"),
    ("errors", lambda row: f"{row.errors:,}"),
    ("CPU", lambda row: f"{row.cpu:.0%}"),
    ("client's CPU", lambda row: f"{row.load_cpu:.0%}"),
]


def compare_storms(
    servers: Sequence[str], joining: int, seconds: float, machine: Machine
) -> list[str]:
    """Let so many join each hub within a time; print the table; return what failed."""
    failures: list[str] = []
    rows: list[Storm] = []
    for name in servers:
        what = f"{name}, storm of {joining:,}"
        print(what, file=sys.stderr)
        try:
            row = _measure(HUBS[name], joining, seconds, machine=machine)
        except BenchError as error:
            failures.append(f"{what}: {error}")
            continue
        rows.append(row)
        # What the others lose is a figure of theirs.
        if name == "penstock" and (faults := _faults(row)):
            failures.append(f"{what}: {faults}")
    if rows:
        title = f"{joining:,} join {WATCHERS} during {RATE:.0f} events/s, and these see it late:"
        print("", title, "", table(rows, COLUMNS), sep="\n", flush=True)
    return failures


def _measure(hub: Hub, joining: int, seconds: float, *, machine: Machine) -> Storm:
    with serving(hub.server, core=machine.core, work=machine.work) as running:
        command = load_command(
            hub, running.port, machine, clients=WATCHERS, rate=RATE, seconds=seconds
        )
        with loading([*command, f"--storm={joining}"]) as load:
            load.reach("connected")
            load.reach("measuring")
            used = running.cpu()
            done = load.reach("done")
            used = running.cpu() - used
            checked = load.reach("checked")
    return _row(hub.server.name, joining, done, checked, used)


def _row(
    name: str, joining: int, done: dict[str, Any], checked: dict[str, Any], used: float
) -> Storm:
    return Storm(
        server=name,
        joined=joining,
        served=done["served"],
        served_seconds=done["served_seconds"],
        p50=done["p50"],
        p99=done["p99"],
        maximum=done["max"],
        missing=checked["missing"],
        early=checked["early"],
        repeated=checked["repeated"],
        errors=checked["lost"] + checked["unanswered"],
        reason=checked["reason"],
        cpu=used / done["seconds"],
        load_cpu=done["cpu"] / done["seconds"],
    )


def _faults(row: Storm) -> str:
    counts = {
        "not served": row.joined - row.served,
        "gaps": row.missing,
        "missed at the start": row.early,
        "duplicates": row.repeated,
        "lost or not answered": row.errors,
    }
    said = [f"{count:,} {name}" for name, count in counts.items() if count]
    return ", ".join([*said, *([f"the first loss: {row.reason}"] if row.reason else [])])
