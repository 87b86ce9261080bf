"""How a stream of a subscription ends, and that nothing is left of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from hub_fakes import Server, SlowHistory
from hub_steps import Clock, hold, prompt_hub, publish
from penstock import EVERY_TOPIC, CloseReason, EventStream, Hub, ServerSentEvent, StreamGroup
from penstock.stream.source import COMMENT
from subscription_steps import numbers, streaming


@pytest.mark.parametrize("busy", [False, True])
async def test_the_greatest_lifetime(busy: bool, autojump_clock: Clock) -> None:
    """It expires on time whether it is silent, or its client is always behind."""
    async with prompt_hub() as hub, trio.open_nursery() as nursery:
        ended: list[float] = []
        began = trio.current_time()

        class SlowSink:
            async def send(self, chunk: bytes) -> None:
                await trio.sleep(1)

        async def publisher() -> None:
            for number in range(100):
                await numbers(hub, range(number, number + 1))
                await trio.sleep(0.4)

        async def run() -> None:
            subscription = hub.subscription(["a"], overflow="drop_oldest", buffer=1)
            stream = EventStream(subscription, max_lifetime=10)
            assert await stream.run(SlowSink().send) is CloseReason.EXPIRED
            ended.append(trio.current_time() - began)

        nursery.start_soon(run)
        if busy:
            nursery.start_soon(publisher)
        await trio.sleep(100)
        assert len(ended) == 1
        assert 10 <= ended[0] <= 13
        assert hub.statistics().subscriptions_closed == {CloseReason.EXPIRED: 1}


@pytest.mark.parametrize("reason", [CloseReason.KICKED, CloseReason.DRAINING])
async def test_a_stream_that_is_ended_writes_what_waits_and_its_farewell(
    reason: CloseReason, autojump_clock: Clock
) -> None:
    """The farewell is last; the hub counts the reason that the stream has."""
    async with prompt_hub() as hub:
        server = Server()
        async with streaming(hub, server) as (stream, _):
            await trio.sleep(1)
            server.stop_reading()
            await numbers(hub, range(3))
            await trio.sleep(1)
            stream.end(reason, ServerSentEvent(retry=7))
            stream.end(CloseReason.FAILED, ServerSentEvent(retry=8))
            await numbers(hub, range(3, 5))
            await trio.sleep(1)
            server.read_on()
            await trio.sleep(1)
            assert server.data == ["0", "1", "2"]
            assert server.wire.endswith(b"data: 2\n\nretry: 7\n")
            assert stream.close_reason is reason
            stream.end(CloseReason.FAILED)
        figures = hub.statistics()
        assert figures.subscriptions_closed == {reason: 1}
        assert (figures.subscriptions_open, figures.audiences) == (0, 0)


async def test_a_group_drains_streams_of_a_hub(autojump_clock: Clock) -> None:
    """Those that are open end with their farewell; one that comes later, as soon as it is open."""
    group = StreamGroup()
    async with prompt_hub() as hub, trio.open_nursery() as nursery:
        servers = [Server() for _ in range(6)]

        async def held(server: Server) -> None:
            stream = EventStream(hub.subscription(["a"]))
            group.add(stream)
            try:
                await stream.run(server.send, server)
            finally:
                group.remove(stream)

        for server in servers[:5]:
            nursery.start_soon(held, server)
        await trio.sleep(1)
        await group.drain(seconds=2, reconnect_spread=10)
        await held(servers[5])
        await trio.sleep(1)
        assert group.statistics().streams_closed == {CloseReason.DRAINING: 6}
        assert all(b"\nretry: " in server.wire for server in servers)
        figures = hub.statistics()
        assert (figures.subscriptions_open, figures.audiences) == (0, 0)
        assert figures.subscriptions_closed.get(CloseReason.DRAINING) in (5, 6)


async def test_a_stream_ended_before_it_is_open_leaves_nothing(autojump_clock: Clock) -> None:
    """It says what a stream begins with, and is over; nobody subscribes after it."""
    ran = []

    async def produce(events: trio.abc.SendChannel[ServerSentEvent]) -> None:
        ran.append(1)
        await trio.sleep_forever()

    async with prompt_hub() as hub:
        hub.add_producer("a", produce, keep_running_for=0)
        stream = EventStream(hub.subscription(["a"]))
        stream.end(CloseReason.KICKED, ServerSentEvent(retry=7))
        server = Server()
        with trio.fail_after(1):
            await stream.run(server.send, server)
        assert server.wire == COMMENT + b"retry: 7\n"
        assert stream.close_reason is CloseReason.KICKED
        figures = hub.statistics()
        assert (figures.subscriptions_open, figures.audiences) == (0, 0)
        async with hub.subscribe(["a"]):
            await trio.sleep(1)
            assert hub.statistics().producers_running == 1
        await trio.sleep(1)
        assert hub.statistics().producers_running == 0


@pytest.mark.parametrize("with_producer", [False, True])
async def test_a_stream_of_a_hub_that_is_closed_is_finished(
    with_producer: bool, autojump_clock: Clock
) -> None:
    """A request that comes late has an empty stream, and leaves nothing."""

    async def produce(events: trio.abc.SendChannel[ServerSentEvent]) -> None: ...

    async with prompt_hub() as hub:
        if with_producer:
            hub.add_producer("a", produce)
        stream = EventStream(hub.subscription(["a"]))
        hub.close()
        await hub.wait_closed()
        server = Server()
        assert await stream.run(server.send, server) is CloseReason.FINISHED
        assert server.wire == COMMENT
        figures = hub.statistics()
        assert (figures.subscriptions_open, figures.audiences) == (0, 0)
        assert figures.producers_running == 0


async def test_the_hub_closed_streams_are_finished(autojump_clock: Clock) -> None:
    """Each has what was published; then it ends by itself."""
    async with trio.open_nursery() as nursery:
        servers = [Server() for _ in range(3)]
        async with prompt_hub(SlowHistory(1)) as hub:
            for server in servers:
                stream = EventStream(hub.subscription(["a"]))
                nursery.start_soon(stream.run, server.send, server)
            await trio.sleep(1)
            nursery.start_soon(publish, hub, "1")  # noqa: ASYNC111 - goes on while the hub closes
            await trio.sleep(0.1)
        await trio.sleep(0.1)
        assert [server.data for server in servers] == [["1"]] * 3
        assert hub.statistics().subscriptions_closed == {CloseReason.FINISHED: 3}


async def test_many_come_and_go(autojump_clock: Clock) -> None:
    """After any coming and going nobody subscribes, and the tasks are as many as before."""
    make: list[Callable[[Hub], Any]] = [
        lambda hub: hold(hub.subscription(["a"])),
        lambda hub: hold(hub.subscription(EVERY_TOPIC, last_event_id="earliest")),
        lambda hub: EventStream(hub.subscription(["a", "b"])).run(Server().send),
        lambda hub: EventStream(hub.subscription(["b"], last_event_id="x")).run(Server().send),
    ]
    async with prompt_hub(SlowHistory(0.01, reads=0.01)) as hub:
        tasks = trio.lowlevel.current_statistics().tasks_living
        for number in range(100):

            async def come_and_go(number: int = number) -> None:
                with trio.move_on_after(0.001 * (number % 50)):
                    await make[number % 4](hub)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(come_and_go)
                nursery.start_soon(publish, hub, str(number))
        figures = hub.statistics()
        assert (figures.subscriptions_open, figures.audiences) == (0, 0)
        assert figures.published == 100
        assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_closing_is_no_gap(autojump_clock: Clock) -> None:
    """A history that is closed cannot be read; that says nothing about what there is."""
    for failing in ("locate", "read"):
        history = SlowHistory(None, reads=1)
        hub = Hub(log=history, batch_delay=0)
        server = Server()
        async with trio.open_nursery() as nursery:
            await nursery.start(hub.run)
            await numbers(hub, range(3))
            async with streaming(hub, server, last_event_id="0"):
                await trio.sleep(0.5 if failing == "locate" else 1.5)
                history.failing = failing
                hub.close()
                await trio.sleep(10)
            assert server.wire == COMMENT
        assert await hub.subscription(["a"], last_event_id="0").locate() is None


async def test_a_stream_needs_an_open_hub(autojump_clock: Clock) -> None:
    """It would not know where to begin."""
    hub = Hub()
    with pytest.RaisesGroup(trio.ClosedResourceError, allow_unwrapped=True, flatten_subgroups=True):
        await EventStream(hub.subscription(["a"])).run(Server().send)
