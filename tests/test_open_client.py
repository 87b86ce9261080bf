"""The kit's client: what it has of a stream, and what it says when there is nothing to have."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from quart import Response
from quart import request as asked
from quart_trio import QuartTrio

from penstock import CloseReason, DecodeError, InvalidEvent, ServerSentEvent
from penstock.quart import EventSourceResponse, last_event_id
from penstock.testing import FakeClient, collect, no_leaks, open_app, open_client, waiting
from penstock.testing.waiting import default_limit

Clock = trio.testing.MockClock
Events = trio.abc.SendChannel[ServerSentEvent]

app = QuartTrio("kit_test")
cleaned_up: list[float] = []


async def count(events: Events) -> None:
    await events.send(ServerSentEvent(retry=500, comment="welcome"))
    try:
        for number in range(3):
            await events.send(ServerSentEvent(f"{number}", id=f"id {number}", event="count"))
            await trio.sleep(10)
        await trio.sleep_forever()
    finally:
        cleaned_up.append(trio.current_time())


async def three(events: Events) -> None:
    for number in range(3):
        await events.send(ServerSentEvent(f"{number}"))


async def fails(events: Events) -> None:
    await events.send(ServerSentEvent("the last one"))
    raise ValueError("on purpose")


async def lingers(events: Events) -> None:
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)


async def floods(events: Events) -> None:
    while True:
        await events.send(ServerSentEvent("x" * 1000))


PRODUCERS = {f.__name__: f for f in (count, three, fails, lingers, floods)}


@app.get("/stream/<name>")
async def stream(name: str) -> EventSourceResponse:
    return EventSourceResponse(PRODUCERS[name], headers={"Seen": last_event_id() or "nothing"})


@app.route("/echo", methods=["POST", "PUT"])
async def echo() -> dict[str, Any]:
    return {
        "method": asked.method,
        "path": asked.path,
        "query": asked.args.to_dict(),
        "type": asked.content_type,
        "accept": asked.headers.get("Accept"),
        "json": await asked.get_json(silent=True),
        "form": (await asked.form).to_dict(),
        "data": (await asked.get_data(as_text=True)),
    }


@app.get("/named/<path:name>")
async def named(name: str) -> str:
    return name


@app.get("/slow")
async def slow() -> str:
    await trio.sleep_forever()
    return "late"


async def raw(scope: Any, receive: Any, send: Any) -> None:
    """Misbehave in the way that the path names."""
    await receive()
    match scope["path"]:
        case "/silent":
            return
        case "/raises":
            raise ValueError("on purpose")
        case "/raises-at-the-end":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await receive()
            raise ValueError("on purpose")
        case "/garbage":
            headers = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for body in (b"data: one\n\n", b"data: " + b"x" * 2**21):
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await receive()
        case "/goes-on":
            headers = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"data: one\n\n", "more_body": True})
            await receive()
            await send({"type": "http.response.body", "body": b"data: two\n\n"})
        case "/swallows":
            headers = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await receive()
            with suppress(trio.Cancelled):
                await trio.sleep_forever()


async def test_events_come_decoded(autojump_clock: Clock) -> None:
    """A client has the head at once, the events as they come, and the rest to be looked at."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with open_client(app, "/stream/count") as client:
        assert client.status == 200
        assert client.headers["content-type"] == "text/event-stream"
        assert await client.event() == ServerSentEvent("0", event="count", id="id 0")
        assert (client.retry, client.comments, client.last_event_id) == (
            500,
            ["", "welcome"],
            "id 0",
        )
        assert client.pending == ()
        assert [event.data for event in await client.events(2)] == ["1", "2"]
        assert trio.current_time() == 20
        await trio.sleep(16)  # a keep-alive comes after 15
        assert client.comments == ["", "welcome", ""]
        assert (client.close_reason, client.ended) == (None, False)
        assert client.stream is not None
        assert client.stream.statistics().keep_alives_sent == 1
    assert (client.close_reason, cleaned_up[-1]) == (CloseReason.DISCONNECTED, 36)
    assert trio.current_time() == 36
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_the_end_of_a_stream_ends_the_iteration(autojump_clock: Clock) -> None:
    """What came before can be taken; then it says what came, and why there is no more."""
    async with open_client(app, "/stream/three") as client:
        assert [event.data async for event in client] == ["0", "1", "2"]
        assert client.ended
        assert await client.end() is CloseReason.FINISHED
    async with open_client(app, "/stream/three") as client:
        with pytest.raises(trio.EndOfChannel) as raised:
            await client.events(4)
        assert str(raised.value) == (
            "GET /stream/three: expected 4 events: status 200, 3 events received, 3 not returned, "
            "ended (finished)"
        )
        assert len(client.pending) == len(await client.events(3)) == 3


