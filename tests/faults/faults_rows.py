"""All rows there are, in the order of the table."""

from __future__ import annotations

import re
from typing import Final

import rows_ends
import rows_garbage
import rows_http2
import rows_stalled
import rows_stopping
import rows_vanished
from faults_table import Row


def _order(row: Row) -> tuple[bool, int, str]:
    """By number, and the rest of the guarantee behind the numbers."""
    digits = re.match(r"\d+", row.number)
    return digits is None, int(digits.group()) if digits else 0, row.number


ROWS: Final = sorted(
    [
        *rows_stalled.ROWS,
        *rows_garbage.ROWS,
        *rows_ends.ROWS,
        *rows_http2.ROWS,
        *rows_vanished.ROWS,
        *rows_stopping.ROWS,
    ],
    key=_order,
)

assert len({str(row) for row in ROWS}) == len(ROWS), "two rows with the same name"
