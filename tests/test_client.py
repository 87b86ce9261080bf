"""EventSource on a virtual clock: when it connects, with what, and how it ends."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx  # noqa: ASYNC127 - the release that the project depends on
import pytest
import trio
import trio.testing

from penstock import DecodeError, InvalidEvent, ServerSentEvent
from penstock.client import EventSource, SourceState
from penstock.client.reconnection import Reconnection, retry_after
from penstock.errors import ConnectionFailed

URL = "https://example.org/events"
Clock = trio.testing.MockClock

STREAM = {"content-type": "text/event-stream"}


class Body(httpx.AsyncByteStream):
    """A body as a network gives it: in async generators, one in the other, that must all end."""

    def __init__(self, parts: Sequence[bytes | float | Exception]) -> None:
        self.parts = parts
        self.begun = self.ended = self.closed = False

    async def _receive(self) -> AsyncIterator[bytes]:
        self.begun = True
        try:
            for part in self.parts:
                if isinstance(part, Exception):
                    raise part
                if isinstance(part, bytes):
                    await trio.lowlevel.checkpoint()
                    yield part
                else:
                    await trio.sleep(part)
        finally:
            self.ended = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._receive():
            yield chunk

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed = True

    @property
    def gone(self) -> bool:
        """Whether nothing of it is left."""
        return self.closed and self.ended >= self.begun


@dataclass
class Answer:
    """What the server does with one request; a number among the parts is a pause in seconds."""

    parts: Sequence[bytes | float | Exception] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: dict(STREAM))
    after: float = 0.0


HANGS = Answer([math.inf])
OVER = Answer(status=204, headers={})
REFUSED = httpx.ConnectError("Connection refused")


class Network(httpx.AsyncBaseTransport):
    """A network on which one script answers; it knows what was asked for, and when."""

    def __init__(self, *script: Answer | Exception) -> None:
        self.script = iter(script)
        self.requests: list[httpx.Request] = []
        self.times: list[float] = []
        self.bodies: list[Body] = []
        self.closed = False
        self.began = trio.current_time()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.times.append(trio.current_time() - self.began)
        answer = next(self.script)
        await trio.lowlevel.checkpoint()
        if isinstance(answer, Exception):
            raise answer
        await trio.sleep(answer.after)
        body = Body(answer.parts)
        self.bodies.append(body)
        return httpx.Response(answer.status, headers=answer.headers, stream=body)

    async def aclose(self) -> None:
        self.closed = True

    def ids(self) -> list[str | None]:
        """Return what was sent as Last-Event-ID, request for request."""
        return [request.headers.get("last-event-id") for request in self.requests]


@asynccontextmanager
async def source_on(network: Network, **options: Any) -> AsyncIterator[EventSource]:
    """Open a source; nothing of its connections may be left when its block is over."""
    before = trio.lowlevel.current_statistics().tasks_living
    options = {"jitter": 0, **options}
    async with httpx.AsyncClient(transport=network) as client:
        async with EventSource(options.pop("url", URL), client=client, **options) as source:
            yield source
        assert not client.is_closed
    assert all(body.gone for body in network.bodies)
    assert trio.lowlevel.current_statistics().tasks_living == before


async def data_of(source: EventSource, count: float = math.inf) -> list[str | None]:
    """Return the data of so many events, or of all."""
    heard: list[str | None] = []
    while len(heard) < count:
        try:
            event = await anext(source)
        except StopAsyncIteration:
            break
        heard.append(event.data)
    return heard


async def test_events_come_as_they_are_sent(autojump_clock: Clock) -> None:
    """An event is there when its blank line is; its id is the one in force."""
    network = Network(Answer([b"id: 7\ndata: a\n", 2.0, b"\nevent: x\ndata: b\n\n", math.inf]))
    async with source_on(network) as source:
        assert source.state.value == "connecting"
        assert await anext(source) == ServerSentEvent("a", id="7")
        assert trio.current_time() - network.began == 2
        assert source.state == SourceState.OPEN
        assert await anext(source) == ServerSentEvent("b", event="x", id="7")
        assert source.last_event_id == "7"
        assert repr(source) == "<EventSource https://example.org/events open, last event '7'>"
    assert source.state.value == "closed"
    assert repr(source).endswith("closed, last event '7'>")


async def test_what_is_asked_for(autojump_clock: Clock) -> None:
    """Uncompressed, uncached, an event stream; other headers are the caller's."""
    network = Network(OVER)
    async with source_on(network, headers={"X-Key": "k", "cache-control": "max-age=0"}) as source:
        assert await data_of(source) == []
    (request,) = network.requests
    assert (request.method, str(request.url)) == ("GET", URL)
    assert request.headers["accept"] == "text/event-stream"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers.get_list("cache-control") == ["max-age=0"]
    assert request.headers["x-key"] == "k"
    assert "last-event-id" not in request.headers