async def test_a_producer_that_fails_is_told_of(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The client has the events before the error, which says where the traceback is."""
    async with open_client(app, "/stream/fails") as client:
        assert (await client.event()).data == "the last one"
        with pytest.raises(
            trio.EndOfChannel, match=r"ended \(failed\).*log of penstock.stream.producer"
        ):
            await client.event()
    assert client.close_reason is CloseReason.FAILED
    assert "on purpose" in caplog.text


async def test_a_client_comes_back(autojump_clock: Clock) -> None:
    """The id it says it saw is sent, and is in force until another comes."""
    async with open_client(app, "/stream/three", last_event_id="é 7") as client:
        assert client.headers["seen"] == "é 7"
        assert (await client.event()).id == "é 7"
        assert client.last_event_id == "é 7"
    with pytest.raises(InvalidEvent):
        async with open_client(app, "/stream/three", last_event_id="a\nb"):
            pass


async def test_nothing_comes(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait fails after two days of virtual time, and says what there was instead."""
    async with open_client(app, "/stream/count") as client:
        await client.events(3)
        with pytest.raises(trio.TooSlowError) as raised:
            await client.event()
        assert str(raised.value) == (
            "GET /stream/count: did not get an event within 172800 s: status 200, 3 events "
            "received, 0 not returned, open"
        )
        assert trio.current_time() == 172820
        monkeypatch.setattr(waiting, "_JUMPING", 600.0)
        with pytest.raises(trio.TooSlowError, match="did not end within 600 s"):
            await client.end()


async def test_no_answer_comes(autojump_clock: Clock) -> None:
    """The message names what the application waits for, and the block is never entered."""
    with pytest.raises(trio.TooSlowError) as raised:
        async with open_client(app, "/slow"):
            pytest.fail("there was no answer")
    said = str(raised.value)
    assert said.startswith("GET /slow: the application does not respond within 172800 s; ")
    assert f"waiting at {__file__}:{slow.__code__.co_firstlineno + 2} in slow()" in said
    with pytest.raises(AssertionError, match="GET /silent: the application returned without"):
        async with open_client(raw, "/silent"):
            pytest.fail("there was no answer")


async def test_a_wait_is_short_in_real_time() -> None:
    """Where the clock is real, a wait gives up while one looks on; the client is the same."""
    assert default_limit() == 10
    async with open_client(app, "/stream/count") as client:
        with trio.fail_after(5):
            assert (await client.event()).data == "0"


async def test_a_wait_for_many_is_a_wait_for_each(autojump_clock: Clock) -> None:
    """However long a stream is, it is silence that is given up."""

    async def daily(events: Events) -> None:
        for number in range(5):
            await trio.sleep(24 * 3600)
            await events.send(ServerSentEvent(str(number)))

    own = QuartTrio("daily")

    @own.get("/")
    async def view() -> EventSourceResponse:
        return EventSourceResponse(daily, keep_alive=None)

    async with open_client(own) as client:
        assert [event.data for event in await client.events(5)] == ["0", "1", "2", "3", "4"]


async def test_the_application_raises(autojump_clock: Clock) -> None:
    """An error of the application fails the test, with that error as its cause."""
    with pytest.raises(AssertionError, match=r"GET /raises: .* raised ValueError\('on p") as raised:
        async with open_client(raw, "/raises"):
            pytest.fail("there was no answer")
    assert isinstance(raised.value.__cause__, ValueError)
    with pytest.raises(AssertionError, match=r"raised ValueError\('on purpose'\)") as raised:
        async with open_client(raw, "/raises-at-the-end"):
            pass
    assert isinstance(raised.value.__cause__, ValueError)


async def test_no_event_stream_is_answered(autojump_clock: Clock) -> None:
    """Waiting for an event raises, and says what the response is."""
    async with open_client(app, "/nothing") as client:
        with pytest.raises(
            AssertionError, match=r"not an event stream, but 404 text/html: .*Found"
        ):
            await client.event()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(200, "text/html"), (201, "text/event-stream"), (200, "text/event-streams")],
)
async def test_a_body_that_only_looks_like_a_stream(
    status: int, kind: str, autojump_clock: Clock
) -> None:
    """Every browser refuses it, whatever is in it; and a name of a type has no case."""
    own = QuartTrio(__name__)

    @own.get("/")
    async def view() -> Response:
        return Response("data: x\n\n", status, content_type=asked.args["type"])

    async with open_client(own, f"/?type={kind}") as client:
        with pytest.raises(AssertionError, match=f"not an event stream, but {status} {kind}"):
            await client.event()
    async with open_client(own, "/?type=Text/Event-Stream%20;a=b") as client:
        if status == 200:
            assert (await client.event()).data == "x"


