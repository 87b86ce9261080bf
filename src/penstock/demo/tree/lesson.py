"""At which of its lines the newest stream's producer is, for those who read along."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, final

import trio

from penstock.demo.tree.internals import age

__all__ = ["Lesson"]


@final
class Lesson:
    """Follows the newest task whose name begins so through a function's lines.

    Args:
      beginning: of the task's name.
      function: the coroutine function that it is in.
    """

    def __init__(self, beginning: str, function: Callable[..., Any]) -> None:
        self._beginning = beginning
        self._code = function.__code__
        self._task: trio.lowlevel.Task | None = None
        self._turns = 0

    def line(
        self, tasks: Iterable[trio.lowlevel.Task], ran: Collection[trio.lowlevel.Task]
    ) -> dict[str, int] | None:
        """Return where it waits, or None when there is no such task.

        That is ``line``, counted from the function's first, which is 0; and ``turns``, a number
        that has grown if the task has run since the last look.

        Args:
          tasks: those that there are.
          ran: those that have run since the last look.
        """
        newest = max(
            (task for task in tasks if task.name.startswith(self._beginning)),
            key=age,
            default=None,
        )
        if newest is not self._task or newest in ran:
            self._turns += 1
        self._task = newest
        if newest is None:
            return None
        for frame, line in newest.iter_await_frames():
            if frame.f_code is self._code:
                return {"line": line - self._code.co_firstlineno, "turns": self._turns}
        return None
