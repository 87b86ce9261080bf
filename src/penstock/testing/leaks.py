"""Leak detection: tasks, streams, subscriptions and hubs that were not there before.

Theory of operation: tasks are found in Trio's task tree. There is no list of streams and hubs, and
a leaked one may not be reachable from anywhere: so they are found among all of Python's objects,
with the garbage collector.
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
from penstock.testing.waiting import sleep

__all__ = ["GRACE", "describe", "leftovers", "no_leaks", "open_objects", "task_tree"]

Task: TypeAlias = trio.lowlevel.Task

# Seconds: twice the guarantee for a client that stopped reading before it disconnected.
GRACE: Final = 1.0

# Seconds between two checks; their sum is exact. Most things end soon, and each check goes through
# all objects of the process.
_PAUSES: Final = (1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 4, 1 / 4)


@asynccontextmanager
async def no_leaks() -> AsyncIterator[None]:
    """Assert that a block leaves nothing behind.

        async with no_leaks():
            await my_server.handle(request)

    At its end there must be no task, open event stream, open hub, or subscription to an open hub
    that was not there at its beginning, anywhere in this Trio run. They have a second to end. The
    tasks that a hub runs for itself do not count.

    Raises:
      AssertionError: something is left; the message names it. A task is named after its function,
        with the line at which it waits.

    Cancellation:
      Leaving is a checkpoint if something is left. If the block raises, nothing is checked.
    """
    before = _all_there()
    yield
    left = await leftovers(lambda: _all_there() - before)
    if left:
        raise AssertionError(f"left behind:\n{describe(left)}")


def _all_there() -> set[object]:
    """Return all tasks of this run, and all streams, hubs and subscriptions that are open."""
    root = trio.lowlevel.current_root_task()
    assert root is not None  # within a run
    return {*task_tree(root), *open_objects()}


def task_tree(task: Task) -> Iterator[Task]:
    """Iterate a task and all tasks in its nurseries, except those that a hub runs for itself."""
    yield task
    if getattr(task.coro, "cr_code", None) is Hub.run.__code__:
        return  # the hub keeps producers on demand running, and restarts them
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from task_tree(child)


async def leftovers(find: Callable[[], set[object]]) -> set[object]:
    """Return what is still found after a second; nothing as soon as nothing is found.

    Cancellation:
      A checkpoint if something is found.
    """
    for seconds in _PAUSES:
        if not (left := find()):
            return left
        await sleep(seconds)  # there is no event to wait for
    return find()


def describe(left: Iterable[object]) -> str:
    """Return a line for each thing that is left."""
    return "\n".join(f"  - {line}" for line in sorted(map(_description, left)))


def _description(left: object) -> str:
    """Return a task's name and where it waits; for anything else, its repr."""
    if not isinstance(left, Task):
        return repr(left)
    said = f"task {left.name!r}"
    frames = list(left.iter_await_frames())
    # The line that the author wants to see: the innermost one that is not Trio's.
    own = [frame for frame in frames if not _of_trio(frame[0].f_globals)]
    if own:
        frame, line = own[-1]
        said += f", waiting at {frame.f_code.co_filename}:{line} in {frame.f_code.co_name}()"
    # A virtual clock does not wait for it.
    if any(frame.f_code is trio.to_thread.run_sync.__code__ for frame, _ in frames):
        said += " for a thread"
    return said


def _of_trio(names: dict[str, object]) -> bool:
    return str(names.get("__name__")).partition(".")[0] in ("trio", "outcome", "contextlib")


def open_objects() -> Iterator[object]:
    """Iterate the streams, hubs and subscriptions that are open."""
    everything = gc.get_objects()
    # Not isinstance(), which may run an object's code, such as a proxy's; and not one by one: there
    # may be a million.
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
