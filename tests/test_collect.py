"""A producer alone, as the testing kit runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import pytest
import trio
import trio.testing

from penstock import ServerSentEvent
from penstock.testing import collect

Clock = trio.testing.MockClock
Events = trio.abc.SendChannel[ServerSentEvent]


async def countdown(first: int, events: Events) -> None:
    for number in range(first, -1, -1):
        await events.send(ServerSentEvent(str(number)))
        await trio.sleep(1)


def data(events: list[ServerSentEvent]) -> list[str | None]:
    return [event.data for event in events]


async def test_a_producer_runs_to_its_end(autojump_clock: Clock) -> None:
    """Everything it sent is returned when it has returned."""
    assert data(await collect(partial(countdown, 2))) == ["2", "1", "0"]
    assert trio.current_time() == 3


async def test_a_producer_is_cancelled_when_there_is_enough(autojump_clock: Clock) -> None:
    """It sends no more than that, and its finally has run; fewer are returned when it ends."""
    sent: list[str] = []

    async def forever(events: Events) -> None:
        try:
            async with trio.open_nursery() as nursery:
                for name in "abc":
                    nursery.start_soon(send, events, name)
        finally:
            sent.append("the end")

    async def send(events: Events, name: str) -> None:
        while True:
            await events.send(ServerSentEvent(name))
            sent.append(name)

    assert len(await collect(forever, 7)) == len(sent) - 1 == 7
    assert sent[-1] == "the end"
    assert data(await collect(partial(countdown, 1), 3)) == ["1", "0"]
    assert trio.current_time() == 2


async def test_silence_is_given_up(autojump_clock: Clock) -> None:
    """Two days without an event are too many, however many came before."""

    async def slow(events: Events) -> None:
        for pause in (86400, 86400, 172801):
            await trio.sleep(pause)
            await events.send(ServerSentEvent("late"))

    with pytest.raises(trio.TooSlowError, match="sent 2 events and nothing more within 172800 s"):
        await collect(slow, 3)
    assert trio.current_time() == 4 * 86400
    with pytest.raises(trio.TooSlowError, match="expected its end"):
        await collect(slow)
    assert len(await collect(slow, 2)) == 2


async def test_errors_come_out_as_they_are() -> None:
    """What a producer raises is the test's; so is what it sends that is no event."""

    async def fails(events: Events) -> None:
        await events.send(ServerSentEvent("before"))
        raise KeyError("its own")

    async def sends_text(events: Events) -> None:
        await events.send("Hello")  # type: ignore[arg-type]

    async def yields(events: Events) -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent("before")

    def returns(events: Events) -> None: ...

    with pytest.raises(KeyError, match="its own"):
        await collect(fails)
    with pytest.raises(TypeError, match="sends ServerSentEvent objects, not str"):
        await collect(sends_text)
    with pytest.raises(TypeError, match="does not yield"):
        await collect(yields)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="returned NoneType, which cannot be awaited"):
        await collect(returns)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="count must be 1 or more"):
        await collect(fails, 0)


async def test_a_closed_channel_takes_nothing() -> None:
    """As in a stream: a producer that closed it may tidy up, and cannot send."""
    tidied = False

    async def closes(events: Events) -> None:
        nonlocal tidied
        await events.send(ServerSentEvent("last"))
        await events.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await events.send(ServerSentEvent("too late"))
        tidied = True

    assert data(await collect(closes)) == ["last"]
    assert tidied


async def test_a_collection_is_cancelled(autojump_clock: Clock) -> None:
    """The producer is cancelled with whoever waits for it."""
    with trio.move_on_after(2.5) as scope:
        await collect(partial(countdown, 9))
    assert scope.cancelled_caught
    assert trio.current_time() == 2.5


async def test_a_farewell_is_not_counted(autojump_clock: Clock) -> None:
    """Events that are sent from behind a shield after the last one are discarded."""

    async def polite(events: Events) -> None:
        try:
            await countdown(99, events)
        finally:
            with trio.CancelScope(shield=True):
                await events.send(ServerSentEvent("goodbye"))

    assert data(await collect(polite, 2)) == ["99", "98"]
