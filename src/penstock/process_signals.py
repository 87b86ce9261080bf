"""The signals that end a process: the first in an orderly way, the second at once.

Process 1, such as a container's command, has no default actions: the kernel ignores its signals. So
where the default action is needed, process 1 has a handler that exits.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

__all__ = [
    "end_at_next",
    "exit_at_interrupt",
    "exiting_at",
    "raise_at_interrupt",
    "stopping_signals",
]

_HANG_UP: Final[signal.Signals | None] = getattr(signal, "SIGHUP", None)  # Windows has none


def stopping_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that stop a command: SIGINT, SIGTERM, and SIGHUP unless it is ignored.

    A closing terminal sends SIGHUP; `nohup` makes a command ignore it.
    """
    if _HANG_UP is None or signal.getsignal(_HANG_UP) is signal.SIG_IGN:
        return (signal.SIGINT, signal.SIGTERM)
    return (signal.SIGINT, signal.SIGTERM, _HANG_UP)


def end_at_next(numbers: Iterable[int]) -> None:
    """Make each of these signals end the process at once from now on."""
    for number in numbers:
        signal.signal(number, _exit if os.getpid() == 1 else signal.SIG_DFL)


@contextmanager
def exiting_at(numbers: Iterable[int]) -> Iterator[None]:
    """While the block runs, exit at once at each of these signals, with 128 plus its number.

    A handler that is set within the block, as by `trio.open_signal_receiver`, takes precedence.
    """
    before = {number: signal.signal(number, _exit) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_at_interrupt() -> None:
    """Make Ctrl-C exit at once, without a traceback, while there is nothing to clean up.

    In process 1, so do the other signals that stop a command, which it would ignore.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)
    if os.getpid() == 1:
        others = [each for each in stopping_signals() if each is not signal.SIGINT]
        end_at_next(each for each in others if signal.getsignal(each) is signal.SIG_DFL)


def raise_at_interrupt() -> None:
    """Make Ctrl-C raise KeyboardInterrupt again, after `exit_at_interrupt`."""
    if signal.getsignal(signal.SIGINT) is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _exit(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)
