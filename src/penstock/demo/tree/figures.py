"""How busy the server is: a line of figures a second, for the graph of the demonstration's page."""

from __future__ import annotations

from typing import Any, Final, final

import trio

from penstock.group import StreamGroup

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
        self._counted: tuple[float, int] | None = None  # when, and how many events were sent
        self._latest = 0.0

    def line(self, late: float) -> dict[str, Any]:
        """Return the figures: those of a second ago, until there are others.

        They are ``tasks`` of the Trio run; ``late``, the most milliseconds by which a look came
        later than it was due; and with a group ``streams``, those open, ``events``, sent to all
        of them in a second, and ``draining``.

        Args:
          late: seconds by which this look is late.
        """
        self._latest = max(self._latest, late)
        now = trio.current_time()
        if self._line and self._counted is not None and now < self._counted[0] + _PERIOD:
            return self._line
        line: dict[str, Any] = {
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "late": round(self._latest * 1000, 1),
        }
        sent = 0
        if self.group is not None:
            figures = self.group.statistics()
            line["streams"] = figures.streams_open
            line["draining"] = figures.draining
            sent = figures.events_sent
            if self._counted is not None and now < self._counted[0] + 3 * _PERIOD:
                since, before = self._counted
                line["events"] = round((sent - before) / (now - since), 1)
        self._counted = now, sent
        self._latest = 0.0
        self._line = line
        return line
