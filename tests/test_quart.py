"""EventSourceResponse in Quart: the head of the answer, and what a view may set."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
import trio.testing
from quart_trio import QuartTrio
from werkzeug.datastructures import Headers

from penstock.quart import EventSourceResponse, accepts_event_stream
from penstock.testing import FakeClient
from quart_fakes import App


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
    assert client.body == b":\ndata: tick\n\n"


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
    ("accept", "accepts"),
    [
        (None, True),
        ("", True),
        ("text/event-stream", True),
        ("*/*", True),
        ("text/*;q=0.1, application/json", True),
        ("TEXT/EVENT-STREAM", True),
        ("text/html", False),
        ("text/event-stream;q=0, text/html", False),
        ("application/json", False),
        ("application/json, image/*", False),
        ("text/event-stream;charset=utf-8", True),
        ("text/event-stream;v=1;q=0", False),
        ("text/*;q=0, */*", False),
        ("text/event-stream, */*;q=0", True),
        (",", True),
    ],
)
async def test_accept(
    accept: str | None, accepts: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """A view that returns a stream has decided; one that wants to negotiate can ask."""
    app = App(max_lifetime=2)

    @app.get("/asks")
    async def asks() -> str:
        return str(accepts_event_stream())

    headers = {} if accept is None else {"Accept": accept}
    client = FakeClient(app, headers=headers)
    await client.run()
    assert (client.status, app.started) == (200, 1)
    client = FakeClient(app, "/asks", headers=headers)
    await client.run()
    assert client.body.decode() == str(accepts)


async def test_accept_in_several_lines(autojump_clock: trio.testing.MockClock) -> None:
    """They are one list."""
    app = QuartTrio("stream_test")

    @app.get("/")
    async def asks() -> str:
        return str(accepts_event_stream())

    for first, second, accepts in (
        ("text/html", b"text/event-stream", b"True"),
        ("", b"text/html", b"False"),
    ):
        client = FakeClient(app, headers={"Accept": first})
        client.scope["headers"].append((b"accept", second))
        await client.run()
        assert client.body == accepts


async def test_a_view_may_be_a_plain_function(autojump_clock: trio.testing.MockClock) -> None:
    """Quart-Trio runs such a view in a thread: the stream it returns is like any other."""
    app = App()

    @app.get("/plain")
    def plain() -> EventSourceResponse:
        return EventSourceResponse(app.produce, max_lifetime=1.5)

    client = FakeClient(app, "/plain")
    await client.run()
    assert client.body == b":\ndata: tick\n\n"


async def test_keep_alive_and_buffer_are_handed_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The options are the stream's."""
    client = FakeClient(App(keep_alive=0.3, max_lifetime=1))
    await client.run()
    assert client.body == 4 * b":\n"

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
    [
        {"keep_alive": 0},
        {"buffer": -1},
        {"max_lifetime": math.nan},
        {"headers": {"content-type": "a/b"}},
        {"headers": {"content-length": "7"}},
        {"headers": {"transfer-encoding": "chunked"}},
        {"headers": {"content-encoding": "gzip"}},
        *({"status": status} for status in (0, 100, 103, 199, 204, 205, 304, 600)),
    ],
)
async def test_bad_options_are_errors_in_the_view(options: dict[str, Any]) -> None:
    """A fault is a 500 with a traceback in the log, never a 200 with nothing behind it."""
    client = FakeClient(App(**options))
    with trio.fail_after(5):
        await client.run()
    assert client.status == 500
