"""The route of the live tree, with how busy the server is, and at which line a producer is."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, final

import trio
from quart import request
from quart_trio import QuartTrio

from penstock.demo.access import is_of_this_machine
from penstock.demo.tree.internals import age
from penstock.demo.tree.watch import Look, Watch
from penstock.quart import EventSourceResponse, last_event_id
from penstock.stream.group import STREAM_GROUP, StreamGroup
from penstock.stream.producer import Producer

__all__ = ["Figures", "Lesson", "add_tree_route"]

# Seconds between two lines.
_PERIOD: Final = 1.0


@final
class Figures:
    """The figures of the last second.

    Attributes:
      group: the streams of the server; None while it is not known, and on servers without one.
    """

    def __init__(self) -> None:
        self.group: StreamGroup | None = None
        self._line: dict[str, Any] = {}
        self._made_at = -math.inf
        self._sent = 0  # events, until then
        self._late = 0.0  # since then
        self._spent = 0.0

    def line(self, late: float, spent: float) -> dict[str, Any]:
        """Return the figures: those of the last second, until the next is over.

        They are ``tasks``, of the Trio run; ``late``, the most milliseconds by which a look came
        later than it was due; ``cost``, the percentage of a core that the looks took; and with a
        group ``streams``, those open, ``events``, those sent to all of them in a second, and
        ``draining``. The first line, and one after a pause, has no ``cost`` and no ``events``.

        Args:
          late: seconds by which this look is late.
          spent: seconds of processor time that the look before took.
        """
        self._late = max(self._late, late)
        self._spent += spent
        now = trio.current_time()
        seconds = now - self._made_at
        if seconds < _PERIOD:
            return self._line
        known = seconds < 3 * _PERIOD
        line = self._line = {
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "late": round(self._late * 1000, 1),
        }
        if known:
            line["cost"] = round(self._spent / seconds * 100, 2)
        if self.group is not None:
            figures = self.group.statistics()
            line["streams"], line["draining"] = figures.streams_open, figures.draining
            if known:
                line["events"] = round((figures.events_sent - self._sent) / seconds, 1)
            self._sent = figures.events_sent
        self._made_at = now
        self._late = self._spent = 0.0
        return line


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


# Milliseconds until a watcher comes back.
_RETRY: Final = 1000


def add_tree_route(
    app: QuartTrio, lesson: Producer, facts: Callable[[], Mapping[str, Any]]
) -> None:
    """Give an application ``GET /tree``, the stream that draws it.

    Visitors from elsewhere see aliases in place of the addresses of clients.

    Args:
      app: the application.
      lesson: the producer of ``/sse``, whose lines are followed.
      facts: returns what else the stream is to tell, by name, as JSON knows it; called ten times
        a second while somebody watches.
    """
    figures, lines = Figures(), Lesson("producer of /sse ", lesson)

    def all_facts(look: Look) -> Mapping[str, Any]:
        return {
            "figures": figures.line(look.late, look.spent),
            "lesson": lines.line(look.drawn, look.ran),
            **facts(),
        }

    watch = Watch(all_facts, retry=_RETRY)

    @app.get("/tree")
    async def tree() -> EventSourceResponse:
        offered: Mapping[str, Any] = request.scope.get("extensions") or {}
        figures.group = offered.get(STREAM_GROUP)
        client = request.scope.get("client")
        you = _authority(*client[:2]) if client else ""
        mask = not is_of_this_machine()
        # One event may wait for a slow watcher; the next tells what has happened meanwhile.
        return EventSourceResponse(watch.producer(you, last_event_id(), mask=mask), buffer=1)


def _authority(host: str, port: int) -> str:
    """Return an address as the names of connections have it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