async def test_a_stream_that_ends_is_opened_again(
    autojump_clock: Clock,
) -> None:
    """It delivered, so each wait is the reconnection time, however often."""
    one = Answer([b"data: a\n\n"])
    network = Network(one, one, one, one, OVER)
    async with source_on(network, retry=1500) as source:
        assert await data_of(source) == ["a"] * 4
    assert network.times == [0, 1.5, 3, 4.5, 6]


async def test_back_off_doubles_up_to_its_bound(autojump_clock: Clock) -> None:
    """Each failure in a row doubles the wait, until max_delay."""
    network = Network(*[REFUSED] * 8, OVER)
    async with source_on(network, retry=3000, max_delay=60) as source:
        assert await data_of(source) == []
    assert network.times == [0, 3, 9, 21, 45, 93, 153, 213, 273]


async def test_an_event_resets_the_back_off(autojump_clock: Clock) -> None:
    """A connection that delivered is no failure, nor was any before it."""
    network = Network(REFUSED, REFUSED, REFUSED, Answer([b"data: a\n\n"]), REFUSED, REFUSED, OVER)
    async with source_on(network, retry=1000) as source:
        assert await data_of(source) == ["a"]
    assert network.times == [0, 1, 3, 7, 8, 9, 11]


async def test_a_connection_that_delivers_nothing_is_a_failure(autojump_clock: Clock) -> None:
    """A server that answers, greets and falls is not asked ever faster."""
    falls = Answer([b":\n\nid: 7\n\n"])
    network = Network(falls, falls, falls, falls, OVER)
    async with source_on(network, retry=1000) as source:
        assert await data_of(source) == []
    assert network.times == [0, 1, 3, 7, 15]
    assert network.ids() == [None, "7", "7", "7", "7"]


async def test_a_quiet_connection_that_held_is_no_failure(autojump_clock: Clock) -> None:
    """A proxy that ends silent streams now and then does not make the client slow."""
    quiet = Answer([b":\n\n", 30.0, b":\n\n", 30.0])
    network = Network(REFUSED, REFUSED, quiet, quiet, quiet, OVER)
    async with source_on(network, retry=1000, max_delay=60, max_attempts=3) as source:
        assert await data_of(source) == []
    assert network.times == [0, 1, 3, 64, 125, 186]


async def test_retry_sets_the_reconnection_time(autojump_clock: Clock) -> None:
    """The server's last word counts from then on, and grows after failures as any other."""
    network = Network(
        Answer([b"retry: 500\ndata: a\n\n"]),
        Answer([b"data: b\n\n"]),
        REFUSED,
        REFUSED,
        Answer([b"data: c\n\nretry: 100\n"]),
        OVER,
    )
    async with source_on(network) as source:
        assert source.retry == 3000
        assert await data_of(source, 1) == ["a"]
        assert source.retry == 500
        assert await data_of(source) == ["b", "c"]
        assert source.retry == 100
    assert network.times == [0, 0.5, 1, 1.5, 2.5, 2.6]


async def test_retry_of_nothing_grows_all_the_same(autojump_clock: Clock) -> None:
    """At once means at once after events, and not for ever when there is nobody."""
    network = Network(Answer([b"retry: 0\ndata: a\n\n"]), REFUSED, REFUSED, REFUSED, OVER)
    async with source_on(network) as source:
        assert await data_of(source) == ["a"]
    assert network.times == pytest.approx([0, 0, 0.1, 0.3, 0.7])


async def test_retry_beyond_the_bound_counts_for_an_hour(autojump_clock: Clock) -> None:
    """The server knows better than max_delay, but not that nobody is to come back."""
    network = Network(
        Answer([b"retry: 90000\ndata: a\n\n"]), REFUSED, Answer([b"retry: 9000000\n"])
    )
    async with source_on(network, max_delay=60) as source:
        with trio.move_on_after(180 + 3599):
            await data_of(source)
        assert network.times == [0, 90, 180]
        network.script = iter([OVER])
        assert await data_of(source) == []
    assert network.times == [0, 90, 180, 180 + 3600]


