"""When a hub's events are due, and what each of them carries; the Go hub has the same.

The schedule is absolute: a publisher that is late publishes all that is due, and what it has not
published when the time is over is not published.
"""

from __future__ import annotations

import time

__all__ = ["Schedule"]

# Makes the data about 100 bytes long.
_PADDING = "x" * 64


class Schedule:
    """So many events per second for so many seconds, from now on; times are in nanoseconds.

    Args:
      rate: events per second.
      seconds: for how long.
      start: when, on the clock CLOCK_MONOTONIC.
    """

    def __init__(self, rate: float, seconds: float, *, start: int) -> None:
        self.published = 0
        self._start = start
        self._period = 1e9 / rate
        self._total = int(rate * seconds)
        self._end = start + int(seconds * 1e9)

    def ended(self, now: int) -> bool:
        """Tell whether nothing more is to be published."""
        return self.published >= self._total or now > self._end

    def count(self, now: int) -> int:
        """Return how many events are due and not published."""
        due = min(int((now - self._start) / self._period) + 1, self._total)
        return max(due - self.published, 0)

    def wait(self, now: int) -> float:
        """Return for how many seconds none is due."""
        return max(self._due() - now, 0) / 1e9

    def next(self, now: int) -> str:
        """Return the data of the event that is published now: see the Go package `stamp`."""
        data = f"{_PADDING}@{self.published} {self._due()} {now}"
        self.published += 1
        return data

    def figures(self, now: int) -> dict[str, int | bool]:
        """Return what the load client asks for at the end."""
        return {"published": self.published, "ended": self.ended(now)}

    def _due(self) -> int:
        return self._start + int(self.published * self._period)


# What a server has before it was told to start.
NOTHING = Schedule(1, 0, start=time.monotonic_ns())
