"""`penstock.hypercorn.serve` called from a program."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from hypercorn.config import Config
from hypercorn.utils import LifespanFailureError
from quart_trio import QuartTrio

from penstock import CloseReason, ServerSentEvent
from penstock.hypercorn import Server, serve
from penstock.quart import EventSourceResponse


async def wait(events: trio.abc.SendChannel[ServerSentEvent]) -> None:
    await trio.sleep_forever()


@pytest.fixture
def app() -> QuartTrio:
    app = QuartTrio(__name__)

    @app.get("/")
    async def stream() -> EventSourceResponse:
        return EventSourceResponse(wait)

    return app


@pytest.fixture
def config() -> Config:
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.graceful_timeout = 0.5
    return config


async def open_stream(url: str) -> trio.SocketStream:
    """Ask for the stream, and wait for its first bytes."""
    client = await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))
    await client.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    received = b""
    while b":\n" not in received:
        received += await client.receive_some()
    return client


async def test_cancelled_without_a_trigger(app: QuartTrio, config: Config) -> None:
    """A program may just cancel the server: its streams are gone when that is done."""
    server = Server(app, config)
    group = server.streams
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            (url,) = await nursery.start(server.serve)
            client = await open_stream(url)
            assert group.statistics().streams_open == 1
            nursery.cancel_scope.cancel()
        await client.aclose()
    assert group.statistics().streams_open == 0
    assert group.statistics().streams_closed == {CloseReason.DISCONNECTED: 1}


async def test_triggered(app: QuartTrio, config: Config) -> None:
    """The trigger drains the streams: the client has a proper end."""
    server, stop = Server(app, config), trio.Event()
    group = server.streams
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            run = partial(server.serve, shutdown_trigger=stop.wait)
            (url,) = await nursery.start(run)
            client = await open_stream(url)
            stop.set()
            received = b""
            while not received.endswith(b"0\r\n\r\n"):
                received += await client.receive_some()
            await client.aclose()
    assert group.statistics().streams_closed == {CloseReason.DRAINING: 1}


async def test_an_application_that_fails_to_start_has_not_started(config: Config) -> None:
    """`task_status` is told of a start only where there was one."""
    app = QuartTrio(__name__)

    @app.before_serving
    async def fail() -> None:
        raise LookupError("away")

    started = []
    with trio.fail_after(60), pytest.RaisesGroup(LifespanFailureError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            started += await nursery.start(partial(serve, app, config))
    assert not started
