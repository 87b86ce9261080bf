"""EventStream under virtual time: order, keep-alive, ends, reasons, and cancellation anywhere."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from penstock import (
    CloseReason,
    EventStream,
    EventStreamDecoder,
    EventStreamStatistics,
    ProducerState,
    ServerSentEvent,
)

Events = trio.abc.SendChannel[ServerSentEvent]
ProducerFunction = Callable[[Events], Awaitable[None]]

COMMENT = b":\n\n"


class Producer:
    """Sends numbers as fast as it may, and notes when its finally ran."""

    def __init__(self, count: float = math.inf, pause: float = 0) -> None:
        self.count = count
        self.pause = pause
        self.sent = 0
        self.finished_at: float | None = None

    async def __call__(self, events: Events) -> None:
        try:
            while self.sent < self.count:
                await trio.sleep(self.pause)
                await events.send(ServerSentEvent(str(self.sent)))
                self.sent += 1
        finally:
            self.finished_at = trio.current_time()


class Client:
    """A transport that reads at its own pace, in virtual time, and may go away."""

    def __init__(self, *, pace: float = 0, leaves_after: float = math.inf) -> None:
        self.pace = pace
        self.leaves_after = leaves_after
        self.chunks: list[tuple[float, bytes]] = []

    async def send(self, chunk: bytes) -> None:
        await trio.sleep(self.pace)
        if len(self.chunks) >= self.leaves_after:
            raise trio.BrokenResourceError
        self.chunks.append((trio.current_time(), chunk))

    @property
    def data(self) -> list[str | None]:
        wire = b"".join(chunk for _, chunk in self.chunks)
        return [event.data for event in EventStreamDecoder().feed(wire)]


@asynccontextmanager
async def nothing_left_behind() -> AsyncIterator[None]:
    """Fail unless as many tasks live after the block as before it."""
    before = trio.lowlevel.current_statistics().tasks_living
    yield
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_first_bytes_come_at_once_and_before_any_event(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A comment goes out before the producer has anything to say, so that onopen fires."""
    stream = EventStream(Producer(1, pause=5))
    async with stream.open():
        start = trio.current_time()
        assert await anext(stream) == COMMENT
        assert trio.current_time() == start
        assert await anext(stream) == b"data: 0\n\n"
        assert trio.current_time() == start + 5


