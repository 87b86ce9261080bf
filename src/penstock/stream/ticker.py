"""A ticker for producers that send periodically.

Each `trio.sleep` costs a cancel scope, a deadline and a `trio.Cancelled`: some 20 µs, which with
10,000 producers is most of their server's work. Tickers share one sleep: one of the waiting tasks
sleeps until the earliest tick is due, wakes the tasks whose ticks are due, and hands the sleeping
over to another. There is no additional task, and nothing remains when no task waits.
"""

from __future__ import annotations

import heapq
import math
from itertools import count
from typing import Any, Final, final

import outcome
import trio

__all__ = ["Ticker"]

# Seconds between two wake-ups: ticks that are due within this time share one wake-up instead of a
# hundred. No tick is early.
_RESOLUTION: Final = 0.002


@final
class Ticker:
    """Ticks once per period, first after one period, on a schedule that does not drift.

    Ticks that were due while the caller was busy, or waited for a slow client, are skipped.

    Args:
      period: seconds, above 0.

    Raises:
      ValueError: the period is not above 0.
    """

    def __init__(self, period: float) -> None:
        if not 0 < period < math.inf:
            raise ValueError(f"period must be a number of seconds above 0: {period}")
        self._schedule = _schedule_of_this_run()
        self._period = period
        self._start = trio.current_time()
        self._ticks = 0  # the number of the last tick

    async def tick(self) -> None:
        """Wait for the next tick.

        Cancellation:
          A checkpoint. If cancelled, that tick is lost, and no other.
        """
        elapsed = trio.current_time() - self._start
        self._ticks = max(self._ticks + 1, math.ceil(elapsed / self._period))
        await self._schedule.wait_until(self._start + self._ticks * self._period)


@final
class _Schedule:
    """The tasks of one Trio run that wait for a tick."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, trio.lowlevel.Task]] = []  # a heap
        self._cancelled: set[int] = set()  # numbers of cancelled tasks that are still in the heap
        self._numbers = count()
        self._has_sleeper = False  # a task sleeps for all, or has been woken to do it
        self._sleep: trio.CancelScope | None = None
        self._last_wake_up = -math.inf

    async def wait_until(self, deadline: float) -> None:
        """Wait until a time; meanwhile, this task may be the one that sleeps for all."""
        number = next(self._numbers)
        task = trio.lowlevel.current_task()
        heapq.heappush(self._waiting, (deadline, number, task))
        if not self._has_sleeper:
            await self._sleep_for_all(number)
            return
        if self._sleep is not None and deadline < self._sleep.deadline:
            self._sleep.deadline = max(deadline, self._last_wake_up + _RESOLUTION)

        def abort(_: Any) -> trio.lowlevel.Abort:
            self._note_cancelled(number)
            return trio.lowlevel.Abort.SUCCEEDED

        due = await trio.lowlevel.wait_task_rescheduled(abort)
        if not due:
            await self._sleep_for_all(number)

    async def _sleep_for_all(self, number: int) -> None:
        """Sleep and wake other tasks until this one is due; then another task sleeps."""
        self._has_sleeper = True
        try:
            while True:
                self._drop_cancelled()
                earliest = self._waiting[0][0]
                deadline = max(earliest, self._last_wake_up + _RESOLUTION)
                with trio.CancelScope(deadline=deadline) as self._sleep:
                    await trio.sleep_forever()
                if self._wake_due(number):
                    return
        except BaseException:
            self._note_cancelled(number)
            raise
        finally:
            self._sleep = None
            self._drop_cancelled()
            self._has_sleeper = bool(self._waiting)
            if self._waiting:
                # Not due yet: it stays in the heap, and is woken to sleep for all.
                trio.lowlevel.reschedule(self._waiting[0][2], outcome.Value(False))

    def _wake_due(self, number: int) -> bool:
        """Wake all tasks that are due; return whether the task with this number is due."""
        now = self._last_wake_up = trio.current_time()
        mine = False
        while self._waiting and self._waiting[0][0] <= now:
            _, each, task = heapq.heappop(self._waiting)
            if each in self._cancelled:
                self._cancelled.remove(each)
            elif each == number:
                mine = True
            else:
                trio.lowlevel.reschedule(task, outcome.Value(True))
        return mine

    def _note_cancelled(self, number: int) -> None:
        """Note that a task was cancelled; rebuild the heap if most of its tasks are."""
        self._cancelled.add(number)
        if len(self._cancelled) > max(64, len(self._waiting) // 2):
            self._waiting = [each for each in self._waiting if each[1] not in self._cancelled]
            heapq.heapify(self._waiting)
            self._cancelled.clear()

    def _drop_cancelled(self) -> None:
        while self._waiting and self._waiting[0][1] in self._cancelled:
            self._cancelled.remove(heapq.heappop(self._waiting)[1])


_schedule: Final[trio.lowlevel.RunVar[_Schedule]] = trio.lowlevel.RunVar("penstock schedule")


def _schedule_of_this_run() -> _Schedule:
    try:
        return _schedule.get()
    except LookupError:
        schedule = _Schedule()
        _schedule.set(schedule)
        return schedule