async def test_jitter_adds_up_to_half(autojump_clock: Clock) -> None:
    """No two clients come back together; none comes before its time."""
    network = Network(*[REFUSED] * 400, OVER)
    async with source_on(network, retry=1000, max_delay=1, jitter=0.5) as source:
        await data_of(source)
    waits = [
        later - earlier for earlier, later in zip(network.times, network.times[1:], strict=False)
    ]
    assert 1 <= min(waits) < 1.05
    assert 1.45 < max(waits) <= 1.5
    assert sum(waits) / len(waits) == pytest.approx(1.25, abs=0.05)


async def test_last_event_id_is_sent_in_utf_8(autojump_clock: Clock) -> None:
    """From the first request on where the caller has one, and as the stream changes it."""
    network = Network(
        Answer(["id: é漢😀\ndata: a\n\nid: lost\ndata: b\n".encode()]),
        Answer([b"id:  8 \n\ndata: c\n\n"]),
        Answer([b"id\ndata: d\n\n"]),
        OVER,
    )
    async with source_on(network, last_event_id="earliest") as source:
        assert source.last_event_id == "earliest"
        assert await data_of(source) == ["a", "c", "d"]
        assert source.last_event_id == ""
    sent = [
        [value for name, value in request.headers.raw if name.lower() == b"last-event-id"]
        for request in network.requests
    ]
    assert sent == [[b"earliest"], ["é漢😀".encode()], [b"8"], []]


async def test_204_ends_it(autojump_clock: Clock) -> None:
    """The iteration is over, and stays so; nothing is asked for any more."""
    network = Network(Answer([b"data: a\n\n"]), OVER)
    async with source_on(network) as source:
        assert [event.data async for event in source] == ["a"]
        assert source.state is SourceState.CLOSED
        assert [event.data async for event in source] == []
    assert len(network.requests) == 2


@pytest.mark.parametrize("status", [201, 206, 304, 400, 401, 403, 404, 410, 451])
async def test_an_answer_that_stays_is_an_error(autojump_clock: Clock, status: int) -> None:
    """No later attempt would be answered otherwise, so there is none."""
    network = Network(Answer(status=status))
    async with source_on(network) as source:
        for _ in range(2):
            with pytest.raises(ConnectionFailed, match=rf"{URL}: answered {status} .*not 200") as e:
                await anext(source)
            assert e.value.status == status
        assert source.state is SourceState.CLOSED
    assert len(network.requests) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520])
async def test_an_answer_that_passes_is_a_failure(autojump_clock: Clock, status: int) -> None:
    """A server that is not well now is asked again, later and later."""
    bad = Answer(status=status)
    network = Network(bad, bad, Answer([b"data: a\n\n"]), OVER)
    async with source_on(network, retry=1000) as source:
        assert await data_of(source) == ["a"]
    assert network.times == [0, 1, 3, 4]


@pytest.mark.parametrize(
    ("asked", "waited"), [("20", 20), ("1", 3), ("soon", 3), ("", 3), ("9" * 5000, 3600), ("-5", 3)]
)
async def test_retry_after(autojump_clock: Clock, asked: str, waited: float) -> None:
    """What the server asks for is the least, for an hour at the most."""
    network = Network(Answer(status=503, headers={"retry-after": asked}), OVER)
    async with source_on(network) as source:
        await data_of(source)
    assert network.times == [0, waited]


def test_retry_after_as_a_date() -> None:
    """It may be a date, too; one that is past asks for nothing."""
    now = datetime.now(UTC)
    later = format_datetime(now + timedelta(seconds=100), usegmt=True)
    assert 98 < retry_after(later) <= 100
    assert 98 < retry_after(later.replace("GMT", "-0000")) <= 100
    assert retry_after(format_datetime(now - timedelta(seconds=100))) == 0
    for nonsense in ("Mon, 99 Nov 2026 01:09:09 GMT", "1.5", "²", "x" * 100):
        assert retry_after(nonsense) == 0


