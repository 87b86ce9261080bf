"""How busy the server is: a line of figures a second, for the graph of the demonstration's page."""

from __future__ import annotations

import math
from typing import Any, Final, final

import trio

from penstock.stream.group import StreamGroup

__all__ = ["Figures"]

# Seconds between two lines.
_PERIOD: Final = 1.0


@final
class Figures:
    """The figures of the last second.

    Attributes:
      group: the streams of the server; None while it is not known, and on servers without one.
    """

    def __init__(self) -> None:
        self.group: StreamGroup | None = None
        self._line: dict[str, Any] = {}
        self._made_at = -math.inf
        self._sent = 0  # events, until then
        self._late = 0.0  # since then
        self._spent = 0.0

    def line(self, late: float, spent: float) -> dict[str, Any]:
        """Return the figures: those of the last second, until the next is over.

        They are ``tasks``, of the Trio run; ``late``, the most milliseconds by which a look came
        later than it was due; ``cost``, the percentage of a core that the looks took; and with a
        group ``streams``, those open, ``events``, those sent to all of them in a second, and
        ``draining``. The first line, and one after a pause, has no ``cost`` and no ``events``.

        Args:
          late: seconds by which this look is late.
          spent: seconds of processor time that the look before took.
        """
        self._late = max(self._late, late)
        self._spent += spent
        now = trio.current_time()
        seconds = now - self._made_at
        if seconds < _PERIOD:
            return self._line
        known = seconds < 3 * _PERIOD
        line = self._line = {
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "late": round(self._late * 1000, 1),
        }
        if known:
            line["cost"] = round(self._spent / seconds * 100, 2)
        if self.group is not None:
            figures = self.group.statistics()
            line["streams"], line["draining"] = figures.streams_open, figures.draining
            if known:
                line["events"] = round((figures.events_sent - self._sent) / seconds, 1)
            self._sent = figures.events_sent
        self._made_at = now
        self._late = self._spent = 0.0
        return line
