"""EventSource cancelled, left or closed at any point loses no event and leaves nothing open."""

from __future__ import annotations

import math

import httpx2
import pytest
import trio
import trio.testing

from client_fakes import (
    HANGS,
    OVER,
    REFUSED,
    URL,
    Answer,
    Clock,
    Network,
    data_of,
    redirect,
    source_on,
)
from penstock.client import EventSource, SourceState


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
    """The connection is closed, and the next one resumes after the last event that was returned."""
    network = Network(
        Answer([b"id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\ndata: c", math.inf]),
        Answer([b"id: 3\ndata: c\n\n"]),
        OVER,
    )
    async with source_on(network, retry=1000, max_failures=1) as source:
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
    async with source_on(network, max_failures=1) as source:
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
    """An unwanted body is closed, even if every wait is cancelled."""
    network = Network(answer)
    async with httpx2.AsyncClient(transport=network) as client:
        with trio.CancelScope() as left:

            async def leave(response: httpx2.Response) -> None:
                left.cancel()

            client.event_hooks["response"] = [leave]
            async with EventSource(URL, client=client) as source:
                await anext(source)
        assert left.cancelled_caught
    assert [body.closed for body in network.bodies] == [True]


@pytest.mark.parametrize("closed_after", [0.0, 1.5, 2.5, 4.0, 5.5, 7.0])
async def test_closed_by_another_task(autojump_clock: Clock, closed_after: float) -> None:
    """A task that waits for an event raises at once, and so does a later call."""
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
