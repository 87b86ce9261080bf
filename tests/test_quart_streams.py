"""EventSourceResponse in Quart: the stream behind the answer, its end, and its line in the log."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing
from quart import Response
from quart_trio import QuartTrio

from penstock import CloseReason, ServerSentEvent, StreamGroup
from penstock.quart import EventSourceResponse
from penstock.stream.group import STREAM_GROUP
from penstock.testing import FakeClient
from quart_fakes import App, Events


async def test_streams_until_the_client_disconnects(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """A disconnect cancels the producer at once, and one line in the log says so."""
    app = App()
    client = FakeClient(app)
    tasks = trio.lowlevel.current_statistics().tasks_living
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        await trio.sleep(3.5)
        client.disconnect()
    assert trio.current_time() == start + 3.5
    assert app.finished_at == [start + 3.5]
    assert client.body == b":\n" + 3 * b"data: tick\n\n"
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    (line,) = [record for record in caplog.records if record.name == "stream_test"]
    assert line.levelno == logging.INFO
    assert line.getMessage() == (
        "/ 192.0.2.1:50000 disconnected after 3.50 s, 3 events sent, producer cancelled"
    )


async def test_the_response_has_its_stream(autojump_clock: trio.testing.MockClock) -> None:
    """Who keeps the response can end its stream, and read its figures."""
    app = QuartTrio("stream_test")
    made: list[EventSourceResponse] = []

    @app.get("/")
    async def view() -> EventSourceResponse:
        made.append(EventSourceResponse(App().produce))
        return made[0]

    client = FakeClient(app)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        await trio.sleep(2.5)
        made[0].stream.end(CloseReason.KICKED)
    assert client.ended
    assert made[0].stream.close_reason is CloseReason.KICKED
    assert made[0].stream.statistics().events_sent == 2


async def test_response_timeout_does_not_cut_it(autojump_clock: trio.testing.MockClock) -> None:
    """Quart's RESPONSE_TIMEOUT, a minute by default, leaves streams alone."""
    app = App(max_lifetime=600.5)
    assert app.config["RESPONSE_TIMEOUT"] == 60
    client = FakeClient(app)
    await client.run()
    assert client.body.count(b"data: tick") == 600
    assert client.ended


async def test_a_producer_that_raises_ends_the_response(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """One record with the traceback, one line of the request, a proper end, and no more."""
    app = QuartTrio("stream_test")
    app.logger.setLevel(logging.INFO)

    async def produce(events: Events) -> None:
        await events.send(ServerSentEvent("a"))
        raise LookupError("no such thing")

    @app.get("/")
    async def stream() -> EventSourceResponse:
        return EventSourceResponse(produce)

    client = FakeClient(app)
    await client.run()
    assert (client.body, client.ended) == (b":\ndata: a\n\n", True)
    error, line = caplog.records
    assert error.exc_info is not None
    assert isinstance(error.exc_info[1], LookupError)
    assert line.exc_info is None
    assert error.getMessage() == "/ 192.0.2.1:50000: the producer failed"
    assert "failed after 0.00 s, 1 event sent, producer failed" in line.getMessage()


async def test_a_stalled_client_that_disconnects_releases_its_producer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Where the server's send can be cancelled, a client that reads nothing holds nobody."""
    app = App()
    client = FakeClient(app, takes=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        await trio.sleep(100)
        client.disconnect()
    assert app.finished_at == [trio.current_time()]


async def test_a_server_ends_its_streams(autojump_clock: trio.testing.MockClock) -> None:
    """The group that a server offers counts the stream, and can drain it."""
    app, group = App(), StreamGroup()
    client = FakeClient(app, extensions={STREAM_GROUP: group})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        await trio.sleep(2.5)
        assert group.statistics().streams_open == 1
        assert group.statistics().events_sent == 2
        await group.drain()
    assert client.ended
    assert group.statistics().streams_closed == {CloseReason.DRAINING: 1}


async def test_a_response_that_is_never_sent_has_acquired_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """An after_request function that fails leaves no producer and no count behind."""
    app, group = App(), StreamGroup()

    @app.after_request
    async def fail(response: Response) -> Response:
        raise LookupError

    client = FakeClient(app, extensions={STREAM_GROUP: group})
    await client.run()
    assert client.status == 500
    assert app.started == 0
    assert group.statistics() == StreamGroup().statistics()


@pytest.mark.parametrize(
    ("path", "client", "says"),
    [
        ("/x\ty\x1b[2J", ("::1", 5), "/x%09y%1B%5B2J [::1]:5 expired"),
        ("/é", None, "/%C3%A9 local expired"),
    ],
)
async def test_the_line_of_the_log_is_one_line(
    path: str,
    client: tuple[str, int] | None,
    says: str,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Whatever the path was, it cannot write anything else into a terminal or a log."""
    app = App()

    @app.get("/<path:rest>")
    async def deeper(rest: str) -> EventSourceResponse:
        return EventSourceResponse(app.produce, max_lifetime=1)

    await FakeClient(app, path, client=client).run()
    assert caplog.messages[-1].startswith(says)