async def test_what_cannot_be_decoded(autojump_clock: Clock) -> None:
    """The test gets the error after the events before it; the application gets none."""
    async with open_client(raw, "/garbage") as client:
        assert (await client.event()).data == "one"
        with pytest.raises(DecodeError, match="larger than"):
            await client.event()


async def test_a_client_leaves_within_its_block(autojump_clock: Clock) -> None:
    """What came can be taken still, and the end is waited for."""
    async with open_client(app, "/stream/count") as client:
        while not client.pending:
            await trio.testing.wait_all_tasks_blocked()
        client.disconnect()
        assert await client.end() is CloseReason.DISCONNECTED
        assert (await client.event()).data == "0"
        with pytest.raises(
            trio.ClosedResourceError, match=r"disconnected by this client \(disconnected\)"
        ):
            await client.event()
    assert trio.current_time() == 0


async def test_what_is_sent_to_nobody_is_dropped(autojump_clock: Clock) -> None:
    """As by a server: what the application sends when the client has left is not there."""
    async with open_client(raw, "/goes-on") as client:
        assert (await client.event()).data == "one"
        client.disconnect()
        await client.end()
        assert (client.body, client.pending) == (b"data: one\n\n", ())


async def test_a_stalled_client(autojump_clock: Clock) -> None:
    """It reads as much as asked while the producer waits, and can disconnect at any time."""
    async with open_client(app, "/stream/floods", takes=2) as client:
        await trio.sleep(1)
        assert client.body.startswith(b":\ndata: x")
        assert client.stream is not None
        stalled = client.stream.statistics()
        await trio.sleep(1)
        assert client.stream.statistics().events_sent == stalled.events_sent
        with pytest.raises(trio.TooSlowError, match="open, and this client is not reading"):
            await client.events(100)
        client.read(2)  # what the writer had in its hand, and what waited behind
        assert len(await client.events(17)) == 17
    assert client.close_reason is CloseReason.DISCONNECTED


