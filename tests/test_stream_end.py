"""How an EventStream ends, and which of several causes is its reason."""

from __future__ import annotations

import contextlib
import math
from decimal import Decimal
from typing import Any, cast

import pytest
import trio
import trio.testing

from penstock import CloseReason, EventStream, EventStreamStatistics, ProducerState, open_hub
from penstock.stream.source import Tally
from stream_fakes import (
    COMMENT,
    Broken,
    Client,
    Events,
    Producer,
    nothing_left_behind,
    tidies_up_for,
)


async def test_a_disconnect_cancels_the_producer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Cancelling what serves the client cancels its producer, whose finally runs at once."""
    producer = Producer(pause=1)
    stream = EventStream(producer)
    start = trio.current_time()
    async with nothing_left_behind():
        with trio.move_on_after(3.5):
            await stream.run(Client().send)
    assert producer.finished_at == start + 3.5
    await trio.sleep(100)  # the figures are those of its end
    assert stream.statistics() == EventStreamStatistics(
        open=False,
        seconds=3.5,
        events_sent=3,
        bytes_sent=len(COMMENT) + 3 * len(b"data: 0\n\n"),
        keep_alives_sent=0,
        events_buffered=0,
        producer=ProducerState.CANCELLED,
        close_reason=CloseReason.DISCONNECTED,
    )


async def test_a_transport_that_lost_its_peer_ends_the_stream(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """BrokenResourceError of a send is a disconnect, too; what was not taken is not counted."""
    producer = Producer(pause=1)
    stream = EventStream(producer)
    async with nothing_left_behind():
        assert await stream.run(Client(leaves_after=3).send) is CloseReason.DISCONNECTED
    assert producer.finished_at == trio.current_time()
    assert stream.statistics().events_sent == 2


async def test_an_unexpected_error_of_the_transport_goes_on_after_the_producer_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A fault in a transport is not hidden, and leaves nothing running."""

    class Faulty(Client):
        async def send(self, chunk: bytes) -> None:
            await trio.sleep(0.5)
            raise Broken

    producer = Producer(pause=1)
    async with nothing_left_behind():
        with pytest.RaisesGroup(Broken):
            await EventStream(producer).run(Faulty().send)
    assert producer.finished_at is not None