@pytest.mark.parametrize(
    "kind", ["text/event-stream", "Text/Event-Stream ; charset=utf-8", "text/event-stream;x"]
)
async def test_the_content_type_of_an_event_stream(autojump_clock: Clock, kind: str) -> None:
    """Its parameters do not count: it is UTF-8 always."""
    network = Network(Answer([b"data: a\n\n"], headers={"content-type": kind}), OVER)
    async with source_on(network) as source:
        assert await data_of(source) == ["a"]


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"content-type": "text/html"}, "answered with 'text/html', not with text/event-stream"),
        ({"content-type": "text/event-streams"}, "'text/event-streams'"),
        ({}, "answered with no content type"),
        ({**STREAM, "content-encoding": "gzip"}, "answered in the encoding 'gzip'"),
    ],
)
async def test_what_is_no_event_stream_is_an_error(
    autojump_clock: Clock, headers: dict[str, str], says: str
) -> None:
    """Another content type, or an encoding that nobody asked for."""
    network = Network(Answer([b"data: a\n\n"], headers=headers))
    async with source_on(network) as source:
        with pytest.raises(ConnectionFailed, match=says) as failed:
            await anext(source)
        assert failed.value.status == 200


def redirect(location: str, status: int = 302) -> Answer:
    return Answer([b"x", math.inf], status=status, headers={"location": location})


async def test_redirects_are_followed(autojump_clock: Clock) -> None:
    """A temporary one each time anew; its body, however long, is not waited for."""
    moved = redirect("/elsewhere")
    network = Network(moved, Answer([b"id: 7\ndata: a\n\n"]), moved, OVER)
    async with source_on(network) as source:
        assert await data_of(source) == ["a"]
    paths = [request.url.path for request in network.requests]
    assert paths == ["/events", "/elsewhere", "/events", "/elsewhere"]
    assert network.ids() == [None, None, "7", "7"]
    assert network.times == [0, 0, 3, 3]


@pytest.mark.parametrize("status", [301, 308])
async def test_a_permanent_redirect_is_remembered(autojump_clock: Clock, status: int) -> None:
    """What lies behind it is asked directly next time, up to the first that is temporary."""
    network = Network(
        redirect("/b", status),
        redirect("/c", status),
        redirect("/d", 307),
        redirect("/e", status),
        Answer([b"data: a\n\n"]),
        OVER,
    )
    async with source_on(network) as source:
        assert await data_of(source) == ["a"]
    assert [request.url.path for request in network.requests][-2:] == ["/e", "/c"]


async def test_another_origin_does_not_get_what_authenticates(autojump_clock: Clock) -> None:
    """Neither by the redirect nor, remembered, the next time."""
    moved = redirect("https://other.example/events", 301)
    network = Network(moved, Answer([b"data: a\n\n"]), moved, OVER)
    async with source_on(network, headers={"Authorization": "Bearer secret"}) as source:
        assert await data_of(source) == ["a"]
    sent = [(request.url.host, "authorization" in request.headers) for request in network.requests]
    assert sent == [("example.org", True), ("other.example", False)] * 2


async def test_credentials_are_for_one_origin(
    autojump_clock: Clock,
) -> None:
    """The credentials of the client or of the URL stay with the origin they are for."""
    network = Network(redirect("/b"), redirect("https://other.example/c"), OVER)
    async with httpx.AsyncClient(transport=network, auth=("user", "secret")) as client:
        async with EventSource("https://example.org/a", client=client) as source:
            assert await data_of(source) == []
    assert ["authorization" in request.headers for request in network.requests] == [1, 1, 0]


async def test_too_many_redirects_are_an_error(autojump_clock: Clock) -> None:
    """Twenty are followed; a circle is not, for ever."""
    network = Network(*[redirect("/events")] * 20, Answer([b"data: a\n\n"]), *[redirect("/")] * 30)
    async with source_on(network) as source:
        assert await data_of(source, 1) == ["a"]
        with pytest.raises(ConnectionFailed, match="more than 20 redirects"):
            await anext(source)
    assert len(network.requests) == 21 + 21


async def test_a_redirect_to_what_is_not_http_is_an_error(autojump_clock: Clock) -> None:
    """There is nobody to ask."""
    async with EventSource("http://127.0.0.1/", client=httpx.AsyncClient()) as source:
        network = Network(redirect("ftp://example.org/"), httpx.UnsupportedProtocol("ftp"))
        source._client = httpx.AsyncClient(transport=network)
        with pytest.raises(ConnectionFailed, match="cannot be asked for: ftp"):
            await anext(source)