async def test_the_application_does_not_let_go(autojump_clock: Clock) -> None:
    """A request that outlives its client fails the test with its tasks' names, and is cancelled."""
    with pytest.raises(AssertionError) as raised:
        async with open_client(app, "/stream/lingers"):
            pass
    said = str(raised.value)
    assert said.startswith(
        "GET /stream/lingers: 1 s after the client disconnected, the application has not finished "
    )
    assert "- task 'producer of /stream/lingers 192.0.2.1:50000', waiting at " in said
    assert f"{__file__}:{lingers.__code__.co_firstlineno + 5} in lingers()" in said
    assert trio.current_time() == 5
    async with open_client(app, "/stream/lingers", grace=6):
        pass
    with pytest.raises(AssertionError, match=r"has not finished the request:\n.* in raw"):
        async with open_client(raw, "/swallows"):
            pass


async def test_what_the_block_raises_comes_out_as_it_was(autojump_clock: Clock) -> None:
    """No group is round it; what there is to complain of is a note."""
    error = KeyError("the test's own")
    with pytest.raises(KeyError) as raised:
        async with open_client(app, "/stream/lingers"):
            raise error
    assert raised.value is error
    assert ["has not finished the request" in note for note in error.__notes__] == [True]
    with pytest.raises(pytest.skip.Exception):
        async with open_client(app, "/stream/count"):
            pytest.skip("for a reason")


async def test_the_block_is_cancelled(autojump_clock: Clock) -> None:
    """So is the application, and nothing is left of it."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    with trio.move_on_after(3) as scope:
        async with open_client(app, "/stream/count") as client:
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert (client.close_reason, cleaned_up[-1]) == (CloseReason.DISCONNECTED, 3)
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_a_wait_is_atomic(autojump_clock: Clock) -> None:
    """A wait for more events that is cancelled loses none."""
    async with open_client(app, "/stream/count") as client:
        with trio.move_on_after(5):
            await client.events(2)
        assert [event.data for event in client.pending] == ["0"]
        assert len(await client.events(3)) == 3


async def test_requests_have_bodies() -> None:
    """JSON, a form, text or bytes are sent with their type; a path is as in a URL."""

    async def said(method: str, path: str, **options: Any) -> dict[str, Any]:
        async with open_client(app, path, method=method, **options) as client:
            await client.end()
            assert (client.status, client.headers["content-type"]) == (200, "application/json")
            answer: dict[str, Any] = json.loads(client.body)
            return answer

    assert await said("POST", "/echo?q=%C3%A9&r=é b", json={"a": [1]}) == {
        "method": "POST",
        "path": "/echo",
        "query": {"q": "é", "r": "é b"},
        "type": "application/json",
        "accept": "*/*",
        "json": {"a": [1]},
        "form": {},
        "data": '{"a": [1]}',
    }
    assert (await said("PUT", "/echo", data={"topic": "a&b"}))["form"] == {"topic": "a&b"}
    for data, kind in (("tea", "text/plain; charset=utf-8"), (b"tea", "application/octet-stream")):
        found = await said("POST", "/echo", data=data)
        assert (found["data"], found["type"]) == ("tea", kind)
    own = {"Content-Type": "text/csv", "ACCEPT": "text/html"}
    found = await said("POST", "/echo", data="a,b", headers=own)
    assert (found["type"], found["accept"]) == ("text/csv", "text/html")
    bare = FakeClient(app, "/echo", method="POST", content=b"tea")
    await bare.run()
    assert json.loads(bare.body)["data"] == "tea"
    assert (b"content-length", b"3") in bare.scope["headers"]
    with pytest.raises(ValueError, match="give json or data"):
        async with open_client(app, "/echo", json=1, data="1"):
            pass
    scope = FakeClient(app, "/é?q=é%20 b&c=d").scope
    assert (scope["path"], scope["raw_path"]) == ("/é", b"/%C3%A9")
    assert scope["query_string"] == b"q=%C3%A9%20%20b&c=d"
    async with open_client(app, "/named/a%20b%2Fc") as client:
        await client.end()
        assert client.body == b"a b/c"


@pytest.mark.parametrize(
    ("options", "accept", "status"),
    [
        ({}, "text/event-stream", 200),  # a browser's EventSource
        ({"accept": "application/json"}, "application/json", 406),  # openai and anthropic
        ({"accept": "*/*"}, "*/*", 200),  # curl
        ({"accept": None}, None, 200),
        ({"headers": {"ACCEPT": "text/html"}}, "text/html", 406),
        ({"method": "POST"}, "*/*", 200),  # fetch, curl, httpx
        ({"method": "POST", "accept": "text/event-stream"}, "text/event-stream", 200),
    ],
)
async def test_a_client_accepts_what_the_test_says(
    options: dict[str, Any], accept: str | None, status: int
) -> None:
    """A test can act as each kind of client, so one can see that an application refuses some."""

    async def negotiates(scope: Any, receive: Any, send: Any) -> None:
        given = dict(scope["headers"]).get(b"accept", b"*/*")
        assert given == (accept or "*/*").encode()
        assert (b"accept" in dict(scope["headers"])) == (accept is not None)
        answer = 200 if given in (b"*/*", b"text/event-stream") else 406
        await send({"type": "http.response.start", "status": answer, "headers": []})
        await send({"type": "http.response.body"})

    async with open_client(negotiates, "/", **options) as client:
        assert client.status == status


async def deaf(scope: Any, receive: Any, send: Any) -> None:
    """Answer, and take no notice when the client leaves."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await trio.sleep_forever()


