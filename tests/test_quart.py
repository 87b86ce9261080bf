"""EventSourceResponse in a Quart-Trio application, with a fake ASGI server and virtual time."""

from __future__ import annotations

import asyncio
import logging
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trio
import trio.testing
from quart import Quart, Response
from quart_trio import QuartTrio
from werkzeug.datastructures import Headers

from penstock import CloseReason, ServerSentEvent, StreamGroup
from penstock.quart import EventSourceResponse, last_event_id, require_trio, stop_reconnecting
from penstock.stream.group import STREAM_GROUP
from penstock.testing import FakeClient

Events = trio.abc.SendChannel[ServerSentEvent]


class App(QuartTrio):
    """An application with one stream, and a note of what its producer did."""

    def __init__(self, **options: Any) -> None:
        super().__init__("stream_test")
        self.started = 0
        self.sent = 0
        self.finished_at: list[float] = []
        self.logger.setLevel(logging.INFO)

        @self.get("/")
        async def stream() -> EventSourceResponse:
            return EventSourceResponse(self.produce, **options)

    async def produce(self, events: Events) -> None:
        self.started += 1
        try:
            while True:
                await trio.sleep(1)
                await events.send(ServerSentEvent("tick"))
                self.sent += 1
        finally:
            self.finished_at.append(trio.current_time())


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
    assert client.body == b":\n\n" + 3 * b"data: tick\n\n"
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    (line,) = [record for record in caplog.records if record.name == "stream_test"]
    assert line.levelno == logging.INFO
    assert line.getMessage() == (
        "/ 192.0.2.1:50000 disconnected after 3.50 s, 3 events sent, producer cancelled"
    )


async def test_headers(autojump_clock: trio.testing.MockClock) -> None:
    """The response says what it is, and that nobody shall cache or buffer it."""
    client = FakeClient(App(max_lifetime=1))
    await client.run()
    assert client.status == 200
    assert client.headers == {
        "content-type": "text/event-stream",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
        "connection": "keep-alive",
    }
    assert client.ended


