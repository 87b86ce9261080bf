"""Penstock beside the Go program it started from and sse-starlette: run it with `nox -s bench`.

Each client has a producer of its own, which sends an event every 500 ms. Servers are measured one
after the other, on one core; the load client has another.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Final

from bench_go import build
from bench_measure import Row, measure
from bench_servers import SERVERS, BenchError
from bench_table import idle_table, ratio_table, streams_table

BASES: Final = ("go", "sse-starlette")

# Seconds for which idle streams are held before their memory is read.
IDLE_SECONDS: Final = 2.0

# Descriptors that a server needs beside its connections.
SPARE_FILES: Final = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and return the status: 1 where a stream was lost."""
    options = _options(arguments)
    try:
        cores = _prepare(max(*options.clients, options.idle))
        with tempfile.TemporaryDirectory() as temporary:
            work = Path(options.work or temporary).resolve()
            go = build(work)
            return _compare(options, go, work, cores)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Penstock beside other servers.")
    parser.add_argument("--clients", type=_numbers, help="default: 1000,5000,10000")
    parser.add_argument("--seconds", type=float, help="to measure each of them for; default: 20")
    parser.add_argument("--servers", type=_servers, help=f"default: {','.join(SERVERS)}")
    parser.add_argument("--idle", type=int, help="idle streams; default: 5000, 0 for none")
    parser.add_argument("--short", action="store_true", help="200 clients, 3 s, without stock")
    parser.add_argument("--work", help="a folder for what is built; default: a temporary one")
    options = parser.parse_args(arguments)
    defaults = {
        "clients": [1000, 5000, 10000],
        "seconds": 20.0,
        "servers": [*SERVERS],
        "idle": 5000,
    }
    if options.short:
        servers = [name for name in SERVERS if name != "stock"]
        defaults = {"clients": [200], "seconds": 3.0, "servers": servers, "idle": 200}
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _servers(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - SERVERS.keys():
        raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there is {', '.join(SERVERS)}")
    return names


def _prepare(clients: int) -> tuple[int, int]:
    """Allow for the files, take the load client's core, and return the server's and that one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < clients + SPARE_FILES:
        raise BenchError(f"{clients} clients need more open files than the {hard} allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchError("two cores are needed, one for the server and one for the clients")
    os.sched_setaffinity(0, {cores[1]})
    return cores[0], cores[1]


def _compare(options: argparse.Namespace, go: str, work: Path, cores: tuple[int, int]) -> int:
    """Measure all there is, print the tables, and return the status."""
    packages = ("penstock", "trio", "quart-trio", "hypercorn", "sse-starlette", "uvicorn")
    print(f"Linux {platform.release()}, Python {platform.python_version()}, {go}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in packages), flush=True)

    failures: list[str] = []
    for idle, counts in ((False, options.clients), (True, [options.idle] if options.idle else [])):
        rows: list[Row] = []
        for clients, name in product(counts, options.servers):
            what = f"{name}, {clients:,} {'idle ' if idle else ''}streams"
            if not idle and (SERVERS[name].most or clients) < clients:
                print(f"{what}: skipped, it is saturated", file=sys.stderr)
                continue
            print(what, file=sys.stderr)
            seconds = IDLE_SECONDS if idle else options.seconds
            try:
                row = measure(SERVERS[name], clients, seconds, idle=idle, work=work, cores=cores)
            except BenchError as error:
                failures.append(f"{what}: {error}")
                continue
            rows.append(row)
            if row.errors:
                failures.append(f"{what}: {_errors(row)}")
        if rows:
            _print_tables(rows, idle=idle)
    for failure in failures:
        print(f"bench: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _print_tables(rows: Sequence[Row], *, idle: bool) -> None:
    names = {row.server for row in rows}
    print("", "Streams that send nothing:" if idle else "An event every 500 ms each:", sep="\n")
    for table in (
        idle_table(rows) if idle else streams_table(rows),
        *(ratio_table(rows, base=base, idle=idle) for base in BASES if base in names != {base}),
    ):
        print("", table, sep="\n", flush=True)


def _errors(row: Row) -> str:
    said = [f"{row.unanswered:,} not answered"] if row.unanswered else []
    if row.lost:
        said.append(f"{row.lost:,} lost, the first one: {row.reason}")
    return ", ".join(said)


if __name__ == "__main__":
    sys.exit(main())
