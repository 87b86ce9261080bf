"""Producers that raise, return, close their channel, or are none at all."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest
import trio
import trio.testing

from penstock import CloseReason, EventStream, ProducerState, ServerSentEvent
from stream_fakes import Broken, Client, Events, Producer, ProducerFunction, nothing_left_behind


async def fails(events: Events) -> None:
    await events.send(ServerSentEvent("a"))
    await trio.sleep(1)
    raise Broken("the reason")


async def fails_in_a_nursery(events: Events) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails, events)
        nursery.start_soon(trio.sleep_forever)


@pytest.mark.parametrize("producer", [fails, fails_in_a_nursery])
async def test_a_producer_that_raises_fails_its_stream_and_nothing_else(
    producer: ProducerFunction,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What it sent is written, one record with the traceback is logged, and no error goes on."""
    client = Client()
    stream = EventStream(producer, name="/numbers")
    async with nothing_left_behind():
        assert await stream.run(client.send) is CloseReason.FAILED
    assert client.data == ["a"]
    assert stream.statistics().producer is ProducerState.FAILED
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.name == "penstock.stream.producer"
    assert record.getMessage() == "/numbers: the producer failed"
    assert "Broken: the reason" in caplog.text
    assert 'raise Broken("the reason")' in caplog.text


async def test_an_error_while_being_cancelled_is_logged_and_changes_no_reason(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """A failing finally is told to the operator; the client was disconnected all the same."""

    async def producer(events: Events) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Broken("in finally")

    stream = EventStream(producer)
    with trio.move_on_after(1) as scope:
        await stream.run(Client().send)
    assert scope.cancelled_caught
    assert stream.close_reason is CloseReason.DISCONNECTED
    assert len(caplog.records) == 1
    assert "Broken: in finally" in caplog.text


async def test_an_error_beside_a_cancellation_does_not_swallow_the_cancellation(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """A producer's nursery may end with both: the error is logged, the cancellation goes on."""

    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Broken("child")

    async def producer(events: Events) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(trio.sleep_forever)

    stream = EventStream(producer)
    reached_the_end = False
    with trio.move_on_after(1):
        await stream.run(Client().send)
        reached_the_end = True
    assert not reached_the_end
    assert len(caplog.records) == 1


async def test_a_base_exception_is_not_ours_to_keep() -> None:
    """KeyboardInterrupt and SystemExit leave the stream, whose producer has ended."""

    async def producer(events: Events) -> None:
        raise SystemExit(3)

    with pytest.RaisesGroup(SystemExit):
        await EventStream(producer).run(Client().send)


async def test_a_producer_that_closes_its_channel_ends_the_stream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Closing is what Trio's channels are ended with; sending after it is the usual error."""

    async def producer(events: Events) -> None:
        async with events:
            await events.send(ServerSentEvent("a"))
        with pytest.raises(trio.ClosedResourceError):
            await events.send(ServerSentEvent("b"))

    client = Client()
    assert await EventStream(producer).run(client.send) is CloseReason.FINISHED
    assert client.data == ["a"]
    assert not caplog.records


async def test_only_events_can_be_sent(caplog: pytest.LogCaptureFixture) -> None:
    """Text would be taken for wire bytes: it is refused where it is sent, in the producer."""

    async def producer(events: Events) -> None:
        await events.send("data: forged\n\n")  # type: ignore[arg-type] # the mistake

    client = Client()
    assert await EventStream(producer).run(client.send) is CloseReason.FAILED
    assert "TypeError: a producer sends ServerSentEvent objects, not str" in caplog.text
    assert client.data == []


async def test_what_is_no_async_function_fails_its_stream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A forgotten `async` is told in the log, once, in words that name the remedy."""

    def produce(events: Events) -> None: ...

    stream = EventStream(produce)  # type: ignore[arg-type] # the mistake
    assert await stream.run(Client().send) is CloseReason.FAILED
    assert len(caplog.records) == 1
    assert "returned NoneType, which cannot be awaited: define it with `async def`" in caplog.text


async def test_a_function_that_returns_an_awaitable_is_a_producer() -> None:
    """A lambda that binds an argument is one, and so is a partial."""
    for producer in (lambda events: Producer(2)(events), partial(Producer.__call__, Producer(2))):
        client = Client()
        assert await EventStream(producer).run(client.send) is CloseReason.FINISHED
        assert client.data == ["0", "1"]


@pytest.mark.parametrize("message", ["", "two at once"])
async def test_all_errors_of_a_producer_are_logged(
    message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A group of errors is logged as a group."""

    async def producer(events: Events) -> None:
        raise ExceptionGroup(message, [Broken("one"), LookupError("two")])

    await EventStream(producer).run(Client().send)
    assert len(caplog.records) == 1
    assert "Broken: one" in caplog.text
    assert "LookupError: two" in caplog.text


@pytest.mark.parametrize(
    ("gone_at", "done", "state"),
    [
        (math.inf, True, ProducerState.RETURNED),
        (0.5, False, ProducerState.CANCELLED),
    ],
)
async def test_a_producer_may_tidy_up_after_it_closed_its_channel(
    gone_at: float, done: bool, state: ProducerState, autojump_clock: trio.testing.MockClock
) -> None:
    """It is waited for, and cancelled by a disconnect, as ever; the stream is finished."""
    tidied = False

    async def producer(events: Events) -> None:
        nonlocal tidied
        await events.send(ServerSentEvent("a"))
        await events.aclose()
        await trio.sleep(1)
        tidied = True

    stream, client = EventStream(producer), Client()
    with trio.move_on_after(gone_at):
        await stream.run(client.send)
    assert client.data == ["a"]
    assert tidied is done
    assert stream.close_reason is CloseReason.FINISHED
    assert stream.statistics().producer is state


async def yields(events: Events) -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent("a")


def yields_too() -> Iterator[ServerSentEvent]:
    yield ServerSentEvent("a")


@pytest.mark.parametrize(
    ("producer", "says"),
    [
        (None, "must be an async function that takes a send channel, not NoneType"),
        (yields_too(), "not generator"),
        (yields, r"does not yield its events: await events\.send\(event\)"),
        (yields_too, "does not yield"),
        (partial(yields), "does not yield"),
    ],
)
def test_what_is_no_producer_is_refused_at_once(producer: object, says: str) -> None:
    """What can be seen before a client comes is told before a client comes."""
    with pytest.raises(TypeError, match=says):
        EventStream(producer)  # type: ignore[arg-type] # the mistakes
