"""The hub while it delivers: who joins, leaves or stalls, and whose turn it is."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing

from hub_fakes import Server, SlowHistory
from hub_steps import Clock, following, hold, prompt_hub, publish, what_comes
from penstock import CloseReason, EventStream, Hub, ServerSentEvent, open_hub
from penstock.hub import committer
from penstock.hub import dispatcher as dispatcher_module
from penstock.logs import MemoryLog


@pytest.fixture
def every_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the dispatcher let others have their turn after each member it delivers to."""
    seconds = iter(range(10**9))
    monkeypatch.setattr(dispatcher_module, "perf_counter", lambda: float(next(seconds)))
    monkeypatch.setattr(dispatcher_module, "_LOOK", 1)


@pytest.mark.usefixtures("every_member")
async def test_who_goes_on_from_what_is_not_delivered_yet_does_not_get_it(
    autojump_clock: Clock,
) -> None:
    """What comes after an id does not begin with it, even where nobody has had it yet."""
    async with prompt_hub() as hub, trio.open_nursery() as nursery:
        for _ in range(20):
            await nursery.start(hold, hub.subscription(["a"]))
        await publish(hub, "long")
        await trio.lowlevel.checkpoint()
        await publish(hub, "1")
        id_ = await hub.publish(ServerSentEvent("2"), ["a"])
        async with hub.subscribe(["a"], last_event_id=id_) as subscription:
            await publish(hub, "3")
            assert await what_comes(subscription) == ["3"]
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("every_member")
async def test_joining_while_it_delivers_loses_and_doubles_nothing(autojump_clock: Clock) -> None:
    """Whoever joins between two members of a delivery has what was published from then on."""
    async with prompt_hub() as hub, trio.open_nursery() as nursery:
        published = 0
        checked = 0

        async def subscriber(ready: bool) -> None:
            nonlocal checked
            async with hub.subscribe(["a"]) as subscription:
                from_here = published
                data = [int((await following(subscription)).data or "") for _ in range(40)]
                assert data == list(range(from_here, from_here + 40))
                checked += ready

        for _ in range(5):
            nursery.start_soon(subscriber, False)
        await trio.sleep(1)
        while checked < 50:
            await publish(hub, str(published))
            published += 1
            nursery.start_soon(subscriber, True)
            for _ in range(published % 4):
                await trio.lowlevel.checkpoint()
            if published > 400:
                break
        assert checked >= 50
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("every_member")
async def test_leaving_while_it_delivers_is_no_matter(autojump_clock: Clock) -> None:
    """Who has left gets nothing and is not counted, and everybody else has everything."""
    async with prompt_hub() as hub, AsyncExitStack() as stack:
        stay = [await stack.enter_async_context(hub.subscribe(["a"])) for _ in range(5)]
        async with hub.subscribe(["a"]) as leaves, hub.subscribe(["b"]) as alone:
            stay.append(await stack.enter_async_context(hub.subscribe(["a"])))
            await hub.publish(ServerSentEvent("1"), ["a", "b"])
            while not stay[0].waiting:  # noqa: ASYNC110 - turn by turn
                await trio.lowlevel.checkpoint()
            assert not stay[4].waiting, "this is in the middle of the delivery"
            leaves.end(CloseReason.KICKED)
            alone.end(CloseReason.KICKED)
            await trio.sleep(1)
            assert not leaves.waiting
            assert not alone.waiting
        for each in stay:
            assert await what_comes(each) == ["1"]
        figures = hub.statistics()
        assert figures.audiences == 1
        assert figures.delivered == 6
        assert figures.subscriptions_closed == {CloseReason.KICKED: 2}


@pytest.mark.usefixtures("every_member")
async def test_others_have_their_turn_while_it_delivers(autojump_clock: Clock) -> None:
    """A delivery to many does not hold the loop, and the next waits until it is over."""
    async with prompt_hub() as hub, trio.open_nursery() as nursery:
        subscriptions = [hub.subscription(["a"]) for _ in range(20)]
        for each in subscriptions:
            await nursery.start(hold, each)
        await publish(hub, "1")
        turns = 0
        while not subscriptions[-1].waiting:
            await trio.lowlevel.checkpoint()
            if turns == 10:
                await publish(hub, "2")
            turns += 1
        assert turns >= 20
        for each in subscriptions:
            assert await what_comes(each) == ["1", "2"]
        nursery.cancel_scope.cancel()