async def test_a_clock_that_stands_still(
    mock_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that only the test moves, real time bounds each wait."""
    assert mock_clock.rate == 0
    monkeypatch.setattr(waiting, "_REAL", 0.2)
    with pytest.raises(trio.TooSlowError, match=r"does not respond within 0\.2 s"):
        async with open_client(app, "/slow"):
            pass
    async with open_client(app, "/stream/count") as client:
        assert (await client.event()).data == "0"
        with pytest.raises(trio.TooSlowError, match=r"did not get an event within 0\.2 s"):
            await client.event()
        mock_clock.jump(10)
        assert (await client.event()).data == "1"
    with pytest.raises(AssertionError, match=r"0\.3 s after the client disconnected"):
        async with open_client(deaf, grace=0.3):
            pass
    with pytest.raises(trio.TooSlowError, match=r"sent 2 events and nothing more within 0\.2 s"):
        await collect(count)
    async with trio.open_nursery() as nursery:
        with pytest.raises(AssertionError, match="left behind"):
            async with no_leaks():
                nursery.start_soon(trio.sleep_forever)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "opened", [lambda app: open_client(app, "/stream/lingers"), open_app], ids=["client", "app"]
)
async def test_an_error_of_the_block_outlives_a_cancellation(
    opened: Any, autojump_clock: Clock
) -> None:
    """The block's own error is raised, even if it is cancelled at the same time."""

    async def fails(opening: Any) -> None:
        async with opening:
            try:
                await trio.sleep_forever()
            finally:
                _ = 1 / 0

    with trio.move_on_after(3) as scope:
        with pytest.raises(ZeroDivisionError):
            await fails(opened(app))
    assert scope.cancel_called
    with trio.move_on_after(3):
        with pytest.RaisesGroup(ZeroDivisionError):
            async with opened(app):
                await fails(trio.open_nursery())


async def test_iterating_another_response(autojump_clock: Clock) -> None:
    """A stream that is not Penstock's can be read; it has no close reason."""

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for body in chunks():
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body"})

    async def chunks() -> AsyncIterator[bytes]:
        for chunk in (b"da", b"ta: a\r", b"\n\r\nid: 1\n\ndata: cut off"):
            yield chunk

    async with open_client(plain) as client:
        assert [event.data async for event in client] == ["a"]
        assert (client.last_event_id, client.close_reason, client.stream) == ("1", None, None)
        assert repr(client) == (
            "<EventStreamClient GET /: status 200, 1 event received, 0 not returned, ended>"
        )