async def test_finished_means_that_everything_was_written(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A client that leaves with events still waiting was disconnected, though all were sent."""
    stream = EventStream(Producer(5))
    with trio.move_on_after(10):
        await stream.run(Client(pace=math.inf).send)
    assert stream.statistics().producer is ProducerState.RETURNED
    assert stream.close_reason is CloseReason.DISCONNECTED


@pytest.mark.parametrize("reason", [CloseReason.KICKED, CloseReason.DRAINING, CloseReason.SLOW])
async def test_end_cancels_the_producer_and_writes_what_is_there(
    reason: CloseReason, autojump_clock: trio.testing.MockClock
) -> None:
    """A stream that is ended from outside ends properly, with the first reason that was given."""
    producer, client = Producer(pause=1), Client(pace=2.5)
    stream = EventStream(producer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run, client.send)
        await trio.sleep(10.5)
        stream.end(reason)
        stream.end(CloseReason.FAILED)
        await trio.testing.wait_all_tasks_blocked()
        assert producer.finished_at == trio.current_time()
    assert stream.close_reason is reason
    assert client.data == [str(n) for n in range(10)]
    stream.end(CloseReason.FAILED)
    assert stream.close_reason is reason


async def test_ended_before_it_is_opened() -> None:
    """Such a stream says hello and ends; its producer gets no further than its first checkpoint."""
    producer, client = Producer(), Client()
    stream = EventStream(producer)
    stream.end(CloseReason.DRAINING)
    assert await stream.run(client.send) is CloseReason.DRAINING
    assert producer.sent == 0
    assert [chunk for _, chunk in client.chunks] == [COMMENT]


async def test_leaving_the_block_cancels_the_producer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A writer that stops in the middle leaves nothing running."""
    producer = Producer(pause=1)
    stream = EventStream(producer)
    async with nothing_left_behind():
        async with stream.open():
            async for chunk in stream:
                if chunk != COMMENT:
                    break
    assert producer.finished_at is not None
    assert stream.close_reason is CloseReason.DISCONNECTED
    with pytest.raises(trio.ClosedResourceError):
        await anext(stream)


async def test_a_transport_that_is_closed_ends_the_stream_as_well() -> None:
    """ClosedResourceError is the other half of a transport's contract."""

    class Closed(Client):
        async def send(self, chunk: bytes) -> None:
            raise trio.ClosedResourceError

    stream = EventStream(Producer())
    with trio.fail_after(5):
        assert await stream.run(Closed().send) is CloseReason.DISCONNECTED


@pytest.mark.parametrize(
    ("gone_at", "lifetime", "drained_at", "reason"),
    [
        (5, 8, math.inf, CloseReason.DISCONNECTED),
        (5, math.inf, 7, CloseReason.DISCONNECTED),
        (math.inf, 5, 7, CloseReason.EXPIRED),
        (7, 5, math.inf, CloseReason.EXPIRED),
        (7, math.inf, 5, CloseReason.DRAINING),
        (math.inf, 7, 5, CloseReason.DRAINING),
    ],
)
async def test_the_first_cause_is_the_reason(
    gone_at: float,
    lifetime: float,
    drained_at: float,
    reason: CloseReason,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What happens while the producer tidies up for ten seconds comes too late to be the reason."""
    stream = EventStream(tidies_up_for(10), max_lifetime=lifetime)
    start = trio.current_time()

    async def drain() -> None:
        await trio.sleep(drained_at)
        stream.end(CloseReason.DRAINING)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        with trio.move_on_after(gone_at):
            await stream.run(Client().send)
        nursery.cancel_scope.cancel()
    assert stream.close_reason is reason
    assert trio.current_time() == start + 15


async def test_a_lifetime_that_a_producer_swallows_is_the_reason_all_the_same(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It ended because it was cancelled, whatever it made of that."""

    async def producer(events: Events) -> None:
        with contextlib.suppress(trio.Cancelled):
            await trio.sleep_forever()

    assert await EventStream(producer, max_lifetime=5).run(Client().send) is CloseReason.EXPIRED


async def test_a_disconnect_is_the_reason_though_the_writer_cannot_leave(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A server may shield its send: the producer's end tells what came first."""

    class Shielded(Client):
        async def send(self, chunk: bytes) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(10)

    stream = EventStream(Producer(pause=1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run, Shielded().send)
        await trio.sleep(3)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
            stream.end(CloseReason.DRAINING)
    assert stream.close_reason is CloseReason.DISCONNECTED


async def test_a_drain_cancels_a_producer_that_tidies_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A finished stream is ended all the same: a server that stops does not wait for it."""

    async def producer(events: Events) -> None:
        await events.aclose()
        await trio.sleep_forever()

    stream = EventStream(producer)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.run, Client().send)
            await trio.testing.wait_all_tasks_blocked()
            stream.end(CloseReason.DRAINING)
    assert stream.close_reason is CloseReason.FINISHED


async def test_a_lifetime_that_ends_after_the_producer_returned_changes_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The producer is what has a lifetime: what it sent in time is written, however late."""
    stream, client = EventStream(Producer(3), max_lifetime=5), Client(pace=1000)
    assert await stream.run(client.send) is CloseReason.FINISHED
    assert client.data == ["0", "1", "2"]


async def test_the_end_can_be_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    """By many, before it is opened or later: all return when the producer's `finally` has run."""
    producer = Producer(pause=1)
    stream = EventStream(producer)
    ends: list[tuple[float, CloseReason | None]] = []

    async def wait() -> None:
        await stream.wait_closed()
        assert not stream.statistics().open
        ends.append((trio.current_time(), stream.close_reason))

    async with nothing_left_behind():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(wait)
            nursery.start_soon(stream.run, Client(leaves_after=3).send)
            await trio.sleep(1.5)
            nursery.start_soon(wait)
            with trio.move_on_after(0.1) as impatient:
                await stream.wait_closed()
            assert impatient.cancelled_caught
            assert ends == []
    assert ends == [(producer.finished_at, CloseReason.DISCONNECTED)] * 3


async def test_the_end_of_a_stream_that_is_over(autojump_clock: trio.testing.MockClock) -> None:
    """It is there at once, after a checkpoint."""
    stream = EventStream(Producer(count=1))
    await stream.run(Client().send)
    with trio.testing.assert_checkpoints():
        await stream.wait_closed()


async def test_the_end_of_a_cancelled_stream(autojump_clock: trio.testing.MockClock) -> None:
    """It is told as any other: the block was left."""
    stream = EventStream(Producer(pause=1))
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(2.5):
            nursery.start_soon(stream.wait_closed)
            await stream.run(Client().send)
    assert stream.close_reason is CloseReason.DISCONNECTED


async def test_seconds_may_be_any_number(autojump_clock: trio.testing.MockClock) -> None:
    """A Decimal, as what reads a configuration may give, is as good as a float."""
    seconds: list[Any] = [Decimal(4), Decimal("1.5")]
    stream = EventStream(tidies_up_for(0), max_lifetime=seconds[0], keep_alive=seconds[1])
    client = Client()
    start = trio.current_time()
    assert await stream.run(client.send) is CloseReason.EXPIRED
    assert trio.current_time() == start + 4
    assert client.chunks == [(start + at, COMMENT) for at in (0, 1.5, 3)]


@pytest.mark.parametrize("max_lifetime", [0, -1, -0.0, -math.inf])
async def test_a_lifetime_that_is_over(
    max_lifetime: float, autojump_clock: trio.testing.MockClock
) -> None:
    """What is left of an expired token ends the stream after its first bytes, as expired."""
    calls = []

    async def produce(events: Events) -> None:
        calls.append(events)

    client = Client()
    stream = EventStream(produce, max_lifetime=max_lifetime)
    async with nothing_left_behind():
        assert await stream.run(client.send) is CloseReason.EXPIRED
    assert client.chunks == [(trio.current_time(), COMMENT)]
    assert stream.statistics().producer is ProducerState.CANCELLED
    assert not calls


async def test_a_lifetime_of_a_subscription_that_is_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A subscription, too, ends at once, and nothing of it is left."""
    async with open_hub() as hub:
        for max_lifetime in (0, -5, -math.inf):
            client = Client()
            stream = EventStream(hub.subscription(["a"]), max_lifetime=max_lifetime)
            assert await stream.run(client.send) is CloseReason.EXPIRED
            assert len(client.chunks) == 1
        assert hub.statistics().subscriptions_open == 0


async def test_a_stream_that_cannot_begin(autojump_clock: trio.testing.MockClock) -> None:
    """The error of its source goes on; the stream is over, as failed, and no task is left."""

    class SourceThatCannotBegin:
        written, waiting, producer_state, expired = Tally(), 0, None, False

        def claim(self) -> None: ...

        async def start(self, name: str, deadline: float, set_close_reason: Any) -> None:
            raise Broken

    stream = EventStream(cast(Any, SourceThatCannotBegin()))
    async with nothing_left_behind():
        with pytest.raises(Broken):
            await stream.run(Client().send)
        await stream.wait_closed()
    assert stream.close_reason is CloseReason.FAILED
    assert not stream.statistics().open


async def test_a_buffer_is_a_producers() -> None:
    """With a subscription, which has a bound of its own, the argument is an error."""
    async with open_hub() as hub:
        with pytest.raises(ValueError, match=r"hub\.subscription\(…, buffer=…\)"):
            EventStream(hub.subscription(["a"]), buffer=16)