async def test_an_oversized_event_is_an_error_after_those_before_it(autojump_clock: Clock) -> None:
    """To come back would bring the same event: it is the end."""
    network = Network(Answer([b"data: a\n\ndata: b\n\ndata: " + b"c" * 100, math.inf]))
    async with source_on(network, max_event_size=50) as source:
        assert await data_of(source, 2) == ["a", "b"]
        for _ in range(2):
            with pytest.raises(DecodeError, match="larger than max_event_size"):
                await anext(source)
        assert source.state is SourceState.CLOSED
    assert len(network.requests) == 1


async def test_silence_is_death(autojump_clock: Clock) -> None:
    """A connection that is silent for too long is opened again; a comment is a sign of life."""
    network = Network(
        Answer([b"data: a\n\n", 40.0, b":\n\n", 40.0, b"data: b\n\n", math.inf]), HANGS, OVER
    )
    async with source_on(network, max_silence=45, retry=1000) as source:
        assert await data_of(source) == ["a", "b"]
    assert network.times == [0, 80 + 45 + 1, 126 + 45 + 1]


async def test_without_a_bound_silence_is_waited_for(autojump_clock: Clock) -> None:
    """A browser waits for ever, too."""
    network = Network(Answer([b"data: a\n\n", 1e6, b"data: b\n\n"]), OVER)
    async with source_on(network) as source:
        assert await data_of(source) == ["a", "b"]


async def test_an_answer_that_does_not_come_is_a_failed_attempt(autojump_clock: Clock) -> None:
    """The head must be there in time, redirects included."""
    slow, moved = Answer(after=8), redirect("/")
    moved.after = 4
    network = Network(slow, moved, Answer(after=4), Answer([5.0, b"data: a\n\n"], after=4), OVER)
    async with source_on(network, connect_timeout=7, retry=1000) as source:
        assert await data_of(source) == ["a"]
    assert network.times == [0, 8, 12, 17, 27]


