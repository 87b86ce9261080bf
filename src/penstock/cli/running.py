"""How a command runs that works until it is done, or until it is stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import click
import trio

from penstock.cli.standard_streams import Output, Unread
from penstock.process_signals import end_at_next, exiting_at, stopping_signals

__all__ = ["run"]


def run(work: Callable[[], Awaitable[None]], *, output: Output | None = None) -> int:
    """Run a command's work; return the status to exit with.

    It is 0 when the work is done; 130 after SIGINT (Ctrl-C), 143 after SIGTERM and 129 after
    SIGHUP, which cancel the work; a second one ends the process at once. Where an output is given,
    a pipe that nobody reads any more ends the work, and that is 0, too: its reader has had enough.

    Raises:
      click.ClickException: the work raised it.
    """
    # Before the work begins, and when it is over, a signal has nothing to cancel.
    with exiting_at(stopping_signals()):
        return trio.run(_run, work, output)


async def _run(work: Callable[[], Awaitable[None]], output: Output | None) -> int:
    status, failure, numbers = 0, None, stopping_signals()

    async def end_at_signal(signals: AsyncIterator[int]) -> None:
        nonlocal status
        number = await anext(signals)
        end_at_next(numbers)
        status = 128 + number
        nursery.cancel_scope.cancel()

    async def end_when_unread(output: Output) -> None:
        await output.wait_unread()
        nursery.cancel_scope.cancel()

    with trio.open_signal_receiver(*numbers) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_at_signal, signals)
            if output is not None:
                nursery.start_soon(end_when_unread, output)
            try:
                await work()
            except click.ClickException as error:
                failure = error  # raised below, where no nursery puts it into a group
            except Unread:
                pass
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return status
