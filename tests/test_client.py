"""EventSource on a network of the tests: what it asks for and delivers; misuse of it."""

from __future__ import annotations

import math
from typing import Any

import httpx2
import pytest
import trio
import trio.testing

from client_fakes import HANGS, OVER, URL, Answer, Clock, Network, data_of, source_on
from penstock import DecodeError, InvalidEvent, ServerSentEvent
from penstock.client import EventSource, SourceState


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


async def test_an_oversized_event_is_an_error_after_those_before_it(autojump_clock: Clock) -> None:
    """Reconnecting would bring the same event: the iteration ends."""
    network = Network(Answer([b"data: a\n\ndata: b\n\ndata: " + b"c" * 100, math.inf]))
    async with source_on(network, max_event_size=50) as source:
        assert await data_of(source, 2) == ["a", "b"]
        for _ in range(2):
            with pytest.raises(DecodeError, match="larger than max_event_size"):
                await anext(source)
        assert source.state is SourceState.CLOSED
    assert len(network.requests) == 1


async def test_its_own_client_is_closed_with_it(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it opened, it closes; the caller's client is the caller's."""
    network = Network(Answer([b"data: a\n\n", math.inf]))
    client = httpx2.AsyncClient(transport=network)
    monkeypatch.setattr(httpx2, "AsyncClient", lambda **_: client)
    async with EventSource(URL) as source:
        assert await data_of(source, 1) == ["a"]
    assert client.is_closed
    assert network.bodies[0].gone


async def test_one_task_at_a_time(autojump_clock: Clock) -> None:
    """Two tasks waiting for the next event are a mistake: the second one raises."""
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
    """Outside its block, nothing would close it."""
    source = EventSource(URL)
    with pytest.raises(RuntimeError, match="async with"):
        await anext(source)
    async with httpx2.AsyncClient(transport=Network(OVER)) as client:
        source = EventSource(URL, client=client)
        with pytest.raises(RuntimeError, match="async with"):
            await anext(source)
        async with source:
            assert await data_of(source) == []
            with pytest.raises(RuntimeError, match="opened only once"):
                await source.__aenter__()
        with pytest.raises(RuntimeError, match="opened only once"):
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
        {"max_failures": 0},
        {"min_delay": -1},
        {"min_delay": math.inf},
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
