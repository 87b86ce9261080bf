"""EventStream under virtual time: what comes, in which order, when, and what is told of it."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from penstock import CloseReason, EventStream, EventStreamStatistics, ProducerState, ServerSentEvent
from stream_fakes import COMMENT, Client, Events, Producer, nothing_left_behind


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
        assert await stream.run(client.send) is CloseReason.FINISHED
    assert client.data == [str(n) for n in range(100)]
    assert stream.close_reason is CloseReason.FINISHED


async def test_events_still_in_the_channel_are_sent_after_the_producer_returned(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A producer may send a channel's worth and return while its client has read nothing yet."""
    producer, client = Producer(16), Client(pace=10)
    stream = EventStream(producer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run, client.send)
        await trio.testing.wait_all_tasks_blocked()
        assert producer.finished_at == trio.current_time()
        assert stream.statistics().events_buffered == 16
        assert stream.close_reason is None
    assert client.data == [str(n) for n in range(16)]


async def test_what_waits_is_written_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """Events that wait together are one chunk: one write, however many."""
    client = Client(pace=1)
    await EventStream(Producer(4), buffer=8).run(client.send)
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
        nursery.start_soon(stream.run, Client(pace=math.inf).send)
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
    await stream.run(client.send)
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
    await EventStream(two).run(client.send)
    assert [at - start for at, _ in client.chunks] == [0, 10, 24, 39]


async def test_keep_alive_can_be_off(autojump_clock: trio.testing.MockClock) -> None:
    """None sends no comment but the first."""
    client = Client()
    await EventStream(Producer(1, pause=1e6), keep_alive=None).run(client.send)
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
        assert await stream.run(client.send) is CloseReason.EXPIRED
    assert producer.finished_at == start + 60.5
    assert client.data == [str(n) for n in range(producer.sent)]
    if not pace:
        assert stream.statistics().seconds == 60.5
        assert stream.statistics().events_sent == 60


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
    assert await EventStream(producer, keep_alive=None).run(client.send) is CloseReason.FINISHED
    assert client.data == ["0", "0", "0", "1", "1", "1"]


async def test_is_iterated_in_its_block_only() -> None:
    """A forgotten `open` would be a stream that is silent for ever."""
    stream = EventStream(Producer())
    with pytest.raises(trio.ClosedResourceError, match="in the block of its open"):
        await anext(stream)
    async with stream.open():
        pass
    with pytest.raises(trio.ClosedResourceError):
        await anext(stream)


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

    await EventStream(producer, name="/sse of Jane").run(Client().send)
    assert names == ["producer of /sse of Jane"]


async def test_is_opened_once() -> None:
    """A stream belongs to one client."""
    stream = EventStream(Producer(1))
    await stream.run(Client().send)
    with pytest.raises(RuntimeError, match="opened once"):
        await stream.run(Client().send)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"keep_alive": 0}, "keep_alive must be a number of seconds above 0"),
        ({"keep_alive": math.nan}, "keep_alive"),
        ({"max_lifetime": math.nan}, "max_lifetime must be a number of seconds, not NaN"),
        ({"buffer": -1}, "buffer must be a whole number"),
        ({"buffer": math.inf}, "buffer"),
        ({"buffer": True}, "buffer"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, object], says: str) -> None:
    """What could not work is an error when it is given, not when a client comes."""
    with pytest.raises(ValueError, match=says):
        EventStream(Producer(), **arguments)  # type: ignore[arg-type] # the mistakes


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
    await stream.run(Client().send)
    assert stream.statistics().events_sent == 1
