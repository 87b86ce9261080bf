"""How a server is stopped: by signals that nothing else handles, or by its caller."""

from __future__ import annotations

import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import final

import trio

from penstock.process_signals import end_at_next, stopping_signals

__all__ = ["StopSignals", "first_of", "has_default_handler", "stop_signals"]


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
        """Wait for the first signal; forever if none is caught."""
        if self._received is None:
            await trio.sleep_forever()
        else:
            await anext(self._received)

    def begin_stop(self) -> None:
        """From now on, let a signal end the process at once; a worker ignores it.

        Hypercorn's master terminates its other workers as soon as one worker has ended, even while
        they drain; workers end by themselves.
        """
        if not self._worker:
            end_at_next(self._numbers)
            return
        for number in self._numbers:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_signals(*, sole_trigger: bool, worker: bool = False) -> Iterator[StopSignals]:
    """Catch the signals that stop a server while the block runs.

    Args:
      sole_trigger: whether nothing else can stop the server. Then SIGINT, SIGTERM and SIGHUP are
        caught in the main thread, if they have their default handler.
      worker: whether this is a worker process of Hypercorn's master. A worker always catches
        SIGTERM, and SIGHUP, which a closing terminal sends to all processes. After the first signal
        it ignores both.
    """
    numbers = []
    if threading.current_thread() is threading.main_thread() and (worker or sole_trigger):
        numbers = [each for each in stopping_signals() if has_default_handler(each)]
        if worker:
            others = [each for each in numbers if each not in (signal.SIGINT, signal.SIGTERM)]
            numbers = [signal.SIGTERM, *others]
    if not numbers:
        yield StopSignals([], None, worker=worker)
        return
    with trio.open_signal_receiver(*numbers) as received:
        yield StopSignals(numbers, received, worker=worker)


async def first_of(*functions: Callable[[], Awaitable[object]]) -> None:
    """Run these functions concurrently until the first returns."""

    async def run(function: Callable[[], Awaitable[object]]) -> None:
        await function()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for function in functions:
            nursery.start_soon(run, function, name="stop trigger")


def has_default_handler(number: signal.Signals) -> bool:
    """Return whether a signal has no handler but Python's default or Trio's."""
    handler = signal.getsignal(number)
    if number is signal.SIGINT:
        module = getattr(handler, "__module__", None) or ""
        return handler is signal.default_int_handler or module.startswith("trio.")
    return handler is signal.SIG_DFL
