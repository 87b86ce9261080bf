"""Turns that come round: for producers that say something every so often.

`trio.sleep` is a cancel scope, a deadline and a `trio.Cancelled` each time: some 20 µs, which with
10,000 producers is most of what their server does. Tickers share one sleep: of all tasks that wait
for a turn, one sleeps until the earliest is due, wakes those that are, and leaves its place to
another. There is no task beside them, and nothing is left when the last has gone.
"""

from __future__ import annotations

import heapq
import math
from itertools import count
from typing import Any, Final, final

import outcome
import trio

__all__ = ["Ticker"]

# Seconds between two looks at whose turn it is: turns that are this close come together, which
# makes one wake-up of a hundred. No turn comes earlier than it should.
_TOGETHER: Final = 0.002


@final
class Ticker:
    """Comes back once each period, the first time after one, on a schedule that does not drift.

    Periods that went by while its user was busy, or waited for a slow client, are left out.

    Args:
      period: seconds, above 0.

    Raises:
      ValueError: the period is not above 0.
    """

    def __init__(self, period: float) -> None:
        if not 0 < period < math.inf:
            raise ValueError(f"period must be a number of seconds above 0: {period}")
        self._turns = _turns_of_this_run()
        self._period = period
        self._start = trio.current_time()
        self._turn = 0

    async def tick(self) -> None:
        """Wait for the next turn.

        Cancellation:
          A checkpoint. Cancelled, it loses that turn and no other.
        """
        elapsed = trio.current_time() - self._start
        self._turn = max(self._turn + 1, math.ceil(elapsed / self._period))
        await self._turns.wait_until(self._start + self._turn * self._period)


@final
class _Turns:
    """Who waits for a turn in one Trio run."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, trio.lowlevel.Task]] = []
        self._gone: set[int] = set()  # numbers of those that were cancelled and are listed still
        self._numbers = count()
        self._somebody_sleeps = False  # or has been told to
        self._sleep: trio.CancelScope | None = None
        self._looked_at = -math.inf

    async def wait_until(self, deadline: float) -> None:
        """Wait for a moment, in turn as the one who sleeps for all."""
        number = next(self._numbers)
        task = trio.lowlevel.current_task()
        heapq.heappush(self._waiting, (deadline, number, task))
        if not self._somebody_sleeps:
            await self._sleep_for_all(number)
            return
        if self._sleep is not None and deadline < self._sleep.deadline:
            self._sleep.deadline = max(deadline, self._looked_at + _TOGETHER)

        def abort(_: Any) -> trio.lowlevel.Abort:
            self._leave(number)
            return trio.lowlevel.Abort.SUCCEEDED

        due = await trio.lowlevel.wait_task_rescheduled(abort)
        if not due:
            await self._sleep_for_all(number)

    async def _sleep_for_all(self, number: int) -> None:
        """Sleep and wake others until it is this one's turn; then another one sleeps."""
        self._somebody_sleeps = True
        try:
            while True:
                self._forget_gone()
                earliest = self._waiting[0][0]
                deadline = max(earliest, self._looked_at + _TOGETHER)
                with trio.CancelScope(deadline=deadline) as self._sleep:
                    await trio.sleep_forever()
                if self._wake_those_due(number):
                    return
        except BaseException:
            self._leave(number)
            raise
        finally:
            self._sleep = None
            self._forget_gone()
            self._somebody_sleeps = bool(self._waiting)
            if self._waiting:
                # It stays in the list, and is told to sleep: it is not due yet.
                trio.lowlevel.reschedule(self._waiting[0][2], outcome.Value(False))

    def _wake_those_due(self, number: int) -> bool:
        """Wake all whose turn it is; tell whether the one of this number is among them."""
        now = self._looked_at = trio.current_time()
        mine = False
        while self._waiting and self._waiting[0][0] <= now:
            _, each, task = heapq.heappop(self._waiting)
            if each in self._gone:
                self._gone.remove(each)
            elif each == number:
                mine = True
            else:
                trio.lowlevel.reschedule(task, outcome.Value(True))
        return mine

    def _leave(self, number: int) -> None:
        """Note that one was cancelled; when most have been, the list is made anew."""
        self._gone.add(number)
        if len(self._gone) > max(64, len(self._waiting) // 2):
            self._waiting = [each for each in self._waiting if each[1] not in self._gone]
            heapq.heapify(self._waiting)
            self._gone.clear()

    def _forget_gone(self) -> None:
        while self._waiting and self._waiting[0][1] in self._gone:
            self._gone.remove(heapq.heappop(self._waiting)[1])


_of_this_run: Final[trio.lowlevel.RunVar[_Turns]] = trio.lowlevel.RunVar("penstock turns")


def _turns_of_this_run() -> _Turns:
    try:
        return _of_this_run.get()
    except LookupError:
        turns = _Turns()
        _of_this_run.set(turns)
        return turns
