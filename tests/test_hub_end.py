"""A hub's end: what waits is kept and delivered, who waits is told, nothing is left."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from hub_fakes import Server, SlowHistory
from hub_steps import Clock, hold, prompt_hub, publish, what_comes
from penstock import EVERY_TOPIC, CloseReason, EventStream, Hub, LogError, ServerSentEvent


async def test_from_close_on_nothing_is_taken(autojump_clock: Clock) -> None:
    """Closing is at once for publishers; it may be said again."""
    async with prompt_hub() as hub:
        hub.close()
        hub.close()
        with pytest.raises(trio.ClosedResourceError, match="the hub is closed"):
            await publish(hub, "x")
        await hub.wait_closed()
        assert hub.closed
        hub.close()


async def test_closed_it_keeps_and_delivers_what_waits(autojump_clock: Clock) -> None:
    """Publishers that wait are acknowledged, and who subscribes has all of it before the end."""
    history = SlowHistory(1)
    outcome: list[str] = []
    got: list[str | None] = []
    async with prompt_hub(history) as hub, trio.open_nursery() as nursery:

        async def publisher(name: str) -> None:
            await publish(hub, name)
            outcome.append(name)

        async def subscriber() -> None:
            async with hub.subscribe(["a"]) as subscription:
                got.extend([event.data async for event in subscription])

        nursery.start_soon(subscriber)
        nursery.start_soon(publisher, "1")
        await trio.sleep(0.5)
        nursery.start_soon(publisher, "2")
        nursery.start_soon(publisher, "3")
        await trio.sleep(0.1)
        hub.close()
        with pytest.raises(trio.ClosedResourceError):
            await publish(hub, "too late")
        await hub.wait_closed()
        await trio.sleep(1)
        assert sorted(outcome) == ["1", "2", "3"]
        assert sorted(map(str, got)) == ["1", "2", "3"]
        figures = hub.statistics()
        assert (figures.published, figures.waiting, figures.delivered) == (3, 0, 3)
    assert history.closed == 1


async def test_a_history_that_fails_while_it_closes_is_still_what_failed(
    autojump_clock: Clock,
) -> None:
    """The publisher is told that the history could not keep it, and why."""
    history = SlowHistory(1)
    history.failing = "append"
    async with prompt_hub(history) as hub, trio.open_nursery() as nursery:

        async def publisher() -> None:
            with pytest.raises(LogError, match="append fails"):
                await publish(hub, "1")

        nursery.start_soon(publisher)
        await trio.sleep(0.5)
        hub.close()


async def test_cancelled_it_tells_those_who_wait(autojump_clock: Clock) -> None:
    """Publishers whose events are not known to be kept are told that the hub is closed."""
    history = SlowHistory(1)
    told: list[str] = []
    hub = Hub(log=history, batch_delay=0)

    async def publisher(name: str) -> None:
        try:
            await publish(hub, name)
        except trio.ClosedResourceError as error:
            told.append(f"{name}: {error}")

    async with trio.open_nursery() as outer:
        async with trio.open_nursery() as nursery:
            await nursery.start(hub.run)
            outer.start_soon(publisher, "1")
            await trio.sleep(0.5)
            outer.start_soon(publisher, "2")
            await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
    assert [each[:2] for each in sorted(told)] == ["1:", "2:"]
    assert all("the hub was closed" in each for each in told)
    assert hub.statistics().published == 0
    assert hub.closed
    assert history.closed == 1


async def test_the_block_that_raises_is_left_at_once(autojump_clock: Clock) -> None:
    """Nobody waits for a commit where the block has failed."""
    history = SlowHistory(1000)
    began = trio.current_time()
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with prompt_hub(history) as hub, trio.open_nursery() as nursery:
            nursery.start_soon(publish, hub, "1")
            await trio.sleep(1)
            raise ZeroDivisionError
    assert trio.current_time() == began + 1
    assert history.closed == 1


async def test_it_runs_again(autojump_clock: Clock) -> None:
    """A hub that was closed can be opened again, and goes on with its history."""
    history = SlowHistory(None)
    hub = Hub(log=history, batch_delay=0)
    for number in range(3):
        async with trio.open_nursery() as nursery:
            await nursery.start(hub.run)
            with pytest.raises(RuntimeError, match="already running"):
                await hub.run()
            async with (
                hub.subscribe(["a"], last_event_id="earliest") as subscription,
                hub.subscribe(["a"]) as fresh,
            ):
                await publish(hub, str(number))
                assert await what_comes(subscription) == [str(each) for each in range(number + 1)]
                assert await what_comes(fresh) == [str(number)]
            hub.close()
            await hub.wait_closed()
            figures = hub.statistics()
            assert (figures.subscriptions_open, figures.audiences) == (0, 0)
    assert (history.opened, history.closed) == (3, 3)


async def test_its_end_leaves_nothing(autojump_clock: Clock) -> None:
    """After any use the tasks are as many as before, and nobody subscribes."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with prompt_hub() as hub, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(EventStream(hub.subscription(["a", "b"])).run, Server().send)
            nursery.start_soon(EventStream(hub.subscription(EVERY_TOPIC)).run, Server().send)
            await nursery.start(hold, hub.subscription(["a"]))
        await publish(hub, "1", "2")
        await trio.sleep(1)
        figures = hub.statistics()
        assert figures.subscriptions_open == 9
        assert figures.audiences == 3
        assert figures.delivered == 18
        assert repr(hub) == "<Hub open, 9 subscriptions>"
        nursery.cancel_scope.cancel()
    figures = hub.statistics()
    assert figures.subscriptions_open == figures.audiences == figures.waiting == 0
    assert figures.subscriptions_closed == {CloseReason.DISCONNECTED: 6, CloseReason.FINISHED: 3}
    assert figures.published == figures.log.publications == 2
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_it_runs_again_only_when_it_has_ended(autojump_clock: Clock) -> None:
    """A run that is ending would take what belongs to the next one."""

    async def lingers(events: trio.abc.SendChannel[ServerSentEvent]) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(10)

    async with trio.open_nursery() as nursery:
        hub = Hub()
        hub.add_producer("a", lingers)
        await nursery.start(hub.run)
        async with hub.subscribe(["a"]):
            await trio.sleep(1)
            hub.close()
            await trio.sleep(1)
        assert hub.closed
        with pytest.raises(RuntimeError, match="already running"):
            await hub.run()
        await hub.wait_closed()
        await nursery.start(hub.run)
        await publish(hub, "again")
        hub.close()
