"""Waiting for what may never come: a test that does so fails, instead of hanging."""

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

__all__ = ["News", "Patience", "longest_wait", "pause", "wait_until"]

# Seconds. Of real time, many times what a slow machine needs for what is to come at once; of a
# clock that jumps, two days: what comes daily comes.
_REAL: Final = 10.0
_JUMPING: Final = 2 * 24 * 3600.0


@final
class News:
    """Tells waiting tasks that something has changed; they look for themselves what it is."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def tell(self) -> None:
        """Wake all waiting tasks. Synchronous."""
        self._event.set()
        self._event = trio.Event()

    async def wait(self) -> None:
        """Wait until something changes.

        Cancellation:
          A checkpoint.
        """
        await self._event.wait()


def longest_wait() -> float:
    """Return for how many seconds a test waits, at most, on the clock of this run."""
    return _JUMPING if _clock_jumps() else _REAL


def _clock_jumps() -> bool:
    clock = trio.lowlevel.current_clock()
    return isinstance(clock, trio.testing.MockClock) and clock.autojump_threshold < math.inf


def _clock_is_real() -> bool:
    """Tell whether the clock of this run goes by itself, as far as anybody knows."""
    return not isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock)


async def pause(seconds: float) -> None:
    """Sleep, in real time where the clock of this run may stand still.

    Cancellation:
      A checkpoint.
    """
    if _clock_jumps() or _clock_is_real():
        await trio.sleep(seconds)
    else:
        await trio.to_thread.run_sync(time.sleep, seconds, abandon_on_cancel=True)


@final
class Patience:
    """A cancel scope that gives up after a time, on any clock.

    A `trio.testing.MockClock` that does not jump may stand still for ever, and then so would a
    deadline: on such a clock a thread measures real time.

    Args:
      seconds: until it gives up.
      real: whether they are seconds of real time on every clock, for what may wait for threads:
        an autojump clock jumps over those.

    Attributes:
      scope: the cancel scope.
      tasks: what was going on when it gave up: what ``look`` returned then.
    """

    def __init__(
        self, seconds: float, *, real: bool = False, look: Callable[[], str] = str
    ) -> None:
        self.seconds: float = seconds
        self.scope: trio.CancelScope = trio.CancelScope()
        self.tasks: str = ""
        self._look = look
        self._watched = real or not (_clock_jumps() or _clock_is_real())
        self._token = trio.lowlevel.current_trio_token()
        self._until = math.inf
        self._left = threading.Event()

    @property
    def exhausted(self) -> bool:
        """Whether it gave up, and cancelled what was in it."""
        return self.scope.cancelled_caught

    def renew(self) -> None:
        """Start to count anew. Synchronous."""
        if self._watched:
            self._until = time.monotonic() + self.seconds
        else:
            self.scope.deadline = trio.current_time() + self.seconds

    def __enter__(self) -> Self:
        self.renew()
        if self._watched:
            threading.Thread(target=self._watch, daemon=True, name="patience").start()
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
                    self._token.run_sync_soon(self._give_up)
                return

    def _give_up(self) -> None:
        if not self._left.is_set():
            self.tasks = self._look()
            self.scope.cancel()


async def wait_until(true: Callable[[], bool], news: News, complain: Callable[[str], str]) -> None:
    """Wait until something is true.

    Args:
      true: what.
      news: when to look again.
      complain: says what is missing; it is given "within so many seconds".

    Raises:
      trio.TooSlowError: it did not become true.

    Cancellation:
      A checkpoint. When it returns, nothing has happened since it looked.
    """
    await trio.lowlevel.checkpoint()
    if true():
        return
    with Patience(longest_wait()) as patience:
        while not true():
            await news.wait()
    if patience.exhausted:
        raise trio.TooSlowError(complain(f"within {patience.seconds:g} s"))
