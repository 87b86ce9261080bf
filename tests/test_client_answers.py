"""What EventSource makes of answers: statuses, `Retry-After`, content types, redirects."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from client_fakes import OVER, STREAM, URL, Answer, Clock, Network, data_of, redirect, source_on
from penstock.client import SourceState
from penstock.client.retries import retry_after
from penstock.errors import ConnectionFailed


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
        ({"content-type": "text/html"}, "answered with 'text/html' instead of text/event-stream"),
        ({"content-type": "text/event-streams"}, "'text/event-streams'"),
        ({}, "answered with no content type"),
        ({**STREAM, "content-encoding": "gzip"}, "answered with the encoding 'gzip'"),
    ],
)
async def test_what_is_no_event_stream_is_an_error(
    autojump_clock: Clock, headers: dict[str, str], says: str
) -> None:
    """Another content type, or an encoding that was not accepted."""
    network = Network(Answer([b"data: a\n\n"], headers=headers))
    async with source_on(network) as source:
        with pytest.raises(ConnectionFailed, match=says) as failed:
            await anext(source)
        assert failed.value.status == 200


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


async def test_too_many_redirects_are_an_error(autojump_clock: Clock) -> None:
    """Twenty are followed; a circle is not, for ever."""
    network = Network(*[redirect("/events")] * 20, Answer([b"data: a\n\n"]), *[redirect("/")] * 30)
    async with source_on(network) as source:
        assert await data_of(source, 1) == ["a"]
        with pytest.raises(ConnectionFailed, match="more than 20 redirects"):
            await anext(source)
    assert len(network.requests) == 21 + 21


async def test_a_date_that_cannot_be(autojump_clock: Clock) -> None:
    """It is no date, and the answer is closed whatever its head says."""
    date = "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"
    assert retry_after(date) == 0
    network = Network(Answer(status=503, headers={"retry-after": date}), OVER)
    async with source_on(network) as source:
        assert await data_of(source) == []
    assert [body.closed for body in network.bodies] == [True, True]
