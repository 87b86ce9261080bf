"""The running Trio task tree as an event stream, ``GET /tree``, with figures of the server's load.

A look at the tree (`walk`, with what `internals` reads) gives a picture; `record` keeps the last
pictures and makes events of their differences; `watch` does so ten times a second while anybody
watches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, final

import trio
from quart import request
from quart_trio import QuartTrio

from penstock.demo.access_control import is_from_this_machine
from penstock.demo.task_tree.internals import age
from penstock.demo.task_tree.watch import Look, Watch
from penstock.quart import EventSourceResponse, last_event_id
from penstock.stream.group import STREAM_GROUP, StreamGroup
from penstock.stream.producer import Producer

__all__ = ["CurrentLine", "Figures", "add_tree_route"]

# Seconds over which figures are taken.
_PERIOD: Final = 1.0


@final
class Figures:
    """The figures of the last second.

    Attributes:
      group: the server's streams; None until it is known, and on servers without one.
    """

    def __init__(self) -> None:
        self.group: StreamGroup | None = None
        self._latest: dict[str, Any] = {}
        self._made_at = -math.inf
        self._sent = 0  # events, until then
        self._late = 0.0  # since then
        self._spent = 0.0

    def take(self, late: float, spent: float) -> dict[str, Any]:
        """Return the figures of the last second, the same until the next has passed.

        They are ``tasks``, the tasks of the Trio run; ``late``, the greatest delay of a look in
        milliseconds; ``cost``, the percentage of a core spent on looks; and with a group,
        ``streams``, those open, ``events``, those sent to all of them per second, and
        ``draining``. The first figures, and those after a pause, lack ``cost`` and ``events``.

        Args:
          late: seconds by which this look is late.
          spent: seconds of processor time that the previous look took.
        """
        self._late = max(self._late, late)
        self._spent += spent
        now = trio.current_time()
        seconds = now - self._made_at
        if seconds < _PERIOD:
            return self._latest
        known = seconds < 3 * _PERIOD
        figures = self._latest = {
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "late": round(self._late * 1000, 1),
        }
        if known:
            figures["cost"] = round(self._spent / seconds * 100, 2)
        if self.group is not None:
            group = self.group.statistics()
            figures["streams"], figures["draining"] = group.streams_open, group.draining
            if known:
                figures["events"] = round((group.events_sent - self._sent) / seconds, 1)
            self._sent = group.events_sent
        self._made_at = now
        self._late = self._spent = 0.0
        return figures


@final
class CurrentLine:
    """The line of a coroutine function at which the newest of certain tasks waits.

    Args:
      prefix: the beginning of the tasks' names.
      function: the coroutine function.
    """

    def __init__(self, prefix: str, function: Callable[..., Any]) -> None:
        self._prefix = prefix
        self._code = function.__code__
        self._task: trio.lowlevel.Task | None = None
        self._turns = 0

    def find(
        self, tasks: Iterable[trio.lowlevel.Task], ran: Collection[trio.lowlevel.Task]
    ) -> dict[str, int] | None:
        """Return ``line``, counted from the function's first as 0, or None without such a task.

        Beside it is ``turns``, a number that grows if the task has run since the last look.

        Args:
          tasks: all tasks.
          ran: those that have run since the last look.
        """
        newest = max(
            (task for task in tasks if task.name.startswith(self._prefix)),
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


# Milliseconds until a watcher reconnects.
_RETRY: Final = 1000


def add_tree_route(
    app: QuartTrio, example: Producer, facts: Callable[[], Mapping[str, Any]]
) -> None:
    """Give an application ``GET /tree``.

    Clients on other machines see aliases instead of addresses.

    Args:
      app: the application.
      example: the producer of ``/sse``, whose current line is part of the stream.
      facts: returns further facts for the stream, as a JSON object; called ten times a second
        while anybody watches.
    """
    figures, current = Figures(), CurrentLine("producer of /sse ", example)

    def all_facts(look: Look) -> Mapping[str, Any]:
        return {
            "figures": figures.take(look.late, look.spent),
            "example": current.find(look.drawn, look.ran),
            **facts(),
        }

    watch = Watch(all_facts, retry=_RETRY)

    @app.get("/tree")
    async def tree() -> EventSourceResponse:
        offered: Mapping[str, Any] = request.scope.get("extensions") or {}
        figures.group = offered.get(STREAM_GROUP)
        client = request.scope.get("client")
        you = _authority(*client[:2]) if client else ""
        mask = not is_from_this_machine()
        # At most one event waits for a slow watcher: the next covers everything since.
        return EventSourceResponse(watch.producer(you, last_event_id(), mask=mask), buffer=1)


def _authority(host: str, port: int) -> str:
    """Return an address as it appears in the names of connections."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
