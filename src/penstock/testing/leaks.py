"""What is left over: tasks, streams, subscriptions and hubs that were not there before.

Theory of operation: tasks are found by walking Trio's tree of them. Streams and hubs hold no list
of themselves, and a leaked one may be held by nobody who could be asked: so they are found where
Python has all objects, with the garbage collector.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import compress
from typing import Final, TypeAlias

import trio

from penstock.hub import Hub
from penstock.stream import EventStream
from penstock.testing.waiting import pause

__all__ = ["GRACE", "below", "left_over", "no_leaks", "open_things", "tell"]

Task: TypeAlias = trio.lowlevel.Task

# Seconds: twice what the guarantee gives a client that stopped reading before it left.
GRACE: Final = 1.0

# Seconds between two looks at whether something has gone; they add up exactly. What goes, goes soon
# for the most part, and each look is at all objects of the process.
_PAUSES: Final = (1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 4, 1 / 4)


@asynccontextmanager
async def no_leaks() -> AsyncIterator[None]:
    """Assert that a block leaves nothing behind.

        async with no_leaks():
            await my_server.handle(request)

    At its end there may be no task, open event stream, open hub, or subscription to an open hub
    that was not there at its beginning, wherever in this run of Trio it belongs to. What lingers
    has a second to go. Tasks that a hub has for itself are the hub's.

    Raises:
      AssertionError: something is left; the message names it. A task is named after its function,
        with the line at which it waits.

    Cancellation:
      Leaving is a checkpoint if something lingers. When the block raises, nothing is checked.
    """
    before = _all_there()
    yield
    left = await left_over(lambda: _all_there() - before)
    if left:
        raise AssertionError(f"left behind:\n{tell(left)}")


def _all_there() -> set[object]:
    """Return every task of this run, and every stream, hub and subscription that is open."""
    root = trio.lowlevel.current_root_task()
    assert root is not None  # as it is called within a run
    return {*below(root), *open_things()}


def below(task: Task) -> Iterator[Task]:
    """Iterate a task and all in its nurseries, but for those that a hub has for itself."""
    yield task
    if getattr(task.coro, "cr_code", None) is Hub.run.__code__:
        return  # producers on demand linger, and are started again, as the hub sees fit
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from below(child)


async def left_over(look: Callable[[], set[object]]) -> set[object]:
    """Return what is still found when the grace is over; nothing as soon as nothing is found.

    Cancellation:
      A checkpoint if something is found.
    """
    for seconds in _PAUSES:
        if not (left := look()):
            return left
        await pause(seconds)  # there is no event to wait for: what ends does not say so
    return look()


def tell(left: Iterable[object]) -> str:
    """Return a line for each thing that is left."""
    return "\n".join(f"  - {line}" for line in sorted(map(_describe, left)))


def _describe(left: object) -> str:
    """Say what a task is and where it waits; of anything else, its own description."""
    if not isinstance(left, Task):
        return repr(left)
    said = f"task {left.name!r}"
    frames = list(left.iter_await_frames())
    # Where its author would look: the innermost line that is not Trio's own.
    own = [frame for frame in frames if not _of_trio(frame[0].f_globals)]
    if own:
        frame, line = own[-1]
        said += f", waiting at {frame.f_code.co_filename}:{line} in {frame.f_code.co_name}()"
    # Of which a virtual clock knows nothing.
    if any(frame.f_code is trio.to_thread.run_sync.__code__ for frame, _ in frames):
        said += " for a thread"
    return said


def _of_trio(names: dict[str, object]) -> bool:
    return str(names.get("__name__")).partition(".")[0] in ("trio", "outcome", "contextlib")


def open_things() -> Iterator[object]:
    """Iterate the streams, hubs and subscriptions that are open."""
    everything = gc.get_objects()
    # Not isinstance(): what an object says of its class may be code, such as a proxy's. And not
    # one by one: there may be a million.
    for each in compress(everything, map({EventStream, Hub}.__contains__, map(type, everything))):
        if type(each) is EventStream and each.statistics().open:
            yield each
        elif type(each) is Hub and _is_open(each):
            yield each
            yield from each.subscriptions


def _is_open(hub: Hub) -> bool:
    try:
        hub.check_open()
    except (trio.ClosedResourceError, RuntimeError):  # or it is another Trio run's
        return False
    return True
