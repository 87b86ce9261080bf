"""StreamGroup: counts streams, and drains them."""

from __future__ import annotations

import trio
import trio.testing

from penstock import CloseReason, EventStream, ServerSentEvent, StreamGroup, StreamGroupStatistics

Events = trio.abc.SendChannel[ServerSentEvent]


class Sink:
    async def send(self, chunk: bytes) -> None:
        await trio.lowlevel.checkpoint()


async def tick(events: Events) -> None:
    while True:
        await trio.sleep(1)
        await events.send(ServerSentEvent("tick"))


async def once(events: Events) -> None:
    await events.send(ServerSentEvent("once"))


async def held(group: StreamGroup, stream: EventStream) -> None:
    group.add(stream)
    try:
        await stream.run(Sink().send)
    finally:
        group.remove(stream)


async def test_counts_streams_while_open_and_by_reason_afterwards(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Open streams, ended ones by reason, and events of both are in the statistics."""
    group = StreamGroup()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(held, group, EventStream(once))
        for _ in range(3):
            nursery.start_soon(held, group, EventStream(tick))
        await trio.sleep(2.5)
        figures = group.statistics()
        assert figures.streams_open == 3
        assert figures.streams_closed == {CloseReason.FINISHED: 1}
        assert figures.events_sent == 7
        assert repr(group) == "<StreamGroup serving, 3 open>"
        nursery.cancel_scope.cancel()
    assert group.statistics() == StreamGroupStatistics(
        streams_open=0,
        streams_closed={CloseReason.FINISHED: 1, CloseReason.DISCONNECTED: 3},
        events_sent=7,
        bytes_sent=4 * len(b":\n") + len(b"data: once\n\n") + 6 * len(b"data: tick\n\n"),
        draining=False,
    )


async def test_drain_ends_open_streams_and_those_that_come_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """After a drain no stream stays, and none starts that would."""
    group = StreamGroup()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(held, group, EventStream(tick))
            await trio.sleep(2.5)
            await group.drain()
        await held(group, EventStream(tick))
    figures = group.statistics()
    assert figures.streams_closed == {CloseReason.DRAINING: 4}
    assert figures.draining
    assert repr(group) == "<StreamGroup draining, 0 open>"


async def test_a_stream_that_is_never_opened_is_not_counted() -> None:
    """Nothing began, so nothing ended."""
    group, stream = StreamGroup(), EventStream(once)
    group.add(stream)
    group.remove(stream)
    assert group.statistics() == StreamGroup().statistics()
