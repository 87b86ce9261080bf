"""A hub in a Quart-Trio application: its lifetime is the application's, and its views stream it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from quart_trio import QuartTrio

from hub_fakes import SlowHistory
from penstock import CloseReason, Hub, ServerSentEvent, StreamGroup
from penstock.quart import EventSourceResponse, add_hub, last_event_id
from penstock.stream.group import STREAM_GROUP
from penstock.stream.source import COMMENT
from penstock.testing import FakeClient
from subscription_steps import position_id

Clock = trio.testing.MockClock


def at(hub: Hub, position: int) -> bytes:
    return position_id(hub, position).encode()


def app_with_hub(history: Any = None) -> tuple[QuartTrio, Hub]:
    app = QuartTrio("hub_test")
    hub = add_hub(app, log=history, batch_delay=0)

    @app.get("/")
    async def stream() -> EventSourceResponse:
        return EventSourceResponse(hub.subscription(["a"], last_event_id=last_event_id()))

    return app, hub


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[list[dict[str, Any]]]:
    """Start up, serve while the block runs, shut down, as a server does; give what was said."""
    to_app, from_server = trio.open_memory_channel[dict[str, Any]](2)
    to_server, from_app = trio.open_memory_channel[dict[str, Any]](2)
    said: list[dict[str, Any]] = []
    async with trio.open_nursery() as nursery:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}
        nursery.start_soon(app, scope, from_server.receive, to_server.send)
        await to_app.send({"type": "lifespan.startup"})
        said.append(await from_app.receive())
        if said[0]["type"] == "lifespan.startup.complete":
            yield said
            await to_app.send({"type": "lifespan.shutdown"})
            said.append(await from_app.receive())
        else:
            yield said
            nursery.cancel_scope.cancel()


async def test_the_hub_is_open_while_the_application_is_served(autojump_clock: Clock) -> None:
    """From the start-up to the end of the shutdown; and again, when it is served again."""
    history = SlowHistory(1)
    app, hub = app_with_hub(history)
    tasks = trio.lowlevel.current_statistics().tasks_living
    for number in range(3):
        with pytest.raises(trio.ClosedResourceError):
            await hub.publish(ServerSentEvent("x"), ["a"])
        async with served(app) as said, trio.open_nursery() as nursery:
            client = FakeClient(app, headers={"Last-Event-ID": str(number - 1)} if number else None)
            nursery.start_soon(client.run)
            await trio.sleep(1)
            await hub.publish(ServerSentEvent("x", id=str(number)), ["a"])
            nursery.start_soon(hub.publish, ServerSentEvent("waits", id=f"{number} waits"), ["a"])
            await trio.sleep(0.1)
            client.disconnect()
        assert [each["type"] for each in said] == [
            "lifespan.startup.complete",
            "lifespan.shutdown.complete",
        ]
        data = b"id: %d\ndata: x\n\n" % number
        before = b"id: %b\n\n" % at(hub, 0)
        if number:
            before = b"id: %d waits\ndata: waits\n\n" % (number - 1)
        assert client.body == COMMENT + before + data
        assert history.newest.id == f"{number} waits"
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert hub.statistics().subscriptions_open == 0
    assert (history.opened, history.closed) == (3, 3)


async def test_a_history_that_cannot_be_opened_is_why_it_does_not_start(
    autojump_clock: Clock,
) -> None:
    """The server is told in the history's own words; later it may start."""
    history = SlowHistory()
    history.failing = "open"
    app, hub = app_with_hub(history)
    async with served(app) as said:
        assert said == [{"type": "lifespan.startup.failed", "message": "open fails"}]
    assert hub.closed
    history.failing = None
    async with served(app) as said:
        assert said[0]["type"] == "lifespan.startup.complete"
    assert (history.opened, history.closed) == (2, 2)


