"""Those who watch a run, and what is done for them: ten looks a second, one for all.

Nothing is done while nobody watches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple, final

import trio

from penstock.demo.tree.internals import exited_cancelled
from penstock.demo.tree.names import masked
from penstock.demo.tree.record import Moment, Record
from penstock.demo.tree.walk import Walker
from penstock.event import ServerSentEvent
from penstock.stream.producer import Producer

__all__ = ["FRAME", "Look", "Watch"]

# Seconds from one look to the next.
FRAME: Final = 0.1

_Task = trio.lowlevel.Task


class Look(NamedTuple):
    """What is known of a look at the tree, beside the picture."""

    late: float
    """Seconds by which it came later than it was due."""
    spent: float
    """Seconds of processor time that the one before took, until all had been told of it."""
    drawn: Collection[_Task]
    """The tasks that are in the picture."""
    ran: Collection[_Task]
    """The tasks that have run since the last one."""


@final
class Watch:
    """The running tree of one Trio run, as event streams.

    Args:
      facts: returns what else there is to tell, by name, as JSON knows it; called at each look.
      retry: milliseconds until a watcher comes back.
    """

    def __init__(
        self, facts: Callable[[Look], Mapping[str, Any]], *, retry: int | None = None
    ) -> None:
        self._facts = facts
        self._retry = retry
        self._record = Record()
        self._walker: Walker | None = None
        self._seen: _Seen | None = None
        self._watchers = 0
        self._spent = 0.0
        self._frame: int | None = None  # the last that was looked at, if somebody watched since

    def producer(self, you: str, event_id: str | None, *, mask: bool = False) -> Producer:
        """Return the producer for one watcher.

        Its events are ``you``, with a name; then ``snapshot``, with everything, and ``change``,
        with what is otherwise than in the event before: at most ten a second, fewer if its channel
        is full.

        Args:
          you: what the watcher's own stream can be known by.
          event_id: the id of the last event that it was told before it came back, or None.
          mask: whether aliases stand for the addresses of clients, its own included.

        Cancellation:
          The producer can be cancelled wherever it waits; the last to go ends what is done.
        """

        async def watch(events: trio.abc.SendChannel[ServerSentEvent]) -> None:
            told = event_id
            await events.send(
                ServerSentEvent(masked(you) if mask else you, event="you", retry=self._retry)
            )
            with self._watched():
                frame = _frame_of(trio.current_time())
                while True:
                    started = time.thread_time()
                    self._look(frame)
                    now = round(time.time() * 1000)
                    event = self._record.event_since(told, now=now, mask=mask)
                    self._spent += time.thread_time() - started
                    if event is not None:
                        told = event.id
                        await events.send(event)
                    # All look at the same moments, so that one look is enough for all.
                    frame = max(frame, _frame_of(trio.current_time())) + 1
                    await trio.sleep_until(frame * FRAME)

        return watch

    @contextmanager
    def _watched(self) -> Iterator[None]:
        self._watchers += 1
        if self._seen is None:
            self._seen = _Seen(self._draws)
            trio.lowlevel.add_instrument(self._seen)
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers:
                seen, self._seen, self._frame = self._seen, None, None
                with suppress(KeyError):  # Trio drops one that has failed, and logs that
                    trio.lowlevel.remove_instrument(seen)
                if self._walker is not None:
                    self._walker.forget()

    def _draws(self, task: _Task) -> bool:
        return self._walker is not None and self._walker.draws(task)

    def _look(self, frame: int) -> None:
        """Note what there is to see, if that was not done for this frame."""
        if self._frame is not None and frame <= self._frame:
            return
        assert self._seen is not None  # somebody watches
        first, self._frame = self._frame is None, frame
        if self._walker is None:
            self._walker = Walker()
        ran, exited = self._seen.taken()
        picture = self._walker.walk(None if first else ran, exited)
        late = 0.0 if first else trio.current_time() - frame * FRAME
        facts = self._facts(Look(late, self._spent, self._walker.drawn, ran))
        self._spent = 0.0
        self._record.add(Moment(picture, facts, self._walker.cancelled))


def _frame_of(moment: float) -> int:
    """Return the number of the frame that a moment of Trio's clock is in."""
    return math.floor(moment / FRAME)


class _Seen(trio.abc.Instrument):
    """Notes who runs, and who of those that are drawn ends because of a cancellation.

    However long nobody asks, it holds no more than the tasks there are, and those there were in a
    picture.
    """

    def __init__(self, draws: Callable[[_Task], bool]) -> None:
        self._draws = draws
        self._ran: set[_Task] = set()
        self._exited: set[_Task] = set()
        # Looked up each time a task runs: one attribute fewer.
        self.before_task_step: Any = self._ran.add

    def task_exited(self, task: _Task) -> None:
        """Note a task that a cancellation had reached; Trio calls this for each."""
        self._ran.discard(task)
        if self._draws(task) and exited_cancelled(task):
            self._exited.add(task)

    def taken(self) -> tuple[frozenset[_Task], frozenset[_Task]]:
        """Return who has run and who has ended cancelled since this was asked last."""
        ran, exited = frozenset(self._ran), frozenset(self._exited)
        self._ran.clear()
        self._exited.clear()
        return ran, exited
