"""The signals that end a process: in good order at the first, at once at the second.

As process 1, which a container's command is, the kernel gives a signal no default action: it would
be ignored. So wherever the default action is wanted, process 1 has a handler that exits.
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

    SIGHUP is what a closing terminal sends; `nohup` has it ignored, and it stays so.
    """
    if _HANG_UP is None or signal.getsignal(_HANG_UP) is signal.SIG_IGN:
        return (signal.SIGINT, signal.SIGTERM)
    return (signal.SIGINT, signal.SIGTERM, _HANG_UP)


def end_at_next(numbers: Iterable[int]) -> None:
    """From now on, have each of these signals end the process at once."""
    for number in numbers:
        signal.signal(number, _exit if os.getpid() == 1 else signal.SIG_DFL)


@contextmanager
def exiting_at(numbers: Iterable[int]) -> Iterator[None]:
    """While the block runs, have each of these signals exit at once, with 128 and its number.

    Whoever handles one within the block, as `trio.open_signal_receiver` does, has it meanwhile.
    """
    before = {number: signal.signal(number, _exit) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_at_interrupt() -> None:
    """Have Ctrl-C exit at once, without a traceback: where nothing runs that would need an end.

    In process 1, so do the other signals that stop a command, which would be ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)
    if os.getpid() == 1:
        others = [each for each in stopping_signals() if each is not signal.SIGINT]
        end_at_next(each for each in others if signal.getsignal(each) is signal.SIG_DFL)


def raise_at_interrupt() -> None:
    """Have Ctrl-C raise KeyboardInterrupt again, after `exit_at_interrupt`."""
    if signal.getsignal(signal.SIGINT) is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _exit(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)
