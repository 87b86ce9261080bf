"""When EventSource reconnects: back-off, `retry`, silence, and how failures are counted."""

from __future__ import annotations

import logging
import math

import httpx2
import pytest
import trio
import trio.testing

from client_fakes import HANGS, OVER, REFUSED, Answer, Clock, Network, data_of, redirect, source_on
from penstock.client.retries import Backoff
from penstock.errors import ConnectionFailed


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
    async with source_on(network, retry=1000, max_delay=60, max_failures=3) as source:
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
    async with source_on(network, min_delay=0) as source:
        assert source.retry == 3000
        assert await data_of(source, 1) == ["a"]
        assert source.retry == 500
        assert await data_of(source) == ["b", "c"]
        assert source.retry == 100
    assert network.times == [0, 0.5, 1, 1.5, 2.5, 2.6]


async def test_retry_of_nothing_grows_all_the_same(autojump_clock: Clock) -> None:
    """`retry: 0` is respected after events, but the delay grows while attempts fail."""
    network = Network(Answer([b"retry: 0\ndata: a\n\n"]), REFUSED, REFUSED, REFUSED, OVER)
    async with source_on(network, min_delay=0) as source:
        assert await data_of(source) == ["a"]
    assert network.times == pytest.approx([0, 0, 0.1, 0.3, 0.7])


async def test_retry_beyond_the_bound_counts_for_an_hour(autojump_clock: Clock) -> None:
    """The server's delay may exceed max_delay, but not an hour."""
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
    """No two clients reconnect together; none reconnects too early."""
    network = Network(*[REFUSED] * 400, OVER)
    async with source_on(network, retry=1000, max_delay=1, jitter=0.5) as source:
        await data_of(source)
    waits = [
        later - earlier for earlier, later in zip(network.times, network.times[1:], strict=False)
    ]
    assert 1 <= min(waits) < 1.05
    assert 1.45 < max(waits) <= 1.5
    assert sum(waits) / len(waits) == pytest.approx(1.25, abs=0.05)


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
    async with source_on(
        network, url="http://example.org/", connect_timeout=7, retry=1000
    ) as source:
        assert await data_of(source) == ["a"]
    assert network.times == [0, 8, 12, 17, 27]


async def test_a_stream_that_breaks_is_opened_again(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """What broke it is in the log, with when there is another; no secret of the URL is."""
    caplog.set_level(logging.INFO, "penstock.client")
    network = Network(Answer([b"data: a\n\n", httpx2.ReadError("reset\nby peer")]), REFUSED, OVER)
    async with source_on(network, url="https://me:secret@example.org/e?key=secret") as source:
        assert await data_of(source) == ["a"]
        assert "secret" not in repr(source)
    assert network.times == [0, 3, 6]
    records = [record for record in caplog.records if record.name == "penstock.client"]
    assert [record.getMessage() for record in records] == [
        "https://example.org/e: reset by peer; reconnecting in 3.0 s",
        "https://example.org/e: Connection refused; reconnecting in 3.0 s",
    ]


@pytest.mark.parametrize(("attempts", "said"), [(1, "1 attempt"), (3, "3 attempts")])
async def test_failures_in_a_row_are_counted(
    autojump_clock: Clock, attempts: int, said: str
) -> None:
    """After this many failures since the last event, it gives up and says why."""
    fails: list[Answer | Exception] = [Answer(status=503), REFUSED, Answer(status=502)]
    fails = fails[-attempts:]
    network = Network(*fails[:-1], Answer([b"data: a\n\n"]), *fails)
    async with source_on(network, max_failures=attempts) as source:
        assert await data_of(source, 1) == ["a"]
        with pytest.raises(
            ConnectionFailed, match=f"answered 502 .*gave up after {said}$"
        ) as failed:
            await anext(source)
        assert failed.value.status == 502
    assert len(network.requests) == 2 * attempts


async def test_an_end_after_an_event_is_no_failed_attempt(autojump_clock: Clock) -> None:
    """A stream that ended after an event is requested again, even with max_failures=1."""
    one = Answer([b"data: a\n\n"])
    network = Network(one, one, Answer([]))
    async with source_on(network, max_failures=1) as source:
        assert await data_of(source, 2) == ["a", "a"]
        with pytest.raises(ConnectionFailed, match="the stream ended; gave up"):
            await anext(source)


def test_delays_do_not_overflow() -> None:
    """A client that was away for a year is still bounded."""
    backoff = Backoff(retry=3000, min_delay=0, max_delay=60, jitter=0, max_failures=None)
    for _ in range(100_000):
        backoff.record_attempt(delivered=False)
    assert backoff.delay() == 60
    assert not backoff.exhausted


async def test_an_impatient_caller_does_not_hammer(autojump_clock: Clock) -> None:
    """Cancelled before there was an answer, it waits for the reconnection time all the same."""
    network = Network(*[Answer(after=5.0)] * 100)
    async with source_on(network) as source:
        with trio.move_on_after(30):
            while True:
                with trio.move_on_after(0.1):
                    await anext(source)
    assert len(network.requests) <= 11
