"""A response that cannot begin, must not be sent like that, or is not sent at all."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from quart import Response
from quart_trio import QuartTrio

from penstock import Hub, ServerSentEvent, StreamGroup
from penstock.errors import LogError
from penstock.quart import EventSourceResponse, last_event_id, use_one_task
from penstock.stream.group import STREAM_GROUP
from penstock.stream.source import Tally
from penstock.testing import FakeClient
from quart_fakes import App, Events

Clock = trio.testing.MockClock


class Source:
    """A subscription whose hub cannot say where it is."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.located = 0

    waiting, expired, ended, producer_state = 0, False, True, None
    written, last_direct_write, preamble = Tally(), 0.0, b""
    start: Any = None
    stop = ready = wait = take = end = start

    def claim(self) -> None: ...

    async def locate(self) -> str | None:
        self.located += 1
        raise self.error


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("error", [trio.ClosedResourceError, LogError])
async def test_a_source_that_cannot_begin(
    error: type[Exception], method: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """503 with a line that says why, the same line in the log, and nothing is kept."""
    app = QuartTrio("beginning_test")
    group = StreamGroup()

    @app.get("/")
    async def view() -> EventSourceResponse:
        return EventSourceResponse(Source(error("the hub is not open")))

    for _ in range(3):
        client = FakeClient(app, method=method, extensions={STREAM_GROUP: group})
        await client.run()
        assert (client.status, client.ended) == (503, True)
        assert client.headers["content-type"].startswith("text/plain")
        if method == "GET":
            assert client.body == b"This stream cannot begin: the hub is not open\n"
    assert group.statistics().streams_open == 0
    assert [each.exc_info for each in caplog.records] == [None] * 3
    assert "cannot begin: the hub is not open" in caplog.records[0].getMessage()


async def test_a_stream_that_fails_to_begin_is_not_kept(autojump_clock: Clock) -> None:
    """Its hub is not open: whatever the client is told, the server's group forgets it."""
    app = QuartTrio("beginning_test")
    hub, group = Hub(), StreamGroup()

    @app.get("/")
    async def view() -> EventSourceResponse:
        return EventSourceResponse(hub.subscription(["a"]))

    client = FakeClient(app, extensions={STREAM_GROUP: group})
    try:
        await client.run()
    except* trio.ClosedResourceError:
        pass
    assert not (client.status == 200 and client.ended)
    assert group.statistics().streams_open == 0


async def test_a_response_that_is_not_returned_reads_no_history(autojump_clock: Clock) -> None:
    """Another answer, and a stream of a plain producer, wait for nothing."""
    app = App(max_lifetime=1)
    source = Source(ValueError())

    @app.get("/another")
    async def another() -> str:
        EventSourceResponse(source)
        return "another"

    client = FakeClient(app, "/another")
    await client.run()
    assert (client.status, client.body) == (200, b"another")
    assert source.located == 0


@pytest.mark.parametrize("ours", [True, False], ids=["our connection", "Quart-Trio's"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("Content-Length", "7"), ("Transfer-Encoding", "chunked"), ("Content-Encoding", "br")],
)
async def test_a_head_that_contradicts_the_body(
    name: str, value: str, ours: bool, autojump_clock: Clock
) -> None:
    """An `after_request` function sets it: the producer is not started, and the cause is named."""
    app = App()
    if ours:
        use_one_task(app)

    @app.after_request
    async def spoil(response: Response) -> Response:
        response.headers[name] = value
        return response

    client = FakeClient(app)
    if ours:
        await client.run()
        assert client.status == 500
        assert f"must not have the header {name}" in client.body.decode()
    else:
        with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match=name)):
            await client.run()
    assert app.started == 0


@pytest.mark.parametrize("value", ["identity", "none", "NONE"])
async def test_an_encoding_that_is_none(value: str, autojump_clock: Clock) -> None:
    """It leaves the body as it is, and is passed on."""
    client = FakeClient(App(max_lifetime=1, headers={"Content-Encoding": value}))
    await client.run()
    assert (client.status, client.headers["content-encoding"]) == (200, value)


@pytest.mark.parametrize("status", [204, 304, "204 NO CONTENT", 101])
async def test_a_status_without_a_body_that_is_set_later(
    status: int | str, autojump_clock: Clock
) -> None:
    """It is an error where it is set, and the stream is not sent."""
    app = App()

    @app.after_request
    async def spoil(response: Response) -> Response:
        if response.mimetype == "text/event-stream":
            response.status = status
        return response

    client = FakeClient(app)
    await client.run()
    assert client.status == 500
    assert app.started == 0


@pytest.mark.parametrize(
    ("query", "header", "expected"),
    [
        ("", None, None),
        ("?lastEventId=7", None, "7"),
        ("?last_event_id=7", None, "7"),
        ("?lastEventID=7", None, "7"),
        ("?Last-Event-ID=7", None, "7"),
        ("?a=b&lastEventId=%C3%A9+x", None, "é x"),
        ("?lastEventId=", None, None),
        ("?lastEventId=7&last_event_id=8", None, "8"),
        ("?lastEventId=7&lastEventId=8&lastEventId=", None, "8"),
        ("?lastEventId=7", "8", "8"),
        ("?lastEventId=7", "", "7"),
        ("?x=%ff", None, None),
        ("?lastEventId=%ff", None, "\ufffd"),
    ],
)
async def test_last_event_id_in_the_query(
    query: str, header: str | None, expected: str | None
) -> None:
    """Clients that cannot set headers put it there; a header comes first, then the last."""
    app = QuartTrio("beginning_test")

    @app.get("/")
    async def view() -> str:
        return repr(last_event_id())

    headers = {} if header is None else {"Last-Event-ID": header}
    client = FakeClient(app, f"/{query}", headers=headers)
    await client.run()
    assert (client.status, client.body.decode()) == (200, repr(expected))


async def test_a_stream_that_has_expired(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A view may compute what is left of a token's time: 200, first bytes, and the end."""
    app = App(max_lifetime=-3.0)
    client = FakeClient(app)
    await client.run()
    assert (client.status, client.body, client.ended) == (200, b":\n", True)
    assert app.started == 0
    assert "expired after 0.00 s, 0 events sent" in caplog.text


async def test_no_producer_for_a_stream_that_the_server_ends_first(autojump_clock: Clock) -> None:
    """A group that drains ends what is opened from then on, before its producer is called."""
    called = []
    group = StreamGroup()
    await group.drain()
    app = QuartTrio("beginning_test")

    async def produce(events: Events) -> None:
        called.append(events)
        await events.send(ServerSentEvent("a"))

    @app.get("/")
    async def view() -> EventSourceResponse:
        return EventSourceResponse(produce)

    client = FakeClient(app, extensions={STREAM_GROUP: group})
    await client.run()
    assert (client.body, client.ended, called) == (b":\n", True, [])
