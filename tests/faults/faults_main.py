"""Print the table of faults: each row measured now, on the stock server and on Penstock.

Every row is a real server process and real sockets. The run fails where the stock server keeps a
promise that it is known to break (the row has lost its bite), and where Penstock breaks one.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

from faults_report import complaints, table
from faults_rows import ROWS
from faults_run import Run, Task
from faults_servers import Certificates, Way
from faults_table import Row, Stock


def main() -> int:
    """Measure, print, and return 1 where anything is not as it has to be."""
    options = _options()
    rows = [row for row in ROWS if _wanted(row, options)]
    ways = [Way(name) for name in options.servers.split(",")]
    tasks = [Task(row, way) for way in ways for row in rows if _has(row, way)]
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults") as folder:
        run = Run(Certificates(Path(folder)))
        run.measure(tasks, lambda text: print(text, file=sys.stderr, flush=True))
    print(table(rows, ways, run))
    faults = complaints(rows, run)
    for fault in faults:
        print(f"FAULT {fault}")
    said = f"{len(faults)} fault{'' if len(faults) == 1 else 's'}" if faults else "no fault"
    print(
        f"{len(rows)} rows, {len(tasks)} measurements in {time.monotonic() - start:.0f} s: {said}"
    )
    return 1 if faults else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s faults --", description=__doc__)
    parser.add_argument("--only", default="", help="rows by number or words, as 1a,7,RST_STREAM")
    parser.add_argument("--short", action="store_true", help="leave out what waits for long")
    servers = ",".join(Way)
    parser.add_argument("--servers", default=servers, help=f"some of {servers}")
    return parser.parse_args()


def _wanted(row: Row, options: argparse.Namespace) -> bool:
    if options.short and row.long:
        return False
    wanted = [want.strip() for want in options.only.split(",") if want.strip()]
    return not wanted or any(_is(row, want) for want in wanted)


def _is(row: Row, want: str) -> bool:
    """Compare with a row's number, or with its number without the letter, or look for words."""
    if re.fullmatch(r"\d+[a-z]?|G", want):
        return row.number == want or row.number.rstrip("abcd") == want
    return want in str(row)


def _has(row: Row, way: Way) -> bool:
    return row.stock is not Stock.ABSENT if way is Way.STOCK else way in row.ways


if __name__ == "__main__":
    sys.exit(main())
