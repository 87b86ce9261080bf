"""The route of the demonstration's live tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from quart import request
from quart_trio import QuartTrio

from penstock.demo.access import is_of_this_machine
from penstock.demo.tree.figures import Figures
from penstock.demo.tree.lesson import Lesson
from penstock.demo.tree.watch import Look, Watch
from penstock.quart import EventSourceResponse, last_event_id
from penstock.stream.group import STREAM_GROUP
from penstock.stream.producer import Producer

__all__ = ["add_tree_route"]

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
