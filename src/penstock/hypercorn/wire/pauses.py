"""Pauses of our own: moments in which the event loop looked at no client.

A process that was stopped (SIGSTOP, a debugger, a machine that swaps) or a view that blocks the
loop finds every deadline passed when it goes on. None of that is a client's fault: what the clients
sent or read meanwhile is in the kernel, and nobody has looked there. So each pause moves the
deadlines that judge clients by its own length, before Trio acts on them.

A loop that is away again and again is slow, and not paused: it has looked at each client between.
If that moved deadlines, too, a starved server would never let a client go that does not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final, final

import trio

__all__ = ["LOOK", "moving_deadlines", "postponed"]

# Seconds without a look at any client that count as a pause. A loop that is merely busy looks more
# often than this; what is promised about clients allows for half a second.
_PAUSE: Final = 0.25

# Pauses that move deadlines, one after the other, and the seconds in which there is one more.
_MOST_PAUSES: Final = 8
_ONE_MORE: Final = 5.0

# Seconds that each client has left after a pause, at least: several turns of the loop, in which its
# bytes are read and acted on.
LOOK: Final = 0.5


@final
class _Pauses(trio.abc.Instrument):
    """Sees how long the loop was away between two looks at its sockets."""

    def __init__(self, moved: Callable[[float], None]) -> None:
        self._looked = self._paused = perf_counter()
        self._left: float = _MOST_PAUSES
        self._moved = moved

    def after_io_wait(self, timeout: float) -> None:
        """Compare the time since the last look with what was waited for on purpose.

        Trio calls this when it has looked, and before it acts on deadlines that have passed.
        """
        now = perf_counter()
        away = now - self._looked - timeout
        self._looked = now
        if away > _PAUSE:
            self._left = min(_MOST_PAUSES, self._left + (now - self._paused) / _ONE_MORE)
            self._paused = now
            if self._left >= 1:
                self._left -= 1
                self._moved(away)


@contextmanager
def moving_deadlines(move: Callable[[float], None]) -> Iterator[None]:
    """Have this called with the length of each pause, in seconds, while the block runs."""
    instrument = _Pauses(move)
    trio.lowlevel.add_instrument(instrument)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(instrument)


def postponed(deadline: float, pause: float) -> float:
    """Return what becomes of a deadline by a pause that has just ended."""
    return max(deadline + pause, trio.current_time() + LOOK)
