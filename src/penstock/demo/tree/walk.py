"""The walk through Trio's tasks that makes a picture of them.

It changes nothing, waits for nothing, and holds on to a task until the walk after its end at most.
What it costs is bounded: of a nursery with many tasks the first and the last are drawn, and the
others counted; what a task waits for is read again only after the task has run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Final, NamedTuple, TypeAlias, final

import trio

from penstock.demo.tree.internals import Scoped, age, scoped, scoped_nursery
from penstock.demo.tree.names import fit
from penstock.demo.tree.record import Kind, Node, Picture
from penstock.demo.tree.waits import words_for

__all__ = ["DRAWN", "Walker"]

# Tasks of one nursery that are drawn: half of them the oldest, half of them the newest.
DRAWN: Final = 24

_Task: TypeAlias = trio.lowlevel.Task


class _Crowd(NamedTuple):
    """A nursery's tasks, and those of them that are drawn."""

    tasks: frozenset[_Task]
    drawn: Sequence[_Task]


@final
class Walker:
    """Makes pictures of a Trio run, in which who was in the last one has the same number.

    Args:
      drawn: how many tasks of one nursery are drawn, 2 or more.

    Attributes:
      cancelled: the numbers of those that went between the last two pictures and whom a
        cancellation had reached.
    """

    def __init__(self, *, drawn: int = DRAWN) -> None:
        self._half = drawn // 2
        self._fresh = count(1)
        # Of the last picture only, so that nothing is kept that is no more.
        self._numbers: dict[Any, int] = {}
        self._waits: dict[_Task, str] = {}
        self._crowds: dict[trio.Nursery, _Crowd] = {}
        self.cancelled: frozenset[int] = frozenset()
        # Unix time less Trio's, taken once: deadlines would seem to move otherwise.
        self._offset = time.time() - trio.current_time()

    @property
    def drawn(self) -> Collection[_Task]:
        """The tasks that are in the last picture."""
        return self._waits.keys()

    def forget(self) -> None:
        """Hold on to nothing but the numbers of those in the last picture."""
        self._waits, self._crowds = {}, {}

    def walk(self, ran: Collection[_Task] | None = None, exited: Collection[_Task] = ()) -> Picture:
        """Return a picture of all that is there now.

        Args:
          ran: the tasks that have run since the last walk, if that is known; what the others wait
            for is not read again.
          exited: the tasks that have ended since, and that a cancellation had reached.

        Cancellation:
          Synchronous, no checkpoint.
        """
        numbers: dict[Any, int] = {}
        waits: dict[_Task, str] = {}
        crowds: dict[trio.Nursery, _Crowd] = {}
        picture: dict[int, Node] = {}
        root = trio.lowlevel.current_root_task()
        assert root is not None  # it runs in a task
        todo: list[tuple[_Task, int | None]] = [(root, None)]
        for task, parent in todo:  # which grows meanwhile
            number = numbers[task] = self._number(task)
            known = None if ran is None or task in ran else self._waits.get(task)
            said = waits[task] = _waits_for(task) if known is None else known
            picture[number] = self._node(parent, Kind.TASK, _name(task), scoped(task), said)
            for nursery in task.child_nurseries:
                within = numbers[nursery] = self._number(nursery)
                picture[within] = self._node(number, Kind.NURSERY, "", scoped_nursery(nursery))
                crowd = crowds[nursery] = self._crowd(nursery)
                todo.extend((child, within) for child in crowd.drawn)
                if more := len(crowd.tasks) - len(crowd.drawn):
                    others = numbers[within] = self._number(within)
                    picture[others] = Node(within, Kind.MORE, str(more))
        self.cancelled = frozenset(self._cancelled_of(exited, numbers))
        self._numbers, self._waits, self._crowds = numbers, waits, crowds
        return picture

    def _cancelled_of(self, exited: Collection[_Task], now: Mapping[Any, int]) -> Iterator[int]:
        for gone, number in self._numbers.items():
            if gone in now:
                continue
            if gone in exited or (
                isinstance(gone, trio.Nursery)
                and (gone.cancel_scope.cancel_called or gone.parent_task in exited)
            ):
                yield number

    def draws(self, task: _Task) -> bool:
        """Tell whether a task was in the last picture."""
        return task in self._numbers

    def _number(self, of: Any) -> int:
        number = self._numbers.get(of)
        return next(self._fresh) if number is None else number

    def _node(
        self, parent: int | None, kind: Kind, name: str, said: Scoped, waits_for: str = ""
    ) -> Node:
        at = said.deadline  # -inf is Trio's own, for a moment, in who is cancelled already
        deadline = round((at + self._offset) * 1000) if math.isfinite(at) else None
        return Node(parent, kind, name, waits_for, deadline, said.cancelled, said.shielded)

    def _crowd(self, nursery: trio.Nursery) -> _Crowd:
        tasks = nursery.child_tasks
        known = self._crowds.get(nursery)
        if known is not None and known.tasks == tasks:
            return known
        drawn = sorted(tasks, key=age)
        if len(drawn) > 2 * self._half:
            drawn = drawn[: self._half] + drawn[-self._half :]
        return _Crowd(tasks, drawn)


def _waits_for(task: _Task) -> str:
    if task is trio.lowlevel.current_task():
        return ""
    return words_for([frame for frame, _ in task.iter_await_frames()])


def _name(task: _Task) -> str:
    """Return a task's name: as it was given, or without the modules of its function."""
    name = fit(task.name)
    if " " in name or "." not in name:
        return name
    return name.replace(".<locals>", "").rsplit(".", 1)[-1].lstrip("_")