async def test_a_stream_that_breaks_is_opened_again(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """What broke it is in the log, with when there is another; no secret of the URL is."""
    caplog.set_level(logging.INFO, "penstock.client")
    network = Network(Answer([b"data: a\n\n", httpx.ReadError("reset\nby peer")]), REFUSED, OVER)
    async with source_on(network, url="https://me:secret@example.org/e?key=secret") as source:
        assert await data_of(source) == ["a"]
        assert "secret" not in repr(source)
    assert network.times == [0, 3, 6]
    records = [record for record in caplog.records if record.name == "penstock.client"]
    assert [record.getMessage() for record in records] == [
        "https://example.org/e: reset by peer; connecting again in 3.0 s",
        "https://example.org/e: Connection refused; connecting again in 3.0 s",
    ]


@pytest.mark.parametrize(("attempts", "said"), [(1, "1 attempt"), (3, "3 attempts")])
async def test_failures_in_a_row_are_counted(
    autojump_clock: Clock, attempts: int, said: str
) -> None:
    """So many may fail, since the last event; then it gives up, and says why."""
    fails: list[Answer | Exception] = [Answer(status=503), REFUSED, Answer(status=502)]
    fails = fails[-attempts:]
    network = Network(*fails[:-1], Answer([b"data: a\n\n"]), *fails)
    async with source_on(network, max_attempts=attempts) as source:
        assert await data_of(source, 1) == ["a"]
        with pytest.raises(
            ConnectionFailed, match=f"answered 502 .*gave up after {said}$"
        ) as failed:
            await anext(source)
        assert failed.value.status == 502
    assert len(network.requests) == 2 * attempts


async def test_an_end_after_an_event_is_no_failed_attempt(autojump_clock: Clock) -> None:
    """A stream that ends is asked for again, even by who wants to see no attempt fail."""
    one = Answer([b"data: a\n\n"])
    network = Network(one, one, Answer([]))
    async with source_on(network, max_attempts=1) as source:
        assert await data_of(source, 2) == ["a", "a"]
        with pytest.raises(ConnectionFailed, match="the stream ended; gave up"):
            await anext(source)


async def test_a_cancelled_wait_goes_on_where_it_was(autojump_clock: Clock) -> None:
    """The time of the next attempt stands, whoever waits for it."""
    network = Network(REFUSED, Answer([b"data: a\n\n"]), OVER)
    async with source_on(network, retry=10000) as source:
        for _ in range(3):
            with trio.move_on_after(3) as limit:
                await anext(source)
            assert limit.cancelled_caught
        assert await data_of(source) == ["a"]
    assert network.times == [0, 10, 20]


async def test_a_cancelled_attempt_is_made_again(autojump_clock: Clock) -> None:
    """Nothing is left of it, and it was no failure."""
    network = Network(Answer([b"data: a\n\n"], after=5), Answer([b"data: b\n\n"], after=5))
    async with source_on(network) as source:
        with trio.move_on_after(3):
            await anext(source)
        assert await data_of(source, 1) == ["b"]
    assert network.times == [0, 3]


async def test_a_cancelled_read_loses_no_event(autojump_clock: Clock) -> None:
    """The connection is gone, and the next takes up after the last event that was returned."""
    network = Network(
        Answer([b"id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\ndata: c", math.inf]),
        Answer([b"id: 3\ndata: c\n\n"]),
        OVER,
    )
    async with source_on(network, retry=1000, max_attempts=1) as source:
        assert await data_of(source, 1) == ["a"]
        with trio.CancelScope() as cancelled:
            cancelled.cancel()
            await anext(source)
        assert await data_of(source, 1) == ["b"]  # it was there, and is still
        with trio.move_on_after(5):
            await anext(source)
        assert await data_of(source) == ["c"]
    assert network.ids() == [None, "2", "3"]
    assert network.times == [0, 6, 7]


async def test_a_read_cancelled_long_ago_costs_no_wait(autojump_clock: Clock) -> None:
    """The reconnection time is counted from when the connection was lost; it was no failure."""
    network = Network(HANGS, OVER)
    async with source_on(network, max_attempts=1) as source:
        with trio.move_on_after(1):
            await anext(source)
        await trio.sleep(100)
        await data_of(source)
    assert network.times == [0, 101]


@pytest.mark.parametrize("left_after", [0.0, 1.5, 2.5, 4.0, 7.0])
async def test_left_at_any_point(autojump_clock: Clock, left_after: float) -> None:
    """While it waits, asks, is redirected or reads: cancelled from outside, nothing is left."""
    moved = redirect("/b")
    moved.after = 1
    network = Network(moved, Answer([3.0, b"data: a\n\n"], after=1), *[HANGS] * 3)
    with trio.move_on_after(left_after) as limit:
        async with source_on(network, retry=1000) as source:
            async for _ in source:
                pass
    assert limit.cancelled_caught


@pytest.mark.parametrize("answer", [redirect("/b"), OVER, Answer(status=404), Answer(status=503)])
async def test_left_when_the_head_of_an_answer_is_there(
    autojump_clock: Clock, answer: Answer
) -> None:
    """A body that nobody wants is closed, even where every wait is cancelled."""
    network = Network(answer)
    async with httpx.AsyncClient(transport=network) as client:
        with trio.CancelScope() as left:

            async def leave(response: httpx.Response) -> None:
                left.cancel()

            client.event_hooks["response"] = [leave]
            async with EventSource(URL, client=client) as source:
                await anext(source)
        assert left.cancelled_caught
    assert [body.closed for body in network.bodies] == [True]


@pytest.mark.parametrize("closed_after", [0.0, 1.5, 2.5, 4.0, 5.5, 7.0])
async def test_closed_by_another_task(autojump_clock: Clock, closed_after: float) -> None:
    """Who waits for an event learns it at once; so does who asks later."""
    moved = redirect("/b")
    moved.after = 1
    network = Network(moved, Answer([3.0, b"data: a\n\n"], after=1), HANGS)
    async with source_on(network, retry=1000) as source:
        async with trio.open_nursery() as nursery:

            async def close() -> None:
                await trio.sleep(closed_after)
                await source.aclose()

            nursery.start_soon(close)
            with pytest.raises(trio.ClosedResourceError):
                async for _ in source:
                    pass
            assert trio.current_time() - network.began == closed_after
        assert source.state is SourceState.CLOSED
        with pytest.raises(trio.ClosedResourceError):
            await anext(source)


async def test_closed_though_cancelled(autojump_clock: Clock) -> None:
    """Leaving the block closes everything, even where every wait is cancelled."""
    network = Network(Answer([b"data: a\n\n", math.inf]))
    async with source_on(network) as source:
        await anext(source)
        with trio.CancelScope() as cancelled:
            cancelled.cancel()
            await source.aclose()
        assert cancelled.cancelled_caught
        assert network.bodies[0].gone


async def test_its_own_client_is_closed_with_it(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it opened, it closes; the caller's client is the caller's."""
    network = Network(Answer([b"data: a\n\n", math.inf]))
    client = httpx.AsyncClient(transport=network)
    monkeypatch.setattr(httpx, "AsyncClient", lambda: client)
    async with EventSource(URL) as source:
        assert await data_of(source, 1) == ["a"]
    assert client.is_closed
    assert network.bodies[0].gone


async def test_one_task_at_a_time(autojump_clock: Clock) -> None:
    """Two that wait for the next event are a mistake, which the second is told."""
    async with source_on(Network(HANGS)) as source, trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await anext(source)

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await anext(source)
        await source.aclose()


async def test_open_in_its_block_and_once(autojump_clock: Clock) -> None:
    """Outside there is nobody who would close it."""
    source = EventSource(URL)
    with pytest.raises(RuntimeError, match="async with"):
        await anext(source)
    async with httpx.AsyncClient(transport=Network(OVER)) as client:
        source = EventSource(URL, client=client)
        with pytest.raises(RuntimeError, match="async with"):
            await anext(source)
        async with source:
            assert await data_of(source) == []
            with pytest.raises(RuntimeError, match="opened once"):
                await source.__aenter__()
        with pytest.raises(RuntimeError, match="opened once"):
            await source.__aenter__()


async def test_each_call_is_a_checkpoint(autojump_clock: Clock) -> None:
    """Even where events wait, others get their turn."""
    network = Network(Answer([b"data: a\n\ndata: b\n\n"]))
    async with source_on(network) as source:
        for _ in range(2):
            with trio.testing.assert_checkpoints():
                await anext(source)


@pytest.mark.parametrize(
    "options",
    [
        {"url": "example.org/events"},
        {"url": "ftp://example.org/"},
        {"url": "http:///events"},
        {"url": "http://[::1/"},
        {"retry": -1},
        {"retry": 1.5},
        {"retry": 2**31},
        {"max_delay": 0},
        {"max_delay": math.inf},
        {"max_delay": math.nan},
        {"jitter": 1.1},
        {"jitter": -0.1},
        {"connect_timeout": 0},
        {"connect_timeout": math.nan},
        {"max_silence": 0},
        {"max_attempts": 0},
        {"max_attempts": 1.5},
        {"max_event_size": 0},
    ],
)
def test_arguments_out_of_range(options: dict[str, Any]) -> None:
    """Each is refused when the source is made."""
    with pytest.raises(ValueError, match=r"must be|is not a URL"):
        EventSource(options.pop("url", URL), **options)


def test_an_id_that_no_event_has() -> None:
    """It could be no event's, so nothing can go on from there."""
    with pytest.raises(InvalidEvent):
        EventSource(URL, last_event_id="a\nb")


def test_delays_do_not_overflow() -> None:
    """A client that was away for a year is still bounded."""
    reconnection = Reconnection(retry=3000, max_delay=60, jitter=0, max_attempts=None)
    for _ in range(100_000):
        reconnection.note(delivered=False)
    assert reconnection.delay() == 60
    assert not reconnection.exhausted


async def test_a_date_that_cannot_be(autojump_clock: Clock) -> None:
    """It is no date, and the answer is closed whatever its head says."""
    date = "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"
    assert retry_after(date) == 0
    network = Network(Answer(status=503, headers={"retry-after": date}), OVER)
    async with source_on(network) as source:
        assert await data_of(source) == []
    assert [body.closed for body in network.bodies] == [True, True]


async def test_an_impatient_caller_does_not_hammer(autojump_clock: Clock) -> None:
    """Cancelled before there was an answer, it waits for the reconnection time all the same."""
    network = Network(*[Answer(after=5.0)] * 100)
    async with source_on(network) as source:
        with trio.move_on_after(30):
            while True:
                with trio.move_on_after(0.1):
                    await anext(source)
    assert len(network.requests) <= 11
