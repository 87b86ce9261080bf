"""What the server promises, and whether it kept it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torture_bad import POLITE


@dataclass
class Verdict:
    """The promises, and whether they were kept."""

    lines: list[str] = field(default_factory=list)
    broken: int = 0

    def note(self, kept: bool | None, promise: str, figures: str) -> None:
        """Note one promise; None if there is no saying."""
        self.broken += kept is False
        word = {True: "kept  ", False: "BROKEN", None: "unsure"}[kept]
        self.lines.append(f"{word}  {promise}: {figures}")

    def note_fates(self, round_name: str, fates: dict[str, dict[str, Any]]) -> None:
        """Note what clients of a round held against the server, each complaint once."""
        complaints: dict[str, dict[str, int]] = {}
        for fate, each in fates.items():
            broken = dict(each["broken"])
            if fate in POLITE and each["early"]:
                broken["ended by the server first"] = each["early"]
            for text, count in broken.items():
                complaints.setdefault(text, {})[fate] = count
        for text, whose in complaints.items():
            whom = ", ".join(
                f"{count} of {fates[fate]['came']} {fate}" for fate, count in whose.items()
            )
            self.note(False, f"{round_name}: {text}", whom)


def gauges(statistics: dict[str, Any]) -> dict[str, int]:
    """Return what must be as before; counters that only grow are not in it."""
    names = {"tasks", "sockets", "running", "server.tasks"}
    return {k: v for k, v in statistics.items() if k in names or k.endswith("_open")}
