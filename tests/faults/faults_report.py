"""The table, and what is wrong in it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from faults_run import Run, Task
from faults_servers import Way
from faults_table import Outcome, Row, Skipped, Stock

HEADS = ("#", "what the client does", "protocol", "stock", "Penstock", "promised", "")


def table(rows: Sequence[Row], ways: Sequence[Way], run: Run) -> str:
    """Return the table as text, and below it what the shared servers had left."""
    lines = [HEADS, *(_line(row, ways, run) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADS))]
    lines.insert(1, tuple("-" * width for width in widths))
    text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    guarded = [way for way in ways if way is not Way.STOCK]
    order = [f"The figures of Penstock are in this order: {', '.join(guarded)}."] if guarded else []
    return "\n".join(chain(text, [""], order, map(str, run.left_over)))


def complaints(rows: Sequence[Row], run: Run) -> list[str]:
    """Return what is not as it has to be, with the row that says so."""
    said = [text for row in rows for text in _complaints(row, run)]
    return said + [f"left over: {left}" for left in run.left_over if not left.kept]


def _complaints(row: Row, run: Run) -> list[str]:
    said = []
    for way in Way:
        outcome = run.results.get(Task(row, way))
        if not isinstance(outcome, Outcome):
            continue
        if way is Way.STOCK:
            if outcome.kept and row.stock is Stock.FAILS:
                said.append(f"{row}: stock keeps the promise: {outcome.text}")
        elif not outcome.kept:
            said.append(f"{row}: {way} does not keep it: {outcome.text}")
    return said


def _line(row: Row, ways: Sequence[Way], run: Run) -> tuple[str, ...]:
    stock = _cell(run.results.get(Task(row, Way.STOCK)))
    cells = [_cell(run.results.get(Task(row, way))) for way in ways if way in row.ways]
    guarded = _joined(cells) or "-"
    outcomes = [run.results.get(Task(row, way)) for way in ways]
    skipped = [str(outcome) for outcome in outcomes if isinstance(outcome, Skipped)]
    verdict = "FAULT" if _complaints(row, run) else "ok" if any(outcomes) else "-"
    verdict = f"skipped: {skipped[0]}" if skipped else verdict
    return row.number, row.what, row.protocol, stock, guarded, row.promised, verdict


def _joined(cells: Sequence[str]) -> str:
    """Join what several servers did; what all of them have in common is said once."""
    if len(set(cells)) <= 1:
        return "".join(cells[:1])
    parts = [cell.partition(", ") for cell in cells]
    if len({part[1:] for part in parts}) == 1:
        return " / ".join(part[0] for part in parts) + "".join(parts[0][1:])
    return " / ".join(cells)


def _cell(outcome: Outcome | Skipped | None) -> str:
    if outcome is None or isinstance(outcome, Skipped):
        return "-"
    text = outcome.text if len(outcome.text) <= 48 else f"{outcome.text[:45]}..."
    return text if outcome.kept else f"{text} (!)"