async def test_the_header_tells_where_the_stream_goes_on(autojump_clock: Clock) -> None:
    """A client that asked for another id than this one has missed something, and hears what."""
    app, hub = app_with_hub()
    async with served(app), trio.open_nursery() as nursery:
        for number, id_ in enumerate(["1", "é\u20ac", "3"]):
            await hub.publish(ServerSentEvent(str(number), id=id_), ["a"])
        await trio.sleep(1)
        for asked, told, data in (
            (None, at(hub, 3).decode(), []),
            ("1", "1", ["data: 1", "data: 2"]),
            ("é\u20ac", "é\u20ac", ["data: 2"]),
            ("unknown", at(hub, 3).decode(), ['data: {"last_event_id":"unknown"}']),
            ("earliest", None, ["data: 0", "data: 1", "data: 2"]),
        ):
            client = FakeClient(app)
            if asked:
                client.scope["headers"].append((b"last-event-id", asked.encode()))
            nursery.start_soon(client.run)
            await trio.sleep(1)
            client.disconnect()
            assert client.headers.get("last-event-id") == told
            lines = client.body.decode().splitlines()
            assert [line for line in lines if line.startswith("data")] == data
        client = FakeClient(app, method="HEAD")
        await client.run()
        assert client.headers["last-event-id"] == at(hub, 3).decode()
        assert client.body == b""
        await trio.sleep(1)
        figures = hub.statistics()
        assert (figures.subscriptions_open, figures.audiences) == (0, 0)
        assert figures.subscriptions_closed == {CloseReason.DISCONNECTED: 5}


async def test_an_empty_hub_has_a_position(autojump_clock: Clock) -> None:
    """Who loses the connection before the first event that there ever was gets that, too."""
    app, hub = app_with_hub()
    async with served(app), trio.open_nursery() as nursery:
        client = FakeClient(app)
        nursery.start_soon(client.run)
        await trio.sleep(1)
        client.disconnect()
        assert client.headers["last-event-id"] == at(hub, 0).decode()
        assert client.body == COMMENT + b"id: %b\n\n" % at(hub, 0)


async def test_what_is_published_between_head_and_body_is_not_lost(autojump_clock: Clock) -> None:
    """The stream begins where its header says, however long the response takes to be sent."""
    app, hub = app_with_hub()

    @app.after_request
    async def delay(response: Any) -> Any:
        await trio.sleep(1)
        return response

    async with served(app), trio.open_nursery() as nursery:
        await hub.publish(ServerSentEvent("0", id="0"), ["a"])
        await trio.sleep(1)
        client = FakeClient(app)
        nursery.start_soon(client.run)
        await trio.sleep(0.5)
        await hub.publish(ServerSentEvent("1", id="1"), ["a"])
        await trio.sleep(2)
        client.disconnect()
        here = client.headers["last-event-id"].encode()
        after = {at(hub, 1): b"id: 1\ndata: 1\n\n", at(hub, 2): b""}
        assert client.body.endswith(b"id: %b\n\n%b" % (here, after[here]))


async def test_the_server_stops_its_streams_first(autojump_clock: Clock) -> None:
    """Drained clients know when to come back; then the hub closes with nobody left."""
    app, hub = app_with_hub()
    group = StreamGroup()
    async with served(app), trio.open_nursery() as nursery:
        clients = [FakeClient(app, extensions={STREAM_GROUP: group}) for _ in range(3)]
        for client in clients:
            nursery.start_soon(client.run)
        await trio.sleep(1)
        await hub.publish(ServerSentEvent("last", id="1"), ["a"])
        await trio.sleep(1)
        await group.drain(reconnect_spread=5)
    for client in clients:
        assert client.ended
        assert b"data: last\n\nretry: " in client.body
    assert hub.statistics().subscriptions_closed == {CloseReason.DRAINING: 3}


async def test_the_hub_closed_under_way_ends_its_streams(autojump_clock: Clock) -> None:
    """An application may close it; who comes then has an empty stream."""
    app, hub = app_with_hub()
    async with served(app) as said:
        async with trio.open_nursery() as nursery:
            client = FakeClient(app)
            nursery.start_soon(client.run)
            await trio.sleep(1)
            await hub.publish(ServerSentEvent("last", id="1"), ["a"])
            hub.close()
        assert client.body == COMMENT + b"id: %b\n\nid: 1\ndata: last\n\n" % at(hub, 0)
        late = FakeClient(app)
        await late.run()
        assert (late.status, late.body, late.ended) == (200, COMMENT, True)
    assert said[1]["type"] == "lifespan.shutdown.complete"
    assert hub.statistics().subscriptions_open == 0