async def test_events_come_in_order_and_a_producer_that_returns_finishes_the_stream(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """All that was sent before the producer returned is written, then the stream is finished."""
    producer, client = Producer(100), Client(pace=1)
    stream = EventStream(producer, buffer=3)
    async with nothing_left_behind():
        assert await stream.run(client) is CloseReason.FINISHED
    assert client.data == [str(n) for n in range(100)]
    assert stream.close_reason is CloseReason.FINISHED


async def test_events_still_in_the_channel_are_sent_after_the_producer_returned(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A producer may send a channel's worth and return while its client has read nothing yet."""
    producer, client = Producer(16), Client(pace=10)
    stream = EventStream(producer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run, client)
        await trio.testing.wait_all_tasks_blocked()
        assert producer.finished_at == trio.current_time()
        assert stream.statistics().events_buffered == 16
        assert stream.close_reason is None
    assert client.data == [str(n) for n in range(16)]


async def test_what_waits_is_written_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """Events that wait together are one chunk: one write, however many."""
    client = Client(pace=1)
    await EventStream(Producer(4), buffer=8).run(client)
    assert [chunk for _, chunk in client.chunks] == [
        COMMENT,
        b"data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\n",
    ]


@pytest.mark.parametrize("buffer", [0, 1, 5])
async def test_a_producer_is_never_more_than_the_buffer_ahead(
    buffer: int, autojump_clock: trio.testing.MockClock
) -> None:
    """A client that does not read stops its producer, and nobody's memory grows."""
    producer = Producer()
    stream = EventStream(producer, buffer=buffer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run, Client(pace=math.inf))
        await trio.sleep(1000)
        assert producer.sent == buffer
        assert stream.statistics().events_buffered == buffer
        nursery.cancel_scope.cancel()
    assert producer.finished_at == trio.current_time()


async def test_keep_alive_after_silence_only(autojump_clock: trio.testing.MockClock) -> None:
    """A comment comes after each 15 s without bytes; an event starts the 15 s again."""
    client = Client()
    stream = EventStream(Producer(1, pause=40))
    start = trio.current_time()
    await stream.run(client)
    times = [(round(at - start, 9), chunk) for at, chunk in client.chunks]
    assert times == [(0, COMMENT), (15, COMMENT), (30, COMMENT), (40, b"data: 0\n\n")]
    assert stream.statistics().keep_alives_sent == 2

    async def two(events: Events) -> None:
        await trio.sleep(10)
        await events.send(ServerSentEvent("a"))
        await trio.sleep(14)
        await events.send(ServerSentEvent("b"))
        await trio.sleep(16)

    client = Client()
    start = trio.current_time()
    await EventStream(two).run(client)
    assert [at - start for at, _ in client.chunks] == [0, 10, 24, 39]


async def test_keep_alive_can_be_off(autojump_clock: trio.testing.MockClock) -> None:
    """None sends no comment but the first."""
    client = Client()
    await EventStream(Producer(1, pause=1e6), keep_alive=None).run(client)
    assert [chunk for _, chunk in client.chunks] == [COMMENT, b"data: 0\n\n"]


@pytest.mark.parametrize("pace", [0, 7, 1000])
async def test_lifetime_cancels_the_producer_on_time(
    pace: float, autojump_clock: trio.testing.MockClock
) -> None:
    """After max_lifetime the producer is cancelled, even while its client reads nothing."""
    producer, client = Producer(pause=1), Client(pace=pace)
    stream = EventStream(producer, max_lifetime=60.5)
    start = trio.current_time()
    async with nothing_left_behind():
        assert await stream.run(client) is CloseReason.EXPIRED
    assert producer.finished_at == start + 60.5
    assert client.data == [str(n) for n in range(producer.sent)]
    if not pace:
        assert stream.statistics().seconds == 60.5
        assert stream.statistics().events_sent == 60


class Broken(Exception):
    pass


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
        assert await stream.run(client) is CloseReason.FAILED
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
        await stream.run(Client())
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
        await stream.run(Client())
        reached_the_end = True
    assert not reached_the_end
    assert len(caplog.records) == 1


async def test_a_base_exception_is_not_ours_to_keep() -> None:
    """KeyboardInterrupt and SystemExit leave the stream, whose producer has ended."""

    async def producer(events: Events) -> None:
        raise SystemExit(3)

    with pytest.RaisesGroup(SystemExit):
        await EventStream(producer).run(Client())


async def test_a_disconnect_cancels_the_producer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Cancelling what serves the client cancels its producer, whose finally runs at once."""
    producer = Producer(pause=1)
    stream = EventStream(producer)
    start = trio.current_time()
    async with nothing_left_behind():
        with trio.move_on_after(3.5):
            await stream.run(Client())
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
        assert await stream.run(Client(leaves_after=3)) is CloseReason.DISCONNECTED
    assert producer.finished_at == trio.current_time()
    assert stream.statistics().events_sent == 2


async def test_an_unexpected_error_of_the_transport_goes_on_after_the_producer_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A fault in a transport is not hidden, and leaves nothing running."""

    class Faulty(Client):
        async def send(self, chunk: bytes) -> None:
            raise Broken

    producer = Producer(pause=1)
    async with nothing_left_behind():
        with pytest.RaisesGroup(Broken):
            await EventStream(producer).run(Faulty())
    assert producer.finished_at is not None


async def test_finished_means_that_everything_was_written(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A client that leaves with events still waiting was disconnected, though all were sent."""
    stream = EventStream(Producer(5))
    with trio.move_on_after(10):
        await stream.run(Client(pace=math.inf))
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
        nursery.start_soon(stream.run, client)
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
    assert await stream.run(client) is CloseReason.DRAINING
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


async def test_a_producer_may_use_nurseries_and_cancel_scopes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It is an ordinary task: it may start others, and limit them."""

    async def producer(events: Events) -> None:
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(Producer(2, pause=ord(name)), events)
            with trio.move_on_after(1):
                await trio.sleep_forever()

    client = Client()
    assert await EventStream(producer, keep_alive=None).run(client) is CloseReason.FINISHED
    assert client.data == ["0", "0", "0", "1", "1", "1"]


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
    assert await EventStream(producer).run(client) is CloseReason.FINISHED
    assert client.data == ["a"]
    assert not caplog.records


async def test_only_events_can_be_sent(caplog: pytest.LogCaptureFixture) -> None:
    """Text would be taken for wire bytes: it is refused where it is sent, in the producer."""

    async def producer(events: Events) -> None:
        await events.send("data: forged\n\n")  # type: ignore[arg-type] # the mistake

    client = Client()
    assert await EventStream(producer).run(client) is CloseReason.FAILED
    assert "TypeError: a producer sends ServerSentEvent objects, not str" in caplog.text
    assert client.data == []


async def test_what_is_no_async_function_fails_its_stream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A forgotten `async` is told in the log, once, in words that name the remedy."""

    def produce(events: Events) -> None: ...

    stream = EventStream(produce)  # type: ignore[arg-type] # the mistake
    assert await stream.run(Client()) is CloseReason.FAILED
    assert len(caplog.records) == 1
    assert "returned NoneType and nothing to await: define it with `async def`" in caplog.text


async def test_a_function_that_returns_an_awaitable_is_a_producer() -> None:
    """A lambda that binds an argument is one, and so is a partial."""
    for producer in (lambda events: Producer(2)(events), partial(Producer.__call__, Producer(2))):
        client = Client()
        assert await EventStream(producer).run(client) is CloseReason.FINISHED
        assert client.data == ["0", "1"]


async def test_a_transport_that_is_closed_ends_the_stream_as_well() -> None:
    """ClosedResourceError is the other half of a transport's contract."""

    class Closed(Client):
        async def send(self, chunk: bytes) -> None:
            raise trio.ClosedResourceError

    stream = EventStream(Producer())
    with trio.fail_after(5):
        assert await stream.run(Closed()) is CloseReason.DISCONNECTED


@pytest.mark.parametrize("message", ["", "two at once"])
async def test_all_errors_of_a_producer_are_logged(
    message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A group of errors is logged as a group."""

    async def producer(events: Events) -> None:
        raise ExceptionGroup(message, [Broken("one"), LookupError("two")])

    await EventStream(producer).run(Client())
    assert len(caplog.records) == 1
    assert "Broken: one" in caplog.text
    assert "LookupError: two" in caplog.text


def tidies_up_for(seconds: float) -> ProducerFunction:
    """Make a producer whose end takes some time, whatever comes."""

    async def producer(events: Events) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(seconds)

    return producer


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
            await stream.run(Client())
        nursery.cancel_scope.cancel()
    assert stream.close_reason is reason
    assert trio.current_time() == start + 15


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
        await stream.run(client)
    assert client.data == ["a"]
    assert tidied is done
    assert stream.close_reason is CloseReason.FINISHED
    assert stream.statistics().producer is state


async def test_a_lifetime_that_a_producer_swallows_is_the_reason_all_the_same(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It ended because it was cancelled, whatever it made of that."""

    async def producer(events: Events) -> None:
        with contextlib.suppress(trio.Cancelled):
            await trio.sleep_forever()

    assert await EventStream(producer, max_lifetime=5).run(Client()) is CloseReason.EXPIRED


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
        nursery.start_soon(stream.run, Shielded())
        await trio.sleep(3)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
            stream.end(CloseReason.DRAINING)
    assert stream.close_reason is CloseReason.DISCONNECTED


async def test_is_iterated_in_its_block_only() -> None:
    """A forgotten `open` would be a stream that is silent for ever."""
    stream = EventStream(Producer())
    with pytest.raises(trio.ClosedResourceError, match="in the block of its open"):
        await anext(stream)
    async with stream.open():
        pass
    with pytest.raises(trio.ClosedResourceError):
        await anext(stream)


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
            nursery.start_soon(stream.run, Client())
            await trio.testing.wait_all_tasks_blocked()
            stream.end(CloseReason.DRAINING)
    assert stream.close_reason is CloseReason.FINISHED


async def test_a_lifetime_that_ends_after_the_producer_returned_changes_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The producer is what has a lifetime: what it sent in time is written, however late."""
    stream, client = EventStream(Producer(3), max_lifetime=5), Client(pace=1000)
    assert await stream.run(client) is CloseReason.FINISHED
    assert client.data == ["0", "1", "2"]


async def test_the_default_buffer_is_sixteen_events() -> None:
    """A producer that is not read waits with its seventeenth."""
    producer = Producer()
    async with EventStream(producer).open():
        await trio.testing.wait_all_tasks_blocked()
        assert producer.sent == 16


async def test_the_producers_task_is_named() -> None:
    """Who looks at Trio's tasks sees whose producer each is."""
    names = []

    async def producer(events: Events) -> None:
        names.append(trio.lowlevel.current_task().name)

    await EventStream(producer, name="/sse of Jane").run(Client())
    assert names == ["producer of /sse of Jane"]


async def test_is_opened_once() -> None:
    """A stream belongs to one client."""
    stream = EventStream(Producer(1))
    await stream.run(Client())
    with pytest.raises(RuntimeError, match="opened once"):
        await stream.run(Client())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"keep_alive": 0}, "keep_alive must be a number of seconds above 0"),
        ({"keep_alive": math.nan}, "keep_alive"),
        ({"max_lifetime": -1}, "max_lifetime"),
        ({"buffer": -1}, "buffer must be a whole number"),
        ({"buffer": math.inf}, "buffer"),
        ({"buffer": True}, "buffer"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, object], says: str) -> None:
    """What could not work is an error when it is given, not when a client comes."""
    with pytest.raises(ValueError, match=says):
        EventStream(Producer(), **arguments)  # type: ignore[arg-type] # the mistakes


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


async def test_repr_and_statistics_through_a_life() -> None:
    """What holds state shows it."""
    stream = EventStream(Producer(1))
    assert repr(stream) == "<EventStream 'event stream' new, 0 events sent>"
    assert stream.statistics() == EventStreamStatistics(
        open=False,
        seconds=0,
        events_sent=0,
        bytes_sent=0,
        keep_alives_sent=0,
        events_buffered=0,
        producer=ProducerState.WAITING,
        close_reason=None,
    )
    async with stream.open():
        await anext(stream)
        assert repr(stream) == "<EventStream 'event stream' open, 0 events sent>"
        assert stream.statistics().open
        await trio.testing.wait_all_tasks_blocked()
        assert stream.statistics().producer is ProducerState.RETURNED
        await anext(stream)
        assert stream.statistics().events_sent == 0  # asked for, and not written yet
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert repr(stream) == "<EventStream 'event stream' closed (finished), 1 events sent>"


async def test_fields_without_data_are_not_counted_as_events() -> None:
    """A `retry` alone is sent, and no client calls it an event."""

    async def producer(events: Events) -> None:
        await events.send(ServerSentEvent(retry=5))
        await events.send(ServerSentEvent(""))

    stream = EventStream(producer)
    await stream.run(Client())
    assert stream.statistics().events_sent == 1


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope just before the nth time that any task runs."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.scope = scope
        self.steps_left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.steps_left == 0:
            self.scope.cancel()
        self.steps_left -= 1


@pytest.mark.parametrize("pace", [0, 1, 20])
@pytest.mark.parametrize("buffer", [0, 2])
@pytest.mark.parametrize("lifetime", [None, 5.5])
def test_cancelled_at_every_step(pace: float, buffer: int, lifetime: float | None) -> None:
    """Wherever the cancellation falls: the producer has ended, and what was written is in order."""

    async def once(step: int) -> bool:
        producer, client = Producer(6, pause=1), Client(pace=pace)
        started = False

        async def noticed(events: Events) -> None:
            nonlocal started
            started = True
            await producer(events)

        stream = EventStream(noticed, buffer=buffer, keep_alive=4, max_lifetime=lifetime)
        async with nothing_left_behind():
            with trio.CancelScope() as scope:
                instrument = CancelAtStep(scope, step)
                trio.lowlevel.add_instrument(instrument)
                await stream.run(client)
            if instrument.steps_left >= 0:
                trio.lowlevel.remove_instrument(instrument)
        figures = stream.statistics()
        assert not figures.open
        if started:
            assert producer.finished_at is not None
            assert figures.producer in (ProducerState.RETURNED, ProducerState.CANCELLED)
        assert client.data == [str(n) for n in range(len(client.data))]
        assert len(client.data) <= producer.sent + 1
        # Counted is what the transport took and came back from: all, or all but the last chunk.
        assert figures.bytes_sent in (
            sum(len(chunk) for _, chunk in client.chunks),
            sum(len(chunk) for _, chunk in client.chunks[:-1]),
        )
        if scope.cancelled_caught:
            expected = {CloseReason.DISCONNECTED} | ({CloseReason.EXPIRED} if lifetime else set())
            assert figures.close_reason in expected
        elif lifetime is None:
            assert figures.close_reason is CloseReason.FINISHED
            assert len(client.data) == 6
        return scope.cancel_called

    step = 0
    while trio.run(partial(once, step), clock=trio.testing.MockClock(autojump_threshold=0)):
        step += 1
    assert step > 5  # how many there are depends on the order in which Trio runs tasks


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
            nursery.start_soon(stream.run, Client(leaves_after=3))
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
    await stream.run(Client())
    with trio.testing.assert_checkpoints():
        await stream.wait_closed()


async def test_the_end_of_a_cancelled_stream(autojump_clock: trio.testing.MockClock) -> None:
    """It is told as any other: the block was left."""
    stream = EventStream(Producer(pause=1))
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(2.5):
            nursery.start_soon(stream.wait_closed)
            await stream.run(Client())
    assert stream.close_reason is CloseReason.DISCONNECTED
