"""EventSource reading a stream once: `reconnect=False`, `max_attempts`, and methods but GET."""

from __future__ import annotations

import math
from typing import Any

import httpx2
import pytest
import trio

from client_fakes import REFUSED, URL, Answer, Clock, Network, data_of, source_on
from penstock.client import EventSource, SourceState
from penstock.errors import ConnectionFailed

ONE = Answer([b"retry: 0\nid: 1\ndata: a\n\ndata: b\n\n"])
ONCE: list[dict[str, Any]] = [
    {"reconnect": False},
    {"max_attempts": 1},
    {"json": {}},
    {"method": "DELETE"},
    {"reconnect": False, "max_attempts": 5},
]


@pytest.mark.parametrize("options", ONCE)
async def test_read_once_to_its_end(autojump_clock: Clock, options: dict[str, Any]) -> None:
    """The iteration ends with the stream, and nothing is asked for again."""
    network = Network(ONE, ONE)
    async with source_on(network, **options) as source:
        assert [event.data async for event in source] == ["a", "b"]
        assert source.state is SourceState.CLOSED
        assert [event.data async for event in source] == []
    assert len(network.requests) == 1


@pytest.mark.parametrize("options", ONCE)
async def test_a_stream_without_events_has_an_end_too(
    autojump_clock: Clock, options: dict[str, Any]
) -> None:
    """A finite stream may be empty."""
    network = Network(Answer([]), ONE)
    async with source_on(network, **options) as source:
        assert await data_of(source) == []
    assert len(network.requests) == 1


@pytest.mark.parametrize("options", ONCE)
@pytest.mark.parametrize("broken", [httpx2.ReadError("reset"), httpx2.RemoteProtocolError("cut")])
async def test_a_stream_that_breaks_is_an_error(
    autojump_clock: Clock, options: dict[str, Any], broken: Exception
) -> None:
    """Half of an answer is not taken for the whole."""
    network = Network(Answer([b"data: a\n\n", broken]), ONE)
    async with source_on(network, **options) as source:
        assert await data_of(source, 1) == ["a"]
        with pytest.raises(ConnectionFailed, match=r"reset|cut"):
            await anext(source)
    assert len(network.requests) == 1


@pytest.mark.parametrize("bad", [REFUSED, Answer(status=503), Answer(status=429)])
async def test_an_attempt_that_fails_is_an_error(
    autojump_clock: Clock, bad: Answer | Exception
) -> None:
    """Nothing is sent twice unless the caller says so: it may have had an effect."""
    network = Network(bad, ONE)
    async with source_on(network, json={}) as source:
        with pytest.raises(ConnectionFailed):
            await anext(source)
    assert len(network.requests) == 1
    network = Network(bad, ONE, ONE)
    async with source_on(network, json={}, max_attempts=2) as source:
        assert await data_of(source) == ["a", "b"]
    assert len(network.requests) == 2


@pytest.mark.parametrize("cancelled_after", [1, 6])
async def test_what_was_cancelled_is_not_sent_again(
    autojump_clock: Clock, cancelled_after: float
) -> None:
    """Neither before nor after there was an answer."""
    network = Network(Answer([math.inf], after=5), ONE)
    async with source_on(network, json={}) as source:
        with trio.move_on_after(cancelled_after):
            await anext(source)
        with pytest.raises(ConnectionFailed, match="cancelled"):
            await anext(source)
    assert len(network.requests) == 1


@pytest.mark.parametrize("attempts", [1, 2, 3])
async def test_max_attempts_is_the_number_of_requests(autojump_clock: Clock, attempts: int) -> None:
    """Whether the attempts deliver or fail."""
    network = Network(*[ONE] * 9)
    async with source_on(network, max_attempts=attempts) as source:
        assert await data_of(source) == ["a", "b"] * attempts
    assert len(network.requests) == attempts
    network = Network(*[REFUSED] * 9)
    async with source_on(network, max_attempts=attempts) as source:
        with pytest.raises(ConnectionFailed, match=f"gave up after {attempts} attempt"):
            await anext(source)
    assert len(network.requests) == attempts


async def test_a_post_that_is_to_be_resumed(autojump_clock: Clock) -> None:
    """With reconnect=True the same request is sent again, with the id."""
    network = Network(ONE, Answer([b"data: c\n\n"]), Answer(status=204, headers={}))
    async with source_on(network, json={"a": 1}, reconnect=True) as source:
        assert await data_of(source) == ["a", "b", "c"]
    assert [(each.method, each.content) for each in network.requests] == [("POST", b'{"a": 1}')] * 3
    assert network.ids() == [None, "1", "1"]


@pytest.mark.parametrize("body", [b"", b"data: a\n\n", b":\n\n", b"id: 1\n\n"])
async def test_no_server_has_itself_asked_at_once(autojump_clock: Clock, body: bytes) -> None:
    """`retry: 0` is half a second, as in Firefox, and more after streams without an event."""
    again = Answer([b"retry: 0\n" + body])
    network = Network(*[again] * 200)
    async with source_on(network) as source:
        with trio.move_on_after(30.1):
            await data_of(source)
    assert len(network.requests) == (61 if b"data" in body else 9)
    network = Network(*[again] * 200)
    async with source_on(network, min_delay=5) as source:
        with trio.move_on_after(30.1):
            await data_of(source)
    assert len(network.requests) <= 7


async def test_no_cookie_is_kept(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server cannot fill memory, or requests, with what it sets."""
    setting = Answer([b"data: a\n\n"], headers={**ONE.headers, "set-cookie": f"a={'x' * 4000}"})
    network = Network(setting, setting, Answer(status=204, headers={}))
    made = httpx2.AsyncClient
    monkeypatch.setattr(httpx2, "AsyncClient", lambda **its: made(transport=network, **its))
    async with EventSource(URL) as source:
        assert await data_of(source) == ["a", "a"]
    assert ["cookie" in request.headers for request in network.requests] == [False] * 3


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            Answer([b'{"error": "no\n\x1b[2J\xe2\x80\xae key"}'], status=401),
            r'answered 401 Unauthorized, not 200: {"error": "no \x1b[2J\u202e key"}',
        ),
        (Answer([b"x" * 100_000], status=404, headers={}), "x" * 300 + "…"),
        (Answer([b"wait"], status=503, headers={}), "503 Service Unavailable: wait"),
        (Answer([b"half", math.inf], status=404, headers={}), "not 200: half"),
        (Answer([b"\x89PNG"], status=404, headers={"content-type": "image/png"}), "not 200"),
        (
            Answer([b"<h1>Sign  in</h1>"], headers={"content-type": "text/html"}),
            "instead of text/event-stream: <h1>Sign in</h1>",
        ),
    ],
)
async def test_a_refusal_says_what_its_body_says(
    autojump_clock: Clock, answer: Answer, says: str
) -> None:
    """In the same line, escaped and cut; a body that does not end is not waited for."""
    async with source_on(Network(answer), max_failures=1) as source:
        with pytest.raises(ConnectionFailed) as failed:
            await anext(source)
    said = str(failed.value).removesuffix("; gave up after 1 attempt")
    assert said.endswith(says)
    assert said.isprintable()
    assert len(failed.value.body) <= 2048
