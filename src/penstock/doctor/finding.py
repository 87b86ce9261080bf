"""A finding, and the words that findings are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from penstock.printable import printable

__all__ = ["Figure", "Finding", "Mark", "counted", "quoted", "seconds", "shown", "worse"]

# Characters of what a server sent that a line of ours shows.
_LONGEST: Final = 60

Figure = str | int | float | bool | None | list[str]


class Mark(StrEnum):
    """What came out of a check."""

    OK = "ok"
    WARN = "warn"
    """It works, and something of it may not for everybody, or not for long."""
    FAIL = "FAIL"
    SKIP = "skip"
    """There was nothing to check it by."""


_SEVERITY: Final = (Mark.SKIP, Mark.OK, Mark.WARN, Mark.FAIL)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
      check: its name.
      mark: what came out.
      said: that in a line, with the figure that was measured.
      advice: what to set, a line each.
      figures: what was measured, for programs; seconds where it is a time.
    """

    check: str
    mark: Mark
    said: str
    advice: tuple[str, ...] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)


def worse(*marks: Mark) -> Mark:
    """Return the worst of some marks."""
    return max(marks, key=_SEVERITY.index)


def shown(text: str | bytes) -> str:
    """Return what a server sent, fit for a line of a terminal: printable and short."""
    return printable(text, limit=_LONGEST)


def quoted(text: str | bytes) -> str:
    """Return the same in quotes."""
    return f"“{shown(text)}”"


def seconds(value: float) -> str:
    """Return a length of time as one reads it."""
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


def counted(number: int, noun: str) -> str:
    """Return a number of things."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