async def test_a_busy_hub_gathers(monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock) -> None:
    """Where delivering takes long, what is published meanwhile comes together, soon enough."""
    took = 0.001
    seconds = iter(range(10**9))
    monkeypatch.setattr(dispatcher_module, "perf_counter", lambda: next(seconds) * took)
    server = Server()
    async with open_hub(batch_delay=0.5) as hub, trio.open_nursery() as nursery:
        nursery.start_soon(EventStream(hub.subscription(["a"])).run, server.send, server)
        await trio.sleep(1)
        took = 1.0
        seconds = iter(range(10**9))
        began = trio.current_time()
        for number in range(10):
            await publish(hub, str(number))
            await trio.sleep(0.1)
            if number == 0:
                assert server.data == ["0"]
        await trio.sleep(0.5)
        assert server.data == [str(number) for number in range(10)]
        assert server.through <= 4
        assert trio.current_time() - began < 2
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("overflow", ["disconnect", "drop_oldest", "latest"])
async def test_a_client_that_stalls_delays_nobody(overflow: str, autojump_clock: Clock) -> None:
    """Whatever its policy: no time passes for publishers, others have all, memory is bounded."""
    stalled, healthy = Server(), Server()
    async with prompt_hub() as hub, trio.open_nursery() as nursery:
        slow = hub.subscription(["a"], overflow=overflow, buffer=10)
        nursery.start_soon(EventStream(slow, keep_alive=None).run, stalled.send, stalled)
        nursery.start_soon(EventStream(hub.subscription(["a"])).run, healthy.send, healthy)
        await trio.sleep(1)
        stalled.stop_reading()
        began = trio.current_time()
        for number in range(1000):
            await publish(hub, str(number))
            assert slow.waiting <= 10
        assert trio.current_time() == began
        await trio.sleep(1)
        assert healthy.data == [str(number) for number in range(1000)]
        nursery.cancel_scope.cancel()


async def test_others_have_their_turn_with_an_audience_for_each(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """However few are in each audience, and however little is in each part."""
    seconds = iter(range(10**9))
    monkeypatch.setattr(dispatcher_module, "perf_counter", lambda: float(next(seconds)))
    monkeypatch.setattr(dispatcher_module, "_LOOK", 10)
    async with prompt_hub() as hub, trio.open_nursery() as nursery, AsyncExitStack() as stack:
        for number in range(100):
            await stack.enter_async_context(hub.subscribe(["a", str(number)]))
        last = await stack.enter_async_context(hub.subscribe(["a"]))
        for publications, least in ((1, 10), (10, 100)):
            event = ServerSentEvent("x" * 60_000)
            nursery.start_soon(hub.publish_batch, [(event, ["a"])] * publications)
            turns = 0
            while last.waiting < publications:
                await trio.lowlevel.checkpoint()
                turns += 1
            assert turns >= least
            await what_comes(last)


async def test_who_publishes_more_than_is_delivered_waits(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """For the dispatcher, so that what is kept and not delivered does not grow without bound."""
    monkeypatch.setattr(committer, "_MAX_SIZE", 10_000)
    for history in (MemoryLog(), SlowHistory(0)):
        async with open_hub(log=history, batch_delay=100) as hub, trio.open_nursery() as nursery:
            # As a hub whose last delivery took so long that it gathers now.
            hub.dispatcher._began, hub.dispatcher._took = trio.current_time(), 10**6

            async def publisher(hub: Hub = hub) -> None:
                for _ in range(100):
                    await publish(hub, "x" * 1000)

            for _ in range(3):
                nursery.start_soon(publisher)
            await trio.sleep(50)
            assert 5 <= hub.statistics().published < 20
            await trio.sleep(10_000)
            assert hub.statistics().published == 300
