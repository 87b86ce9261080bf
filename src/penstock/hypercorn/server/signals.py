"""When a server is told to stop: by its caller, by itself, or by a signal nobody else takes."""

from __future__ import annotations

import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import final

import trio

from penstock.process_signals import end_at_next, stopping_signals

__all__ = ["StopSignals", "first_of", "is_free", "stop_signals"]


@final
class StopSignals:
    """The signals that stop this process's server."""

    def __init__(
        self, numbers: list[signal.Signals], received: AsyncIterator[int] | None, *, worker: bool
    ) -> None:
        self._numbers = numbers
        self._received = received
        self._worker = worker

    async def wait(self) -> None:
        """Wait for the first signal; for ever, if none is caught."""
        if self._received is None:
            await trio.sleep_forever()
        else:
            await anext(self._received)

    def stopping(self) -> None:
        """From now on, let a signal end the process at once; a worker ignores it.

        Hypercorn's master terminates its other workers as soon as one has ended, in the middle of
        their drain; they end by themselves, in their time.
        """
        if not self._worker:
            end_at_next(self._numbers)
            return
        for number in self._numbers:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_signals(*, instead: bool, worker: bool = False) -> Iterator[StopSignals]:
    """Catch the signals that stop a server, while the block runs.

    Args:
      instead: whether there is no other way to stop it. Then SIGINT, SIGTERM and SIGHUP are caught,
        if they still have their default effect, in the main thread.
      worker: whether this is a process of Hypercorn's master. There SIGTERM is caught in any case,
        and SIGHUP, which a closing terminal sends to all of them; after the first both are ignored.
    """
    numbers = []
    if threading.current_thread() is threading.main_thread() and (worker or instead):
        numbers = [each for each in stopping_signals() if is_free(each)]
        if worker:
            others = [each for each in numbers if each not in (signal.SIGINT, signal.SIGTERM)]
            numbers = [signal.SIGTERM, *others]
    if not numbers:
        yield StopSignals([], None, worker=worker)
        return
    with trio.open_signal_receiver(*numbers) as received:
        yield StopSignals(numbers, received, worker=worker)


async def first_of(*functions: Callable[[], Awaitable[object]]) -> None:
    """Run all of these until the first returns."""

    async def run(function: Callable[[], Awaitable[object]]) -> None:
        await function()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for function in functions:
            nursery.start_soon(run, function, name="waits for the stop")


def is_free(number: signal.Signals) -> bool:
    """Tell whether nobody but Python and Trio handles a signal."""
    handler = signal.getsignal(number)
    if number is signal.SIGINT:
        module = getattr(handler, "__module__", None) or ""
        return handler is signal.default_int_handler or module.startswith("trio.")
    return handler is signal.SIG_DFL
