"""Watching a Trio run: ten looks a second, shared by all watchers.

Rule: nothing is done while nobody watches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple, final

import trio

from penstock.demo.task_tree.internals import exited_cancelled
from penstock.demo.task_tree.record import Moment, Record, masked
from penstock.demo.task_tree.walk import Walker
from penstock.event import ServerSentEvent
from penstock.stream.producer import Producer

__all__ = ["FRAME", "Look", "Watch"]

# Seconds from one look to the next.
FRAME: Final = 0.1

_Task = trio.lowlevel.Task


class Look(NamedTuple):
    """What is known about a look at the tree, besides the picture."""

    late: float
    """Seconds by which it is late."""
    spent: float
    """Seconds of processor time that the previous one took, events included."""
    drawn: Collection[_Task]
    """The tasks in the picture."""
    ran: Collection[_Task]
    """The tasks that have run since the previous one."""


@final
class Watch:
    """The running tree of one Trio run, as event streams.

    Args:
      facts: returns further facts, as a JSON object; called at each look.
      retry: milliseconds until a watcher reconnects.
    """

    def __init__(
        self, facts: Callable[[Look], Mapping[str, Any]], *, retry: int | None = None
    ) -> None:
        self._facts = facts
        self._retry = retry
        self._record = Record()
        self._walker: Walker | None = None
        self._activity: _Activity | None = None
        self._watchers = 0
        self._spent = 0.0
        self._frame: int | None = None  # of the last look, if somebody has watched since

    def producer(self, you: str, event_id: str | None, *, mask: bool = False) -> Producer:
        """Return the producer for one watcher.

        Its events are ``you``, with a name; then ``snapshot``, with everything, and ``change``,
        with the changes since the previous event: at most ten a second, fewer if its channel is
        full.

        Args:
          you: the name by which the watcher can find its own stream in the tree.
          event_id: the id of the last event that it received before it reconnected, or None.
          mask: whether to replace addresses by aliases, its own included.

        Cancellation:
          The producer can be cancelled wherever it waits. The last watcher to leave ends the looks.
        """

        async def watch(events: trio.abc.SendChannel[ServerSentEvent]) -> None:
            seen = event_id
            await events.send(
                ServerSentEvent(masked(you) if mask else you, event="you", retry=self._retry)
            )
            with self._watched():
                frame = _frame_of(trio.current_time())
                while True:
                    started = time.thread_time()
                    self._look(frame)
                    now = round(time.time() * 1000)
                    event = self._record.event_since(seen, now=now, mask=mask)
                    self._spent += time.thread_time() - started
                    if event is not None:
                        seen = event.id
                        await events.send(event)
                    # All watchers look at the same moments, so that one look serves all.
                    frame = max(frame, _frame_of(trio.current_time())) + 1
                    await trio.sleep_until(frame * FRAME)

        return watch

    @contextmanager
    def _watched(self) -> Iterator[None]:
        self._watchers += 1
        if self._activity is None:
            self._activity = _Activity(self._draws)
            trio.lowlevel.add_instrument(self._activity)
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers:
                activity, self._activity, self._frame = self._activity, None, None
                with suppress(KeyError):  # Trio removes an instrument that raises, and logs that
                    trio.lowlevel.remove_instrument(activity)
                if self._walker is not None:
                    self._walker.forget()

    def _draws(self, task: _Task) -> bool:
        return self._walker is not None and self._walker.draws(task)

    def _look(self, frame: int) -> None:
        """Record this frame, unless another watcher has done so."""
        if self._frame is not None and frame <= self._frame:
            return
        assert self._activity is not None  # somebody watches
        first, self._frame = self._frame is None, frame
        if self._walker is None:
            self._walker = Walker()
        ran, exited = self._activity.take()
        picture = self._walker.walk(None if first else ran, exited)
        late = 0.0 if first else trio.current_time() - frame * FRAME
        facts = self._facts(Look(late, self._spent, self._walker.drawn, ran))
        self._spent = 0.0
        self._record.add(Moment(picture, facts, self._walker.cancelled))


def _frame_of(moment: float) -> int:
    """Return the number of the frame at a time of Trio's clock."""
    return math.floor(moment / FRAME)


class _Activity(trio.abc.Instrument):
    """Notes which tasks run, and which of the drawn ones end after a cancellation.

    It never holds more than the living tasks and those in the last picture.
    """

    def __init__(self, draws: Callable[[_Task], bool]) -> None:
        self._draws = draws
        self._ran: set[_Task] = set()
        self._exited: set[_Task] = set()
        # Trio calls this before each step of a task: the set's own method costs the least.
        self.before_task_step: Any = self._ran.add

    def task_exited(self, task: _Task) -> None:
        """Note the task if a cancellation had reached it; Trio calls this at each task's end."""
        self._ran.discard(task)
        if self._draws(task) and exited_cancelled(task):
            self._exited.add(task)

    def take(self) -> tuple[frozenset[_Task], frozenset[_Task]]:
        """Return the tasks that have run, and that have ended cancelled, since the last call."""
        ran, exited = frozenset(self._ran), frozenset(self._exited)
        self._ran.clear()
        self._exited.clear()
        return ran, exited
