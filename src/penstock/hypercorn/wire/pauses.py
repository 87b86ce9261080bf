"""Pauses of the process, during which the event loop did not look at any client.

After a stop (SIGSTOP, a debugger, a machine that swaps), or after a view that blocked the loop,
every deadline has passed. No client is to blame: what the clients sent or read meanwhile is in the
kernel, and the server has not looked. So each pause extends the clients' deadlines by its length,
before Trio acts on them.

A loop with pause after pause is slow, not paused: it has looked at each client between them. If
each of these extended the deadlines, a starved server would never disconnect a client that does not
read; so their number is limited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final, final

import trio

__all__ = ["GRACE", "detect_pauses", "extended_deadline"]

# Seconds without a look at any client that count as a pause. A busy loop looks more often; the
# guarantee allows for half a second.
_PAUSE: Final = 0.25

# How many pauses in a row extend the deadlines, and the seconds after which one more may.
_MAX_PAUSES: Final = 8
_REFILL: Final = 5.0

# Seconds that each client has after a pause, at least: several turns of the loop, in which its
# bytes are read and handled.
GRACE: Final = 0.5


@final
class _PauseDetector(trio.abc.Instrument):
    """Measures how long the loop did not look at its sockets."""

    def __init__(self, on_pause: Callable[[float], None]) -> None:
        self._looked = self._paused = perf_counter()
        self._left: float = _MAX_PAUSES
        self._on_pause = on_pause

    def after_io_wait(self, timeout: float) -> None:
        """Compare the time since the last look with the time that Trio meant to wait.

        Trio calls this after it has polled the sockets, and before it acts on passed deadlines.
        """
        now = perf_counter()
        away = now - self._looked - timeout
        self._looked = now
        if away > _PAUSE:
            self._left = min(_MAX_PAUSES, self._left + (now - self._paused) / _REFILL)
            self._paused = now
            if self._left >= 1:
                self._left -= 1
                self._on_pause(away)


@contextmanager
def detect_pauses(on_pause: Callable[[float], None]) -> Iterator[None]:
    """Call this with the length of each pause, in seconds, while the block runs."""
    instrument = _PauseDetector(on_pause)
    trio.lowlevel.add_instrument(instrument)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(instrument)


def extended_deadline(deadline: float, pause: float) -> float:
    """Return the deadline after a pause that has just ended."""
    return max(deadline + pause, trio.current_time() + GRACE)
