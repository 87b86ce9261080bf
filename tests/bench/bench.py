"""Penstock beside other servers: run it with `nox -s bench`.

It has three parts. In the first each client has a producer of its own, which sends an event every
500 ms, as in the Go program Penstock started from. In the second a hub publishes what comes to all
clients. In the third thousands of clients join a hub at once. Servers are measured one after the
other, on one core; the load client has another.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bench_go import build
from bench_hub import compare_hubs, find_most
from bench_hubs import HUBS, JOINED
from bench_machine import Machine, prepare
from bench_nchan import INSTALL, installed
from bench_servers import SERVERS, BenchError
from bench_storm import WATCHERS, compare_storms
from bench_streams import compare_streams

PARTS: Final = ("streams", "hub", "storm", "most")
NAMES: Final = tuple(dict.fromkeys([*SERVERS, *HUBS]))
PACKAGES: Final = ("penstock", "trio", "quart-trio", "hypercorn", "sse-starlette", "uvicorn")

# What is measured where the options do not say it: in full, and as CI does.
FULL: Final[dict[str, Any]] = {
    "only": ["streams", "hub", "storm"],
    "servers": [*NAMES],
    "clients": [1000, 5000, 10000],
    "idle": 5000,
    "fan_out": [(500, 100.0), (500, 400.0), (500, 2000.0), (5000, 10.0), (10000, 10.0)],
    "joining": 5000,
    "seconds": 20.0,
    "hub_seconds": 10.0,
}
SHORT: Final[dict[str, Any]] = {
    "only": ["streams", "hub", "storm"],
    "servers": [name for name in NAMES if name not in ("stock", JOINED)],
    "clients": [200],
    "idle": 200,
    "fan_out": [(100, 50.0)],
    "joining": 200,
    "seconds": 3.0,
    "hub_seconds": 2.0,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and return the status: 1 where something failed."""
    options = _options(arguments)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            machine = prepare(_most_clients(options), Path(options.work or temporary).resolve())
            go = build(machine.work)
            print(f"Linux {platform.release()}, Python {platform.python_version()}, {go}, ", end="")
            print(", ".join(f"{name} {version(name)}" for name in PACKAGES), flush=True)
            failures = _measure(options, machine)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # as a shell has it
    for failure in failures:
        print(f"bench: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Penstock beside other servers.")
    parser.add_argument("--only", type=_parts, help=f"parts: {','.join(PARTS)}; default: no most")
    parser.add_argument("--servers", type=_servers, help=f"default: {','.join(NAMES)}")
    parser.add_argument("--seconds", type=float, help="of each measurement; default: 20, hub 10")
    parser.add_argument("--clients", type=_numbers, help="streams; default: 1000,5000,10000")
    parser.add_argument("--idle", type=int, help="idle streams; default: 5000, 0 for none")
    parser.add_argument("--fan-out", type=_cells, help="hub: CLIENTSxRATE,…; default: 500x100,…")
    parser.add_argument("--joining", type=int, help="storm: how many join; default: 5000")
    parser.add_argument("--short", action="store_true", help="few clients, seconds and servers")
    parser.add_argument("--work", help="a folder for what is built; default: a temporary one")
    options = parser.parse_args(arguments)
    options.hub_seconds = options.seconds
    for name, value in (SHORT if options.short else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _cells(text: str) -> list[tuple[int, float]]:
    pairs = [cell.split("x") for cell in text.split(",")]
    return [(int(clients), float(rate)) for clients, rate in pairs]


def _parts(text: str) -> list[str]:
    return _names(text, PARTS)


def _servers(text: str) -> list[str]:
    return _names(text, NAMES)


def _names(text: str, known: Sequence[str]) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(known):
        raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there is {', '.join(known)}")
    return names


def _most_clients(options: argparse.Namespace) -> int:
    hubs = [clients for clients, _ in options.fan_out]
    counts: list[int] = [*options.clients, options.idle, *hubs, options.joining + WATCHERS]
    return max(counts)


def _measure(options: argparse.Namespace, machine: Machine) -> list[str]:
    """Measure all there is, print the tables, and return what failed."""
    failures: list[str] = []
    if "streams" in options.only:
        servers = [name for name in options.servers if name in SERVERS]
        failures += compare_streams(
            servers, options.clients, options.idle, options.seconds, machine
        )
    hubs = [name for name in options.servers if name in HUBS]
    if "nchan" in hubs and {*options.only} != {"streams"} and not installed():
        print(f"\nnchan: not installed ({INSTALL})", flush=True)
        hubs.remove("nchan")
    if "hub" in options.only:
        failures += compare_hubs(hubs, options.fan_out, options.hub_seconds, machine)
    if "storm" in options.only:
        failures += compare_storms(hubs, options.joining, options.hub_seconds, machine)
    if "most" in options.only:
        failures += find_most(hubs, machine)
    return failures


if __name__ == "__main__":
    sys.exit(main())
