"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

__all__ = ["Column", "HasServer", "Ratio", "ratio_table", "table"]


class HasServer(Protocol):
    """A row: what was measured of one server."""

    @property
    def server(self) -> str: ...


RowT = TypeVar("RowT", bound=HasServer)

# A column's head, and its cell for a row.
Column = tuple[str, Callable[[RowT], str]]

# What a ratio is taken of, and its figure.
Ratio = tuple[str, Callable[[RowT], float]]


def table(rows: Iterable[RowT], columns: Sequence[Column[RowT]]) -> str:
    """Return a table whose first column is of text, and the others of figures."""
    head = [name for name, _ in columns]
    return _lines(head, [[cell(row) for _, cell in columns] for row in rows])


def ratio_table(
    rows: Sequence[RowT],
    *,
    base: str,
    same: Sequence[Column[RowT]],
    ratios: Sequence[Ratio[RowT]],
) -> str:
    """Return the table of all servers' figures divided by those of one.

    Args:
      rows: all that were measured.
      base: the server to divide by.
      same: the columns in which two rows agree that are compared.
      ratios: what is divided.
    """
    bases = {_key(row, same): row for row in rows if row.server == base}
    return _lines(
        ["server", *(name for name, _ in same), *(f"{name} ÷ {base}" for name, _ in ratios)],
        [
            [row.server, *_key(row, same)]
            + [_ratio(figure(row), figure(bases[_key(row, same)])) for _, figure in ratios]
            for row in rows
            if row.server != base and _key(row, same) in bases
        ],
    )


def _key(row: RowT, same: Sequence[Column[RowT]]) -> tuple[str, ...]:
    return tuple(cell(row) for _, cell in same)


def _ratio(value: float, base: float) -> str:
    return f"{value / base:.3g}" if base else ""


def _lines(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))
