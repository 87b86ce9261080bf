"""What a view asks of its request, and what an application asks of its server."""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trio
import trio.testing
from quart import Quart, Response
from quart_trio import QuartTrio

from penstock.quart import EventSourceResponse, last_event_id, require_trio, stop_reconnecting
from penstock.testing import FakeClient
from quart_fakes import App, Events


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

    with pytest.raises(RuntimeError, match="create it in a view"):
        EventSourceResponse(produce)


async def test_require_trio_changes_nothing_on_trio(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """On Trio the application is itself."""
    app = App(max_lifetime=1.5)
    require_trio(app)
    client = FakeClient(app)
    await client.run()
    assert client.body == b":\ndata: tick\n\n"


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