async def test_headers_and_status_of_the_application(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Headers that are given are added, or come in the place of ours."""
    headers = {"Access-Control-Allow-Origin": "*", "cache-control": "no-store"}
    client = FakeClient(App(max_lifetime=1, headers=headers, status=203))
    await client.run()
    assert client.status == 203
    assert client.headers["access-control-allow-origin"] == "*"
    assert client.headers["cache-control"] == "no-store"
    assert headers == {"Access-Control-Allow-Origin": "*", "cache-control": "no-store"}


async def test_the_applications_headers_are_its_own(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """They are copied, and none is overruled, not even `Connection`."""
    given = Headers({"X-A": "b", "Connection": "close"})
    client = FakeClient(App(max_lifetime=1, headers=given))
    await client.run()
    assert list(given) == [("X-A", "b"), ("Connection", "close")]
    assert (client.headers["x-a"], client.headers["connection"]) == ("b", "close")


async def test_a_server_without_extensions(autojump_clock: trio.testing.MockClock) -> None:
    """ASGI's scope need not have any."""
    client = FakeClient(App(max_lifetime=1))
    del client.scope["extensions"]
    await client.run()
    assert client.status == 200


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


@pytest.mark.parametrize("method", ["get_data", "add_etag", "freeze", "make_sequence"])
async def test_a_stream_is_never_a_whole(
    method: str, autojump_clock: trio.testing.MockClock
) -> None:
    """What would wait for its end is an error that says so, and no hang."""
    app = App()

    @app.after_request
    async def read_it_all(response: EventSourceResponse) -> EventSourceResponse:
        with pytest.raises(RuntimeError, match="no whole body to read"):
            await getattr(response, method)()
        return response

    client = FakeClient(app)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        await trio.sleep(1.5)
        client.disconnect()
    assert client.body == b":\n\ndata: tick\n\n"


@pytest.mark.parametrize(
    ("version", "has_it"), [("1.0", True), ("1.1", True), ("2", False), ("3", False)]
)
async def test_connection_header_in_http_1_only(
    version: str, has_it: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """A `Connection` header makes an HTTP/2 response malformed."""
    client = FakeClient(App(max_lifetime=1), http_version=version)
    await client.run()
    assert ("connection" in client.headers) is has_it


async def test_head_gets_the_headers_and_runs_no_producer(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """HEAD is over at once."""
    app = App()
    client = FakeClient(app, method="HEAD")
    start = trio.current_time()
    with trio.fail_after(5):
        await client.run()
    assert trio.current_time() == start
    assert (client.status, client.headers["content-type"]) == (200, "text/event-stream")
    assert "content-length" not in client.headers
    assert (client.body, client.ended) == (b"", True)
    assert app.started == 0
    assert not caplog.records


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        (None, 200),
        ("", 200),
        ("text/event-stream", 200),
        ("*/*", 200),
        ("text/*;q=0.1, application/json", 200),
        ("TEXT/EVENT-STREAM", 200),
        ("text/html", 406),
        ("text/event-stream;q=0, text/html", 406),
        ("application/json, image/*", 406),
        ("text/event-stream;charset=utf-8", 200),
        ("text/event-stream;v=1;q=0", 406),
        ("text/*;q=0, */*", 406),
        ("text/event-stream, */*;q=0", 200),
        (",", 200),
    ],
)
async def test_accept(
    accept: str | None, status: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Who excludes event streams gets 406 and no stream."""
    app = App(max_lifetime=2)
    client = FakeClient(app, headers={} if accept is None else {"Accept": accept})
    await client.run()
    assert client.status == status
    assert app.started == (status == 200)
    if status == 406:
        assert b"accept text/event-stream" in client.body


async def test_accept_in_several_lines(autojump_clock: trio.testing.MockClock) -> None:
    """They are one list."""
    client = FakeClient(App(max_lifetime=1), headers={"Accept": "text/html"})
    client.scope["headers"].append((b"accept", b"text/event-stream"))
    await client.run()
    assert client.status == 200
    client = FakeClient(App(max_lifetime=1), headers={"Accept": ""})
    client.scope["headers"].append((b"accept", b"text/html"))
    await client.run()
    assert client.status == 406


async def test_a_view_may_be_a_plain_function(autojump_clock: trio.testing.MockClock) -> None:
    """Quart-Trio runs such a view in a thread: the stream it returns is like any other."""
    app = App()

    @app.get("/plain")
    def plain() -> EventSourceResponse:
        return EventSourceResponse(app.produce, max_lifetime=1.5)

    client = FakeClient(app, "/plain")
    await client.run()
    assert client.body == b":\n\ndata: tick\n\n"


async def test_response_timeout_does_not_cut_it(autojump_clock: trio.testing.MockClock) -> None:
    """Quart's RESPONSE_TIMEOUT, a minute by default, leaves streams alone."""
    app = App(max_lifetime=600.5)
    assert app.config["RESPONSE_TIMEOUT"] == 60
    client = FakeClient(app)
    await client.run()
    assert client.body.count(b"data: tick") == 600
    assert client.ended


async def test_keep_alive_and_buffer_are_handed_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The options are the stream's."""
    client = FakeClient(App(keep_alive=0.3, max_lifetime=1))
    await client.run()
    assert client.body == 4 * b":\n\n"

    app = App(buffer=2, keep_alive=None)
    stalled = FakeClient(app, takes=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stalled.run)
        await trio.sleep(100)
        assert app.sent == 2
        nursery.cancel_scope.cancel()
    assert app.finished_at == [trio.current_time()]


@pytest.mark.parametrize(
    "options",
    [{"keep_alive": 0}, {"buffer": -1}, {"max_lifetime": 0}, {"headers": {"content-type": "a/b"}}],
)
async def test_bad_options_are_errors_in_the_view(options: dict[str, Any]) -> None:
    """A fault is a 500 with a traceback in the log, never a 200 with nothing behind it."""
    client = FakeClient(App(**options))
    with trio.fail_after(5):
        await client.run()
    assert client.status == 500


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
    assert (client.body, client.ended) == (b":\n\ndata: a\n\n", True)
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


@pytest.mark.parametrize(
    ("header", "status", "body"),
    [
        (None, 200, "None"),
        ("", 200, "None"),
        ("7", 200, "'7'"),
        ("é漢", 200, "'é漢'"),
        ("spaced out", 200, "'spaced out'"),
    ],
)
async def test_last_event_id(header: str | None, status: int, body: str) -> None:
    """The id a reconnecting client knows is at hand, in UTF-8; an empty one is none."""
    app = QuartTrio("stream_test")

    @app.get("/")
    async def view() -> str:
        return repr(last_event_id())

    client = FakeClient(app, headers={} if header is None else {"Last-Event-ID": header})
    await client.run()
    assert client.status == status
    assert client.body.decode() == body


async def test_last_event_id_that_is_not_utf8_is_a_bad_request() -> None:
    """No event had that id: it is refused, not guessed at."""
    app = QuartTrio("stream_test")

    @app.get("/")
    async def view() -> str:
        return repr(last_event_id())

    client = FakeClient(app)
    client.scope["headers"].append((b"last-event-id", b"\xff"))
    await client.run()
    assert client.status == 400
    assert b"Last-Event-ID header is not UTF-8" in client.body


async def test_stop_reconnecting() -> None:
    """204, no body, no length, no type: a browser's EventSource closes for good."""
    app = QuartTrio("stream_test")

    @app.get("/")
    async def view() -> Response:
        return stop_reconnecting(headers={"Access-Control-Allow-Origin": "*"})

    client = FakeClient(app)
    await client.run()
    assert (client.status, client.body, client.ended) == (204, b"", True)
    assert client.headers == {
        "access-control-allow-origin": "*",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
        "connection": "keep-alive",
    }


async def test_outside_of_a_request() -> None:
    """There is nothing to answer, and the error says where a response is made."""

    async def produce(events: Events) -> None: ...

    with pytest.raises(RuntimeError, match="make it in a view"):
        EventSourceResponse(produce)


async def test_require_trio_changes_nothing_on_trio(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """On Trio the application is itself."""
    app = App(max_lifetime=1.5)
    require_trio(app)
    client = FakeClient(app)
    await client.run()
    assert client.body == b":\n\ndata: tick\n\n"


def run_without_trio(app: Any, scope: dict[str, Any]) -> list[dict[str, Any]]:
    """Step an ASGI application with no event loop at all: it must not need one to say so."""
    sent = []
    received = []

    async def receive() -> dict[str, Any]:
        received.append(scope)
        return {"type": f"{scope['type']}.startup"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    with pytest.raises(StopIteration):
        app(scope, receive, send).send(None)
    # A server waits for its start-up message to be taken.
    assert len(received) == (scope["type"] == "lifespan")
    return sent


def test_require_trio_without_trio(caplog: pytest.LogCaptureFixture) -> None:
    """Elsewhere: start-up fails with the reason; without a start-up, requests do."""
    app = App()
    require_trio(app)
    (failed,) = run_without_trio(app, {"type": "lifespan"})
    assert failed["type"] == "lifespan.startup.failed"
    assert failed["message"].startswith("Streaming unsupported: this application needs Trio")
    assert "\n" not in failed["message"]

    head, body = run_without_trio(app, {"type": "http"})
    assert head["status"] == 500
    assert body["body"].startswith(b"Streaming unsupported!"[:-1])
    assert dict(head["headers"])[b"content-length"] == b"%d" % len(body["body"])
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is None

    with pytest.raises(RuntimeError, match="Streaming unsupported"):
        app({"type": "websocket"}, None, None).send(None)  # type: ignore[arg-type] # never called


def test_an_event_source_response_of_an_asyncio_quart() -> None:
    """A Quart of asyncio answers 500 with the reason, and no traceback."""
    app = Quart("stream_test")

    async def produce(events: Events) -> None: ...

    @app.get("/")
    async def view() -> EventSourceResponse:
        return EventSourceResponse(produce, keep_alive=math.inf)

    async def ask() -> tuple[int, bytes]:
        response = await app.test_client().get("/")
        return response.status_code, await response.get_data(as_text=False)

    # In a thread: a loop may be running in this one, for the browser of the interop tests.
    with ThreadPoolExecutor(1) as executor:
        status, body = executor.submit(lambda: asyncio.run(ask())).result()
    assert status == 500
    assert b"Streaming unsupported: this application needs Trio" in body
