"""What the blocks of a test wait for, and what they raise.

Rule 1: a test that waits for something that never happens fails, instead of hanging.

Rule 2: the error of the test's own block comes first, since the author is looking for it: neither a
complaint of this package nor a cancellation while the block is left replaces it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self, final

import trio
import trio.testing

__all__ = [
    *("Changes", "TimeLimit", "default_limit", "is_cancellation", "raise_first", "sleep"),
    *("unwrapped", "wait_until"),
]

# Seconds. In real time, many times what a slow machine needs for something immediate; on a clock
# that jumps, two days: even something daily happens.
_REAL: Final = 10.0
_JUMPING: Final = 2 * 24 * 3600.0


@final
class Changes:
    """Wakes waiting tasks when something has changed; they check what it is."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def notify(self) -> None:
        """Wake all waiting tasks. Synchronous."""
        self._event.set()
        self._event = trio.Event()

    async def wait(self) -> None:
        """Wait until something changes.

        Cancellation:
          A checkpoint.
        """
        await self._event.wait()


def default_limit() -> float:
    """Return how many seconds a test waits at most, on the clock of this run."""
    return _JUMPING if _clock_jumps() else _REAL


def _clock_jumps() -> bool:
    clock = trio.lowlevel.current_clock()
    return isinstance(clock, trio.testing.MockClock) and clock.autojump_threshold < math.inf


def _clock_is_real() -> bool:
    """Return whether the clock of this run is not a virtual one."""
    return not isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock)


async def sleep(seconds: float) -> None:
    """Sleep, in real time if the clock of this run may stand still.

    Cancellation:
      A checkpoint.
    """
    if _clock_jumps() or _clock_is_real():
        await trio.sleep(seconds)
    else:
        await trio.to_thread.run_sync(time.sleep, seconds, abandon_on_cancel=True)


@final
class TimeLimit:
    """A cancel scope with a time limit, on any clock.

    A `trio.testing.MockClock` that does not jump may stand still forever, and a deadline with it:
    on such a clock, a thread measures real time.

    Args:
      seconds: the limit.
      real: whether it is in real time on every clock, for what may wait for threads: an autojump
        clock jumps while they work.
      describe: returns the current state; called when the limit is exceeded.

    Attributes:
      scope: the cancel scope.
      tasks: what ``describe`` returned.
    """

    def __init__(
        self, seconds: float, *, real: bool = False, describe: Callable[[], str] = str
    ) -> None:
        self.seconds: float = seconds
        self.scope: trio.CancelScope = trio.CancelScope()
        self.tasks: str = ""
        self._describe = describe
        self._watched = real or not (_clock_jumps() or _clock_is_real())
        self._token = trio.lowlevel.current_trio_token()
        self._until = math.inf
        self._left = threading.Event()

    @property
    def exceeded(self) -> bool:
        """Whether the limit was exceeded, and the block cancelled."""
        return self.scope.cancelled_caught

    def renew(self) -> None:
        """Restart the time. Synchronous."""
        if self._watched:
            self._until = time.monotonic() + self.seconds
        else:
            self.scope.deadline = trio.current_time() + self.seconds

    def __enter__(self) -> Self:
        self.renew()
        if self._watched:
            threading.Thread(target=self._watch, daemon=True, name="time limit").start()
        self.scope.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._left.set()
        return self.scope.__exit__(kind, error, traceback)

    def _watch(self) -> None:
        while not self._left.wait(max(0.0, self._until - time.monotonic())):
            if time.monotonic() >= self._until:
                with suppress(trio.RunFinishedError):
                    self._token.run_sync_soon(self._exceed)
                return

    def _exceed(self) -> None:
        if not self._left.is_set():
            self.tasks = self._describe()
            self.scope.cancel()


async def wait_until(
    condition: Callable[[], bool], changes: Changes, complaint: Callable[[str], str]
) -> None:
    """Wait until a condition is true.

    Args:
      condition: the condition.
      changes: says when to check it again.
      complaint: returns the text of the error; its argument is "within … s".

    Raises:
      trio.TooSlowError: it did not become true in time.

    Cancellation:
      A checkpoint. When it returns, nothing has happened since the last check.
    """
    await trio.lowlevel.checkpoint()
    if condition():
        return
    with TimeLimit(default_limit()) as limit:
        while not condition():
            await changes.wait()
    if limit.exceeded:
        raise trio.TooSlowError(complaint(f"within {limit.seconds:g} s"))


def is_cancellation(error: BaseException) -> bool:
    """Return whether an error is a Trio cancellation and nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_cancellation, error.exceptions))
    return isinstance(error, trio.Cancelled)


def unwrapped(error: Exception) -> Exception:
    """Return the only error in a group, however deep, or the error itself."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def raise_first(raised: BaseException | None, complaint: Exception | None) -> None:
    """Raise the block's error, with the complaint as a note, or else the complaint."""
    if raised is not None:
        if complaint is not None:
            raised.add_note(str(complaint))
        raise raised
    if complaint is not None:
        raise complaint
