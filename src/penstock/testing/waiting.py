"""Waiting for what may never come: a test that does so fails, instead of hanging."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import trio
import trio.testing

__all__ = ["News", "longest_wait", "wait_until"]

# Seconds. Of a real clock, many times what a slow machine needs for what is to come at once; of a
# virtual one, which jumps over them, two days: what comes daily comes.
_REAL: Final = 10.0
_VIRTUAL: Final = 2 * 24 * 3600.0


@final
class News:
    """Says to those who wait that something has changed; they look what it is."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def tell(self) -> None:
        """Wake all who wait. Synchronous."""
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
    virtual = isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock)
    return _VIRTUAL if virtual else _REAL


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
    seconds = longest_wait()
    with trio.move_on_after(seconds) as scope:
        while not true():
            await news.wait()
    if scope.cancelled_caught:
        raise trio.TooSlowError(complain(f"within {seconds:g} s"))
