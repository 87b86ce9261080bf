"""Penstock's server runs a request of Quart-Trio in one task, however the application is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from guarded import Client, guarded
from hypercorn.middleware import ProxyFixMiddleware
from quart_trio import QuartTrio

from penstock import ServerSentEvent
from penstock.quart import EventSourceResponse


class Closing:
    """A resource that tells when it was closed."""

    def __init__(self) -> None:
        self.closed = trio.Event()

    async def aclose(self) -> None:
        self.closed.set()


def bare(app: QuartTrio) -> Any:
    return app


def wrapped(app: QuartTrio) -> Any:
    return ProxyFixMiddleware(ProxyFixMiddleware(app))


def inside(app: QuartTrio) -> Any:
    app.asgi_app = ProxyFixMiddleware(app.asgi_app)  # type: ignore[method-assign]
    return app


def own_class(app: QuartTrio) -> Any:
    class Own(app.asgi_http_class):  # type: ignore[name-defined,misc]
        pass

    app.asgi_http_class = Own
    return app


async def tasks_of_a_stream(made: Callable[[QuartTrio], Any]) -> tuple[set[str], int]:
    """Return the names of the tasks that one stream takes, and its view's status."""
    app = QuartTrio(__name__)
    resource = Closing()
    names: set[str] = set()

    async def produce(events: trio.abc.SendChannel[ServerSentEvent]) -> None:
        await events.send(ServerSentEvent("first"))
        await trio.sleep_forever()

    @app.get("/")
    async def view() -> EventSourceResponse:
        names.update(all_names())
        return EventSourceResponse(produce, owns=resource)

    async with guarded(made(app)) as (_, port):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            client = Client(stream)
            response = await client.ask()
            if response.status_code == 200:
                await client.event()
        if response.status_code == 200:
            await resource.closed.wait()
    return {name for name in names if "handle" in name or name == "request /"}, response.status_code


def all_names() -> set[str]:
    """Return the name of each task of this Trio run."""
    found: set[str] = set()
    root = trio.lowlevel.current_root_task()
    waiting = [root] if root is not None else []
    while waiting:
        task = waiting.pop()
        found.add(task.name)
        for nursery in task.child_nurseries:
            waiting.extend(nursery.child_tasks)
    return found


@pytest.mark.parametrize("made", [bare, wrapped, inside])
async def test_a_request_is_one_task(made: Callable[[QuartTrio], Any]) -> None:
    """No `require_trio`, no `use_one_task`: the server sees to it, also through middleware."""
    assert await tasks_of_a_stream(made) == ({"request /"}, 200)


async def test_an_application_with_a_connection_of_its_own_keeps_it() -> None:
    """It has tasks of its own, and nothing would close what its response owns."""
    names, status = await tasks_of_a_stream(own_class)
    assert len(names) == 3
    assert status == 500
