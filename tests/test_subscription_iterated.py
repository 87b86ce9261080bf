"""Iterating a subscription: atomic, ended from elsewhere, and falling behind by each policy."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from hub_fakes import SlowHistory
from hub_steps import Clock, following, prompt_hub, publish, what_comes
from penstock import EVERY_TOPIC, CloseReason, EventStream, Hub
from subscription_steps import interrupted, numbers, strings


async def test_it_is_used_once() -> None:
    """A second use would not know what the first has had."""
    async with prompt_hub() as hub:
        subscription = hub.subscription(["a"])
        async with subscription.open():
            with pytest.raises(RuntimeError, match="a subscription is used once"):
                async with subscription.open():
                    pass
            with pytest.raises(RuntimeError, match="a subscription is used once"):
                EventStream(subscription)
        with pytest.raises(RuntimeError, match="a subscription is used once"):
            async with subscription.open():
                pass
        other = hub.subscription(["a"])
        EventStream(other)
        with pytest.raises(RuntimeError, match="a subscription is used once"):
            EventStream(other)


async def test_it_is_iterated_in_its_block(autojump_clock: Clock) -> None:
    """Before and after, there is nothing to be had, not even what waited."""
    async with prompt_hub() as hub:
        subscription = hub.subscription(["a"])
        with pytest.raises(trio.ClosedResourceError, match="in its open"):
            await following(subscription)
        async with subscription.open():
            await publish(hub, "1")
            await trio.sleep(1)
            assert subscription.waiting == 1
        with pytest.raises(trio.ClosedResourceError, match="in its open"):
            await following(subscription)
        assert subscription.waiting == 0


@pytest.mark.parametrize("when", ["live", "replay"])
async def test_receiving_is_atomic(when: str, autojump_clock: Clock) -> None:
    """Cancelled at any of its checkpoints, nothing is lost and nothing comes twice."""
    history = SlowHistory(None, reads=0.01)
    async with prompt_hub(history) as hub:
        await numbers(hub, range(600))
        await trio.sleep(1)
        from_here = 599 if when == "live" else 9
        async with (
            hub.subscribe(["a"], last_event_id=str(from_here)) as subscription,
            trio.open_nursery() as nursery,
        ):

            async def publisher() -> None:
                for number in range(600, 900, 3):
                    await trio.sleep(0.01)
                    await numbers(hub, range(number, number + 3))

            nursery.start_soon(publisher)
            for number in range(from_here + 1, 900):
                event, tries = None, 0
                while event is None:
                    event = await interrupted(subscription.__anext__, tries)
                    tries += 1
                assert event.data == str(number)


async def test_receiving_is_a_checkpoint(autojump_clock: Clock) -> None:
    """Who has much to receive holds up nobody."""
    async with prompt_hub() as hub, hub.subscribe(["a"]) as subscription:
        await numbers(hub, range(3))
        await trio.sleep(1)
        for _ in range(3):
            with trio.testing.assert_checkpoints():
                await following(subscription)


async def test_the_hub_closed_it_ends_behind_what_waits(autojump_clock: Clock) -> None:
    """All that was published is received, and then the iteration is over."""
    async with prompt_hub() as hub, hub.subscribe(["a"]) as subscription:
        await numbers(hub, range(3))
        hub.close()
        await hub.wait_closed()
        assert subscription.close_reason is CloseReason.FINISHED
        assert [event.data async for event in subscription] == ["0", "1", "2"]
        with pytest.raises(StopAsyncIteration):
            await following(subscription)
        assert hub.statistics().subscriptions_open == 0


async def test_ended_from_elsewhere_it_wakes(autojump_clock: Clock) -> None:
    """Who waits for an event does not wait for ever."""
    async with prompt_hub() as hub, trio.open_nursery() as nursery:
        subscription = hub.subscription(["a"])

        async def subscriber() -> None:
            async with subscription.open():
                with pytest.raises(trio.ClosedResourceError):
                    await following(subscription)

        nursery.start_soon(subscriber)
        await trio.sleep(1)
        subscription.end(CloseReason.KICKED)
        await trio.sleep(1)
        assert hub.statistics().subscriptions_closed == {CloseReason.KICKED: 1}


async def test_it_says_what_it_is(autojump_clock: Clock) -> None:
    """Topics, state, and how much waits."""
    async with prompt_hub() as hub:
        subscription = hub.subscription(["b", "a"])
        assert repr(subscription) == "<Subscription to ['a', 'b'], new, 0 waiting>"
        async with subscription.open():
            await publish(hub, "1")
            await trio.sleep(1)
            assert repr(subscription) == "<Subscription to ['a', 'b'], open, 1 waiting>"
        assert repr(subscription) == "<Subscription to ['a', 'b'], finished, 0 waiting>"
        assert (
            repr(hub.subscription(EVERY_TOPIC)) == "<Subscription to every topic, new, 0 waiting>"
        )


async def test_disconnect_ends_it_and_the_history_has_all(autojump_clock: Clock) -> None:
    """What waited is gone, and where to go on is known: nothing is lost in the end."""
    async with prompt_hub() as hub, hub.subscribe(["a"], buffer=5) as subscription:
        await numbers(hub, range(3))
        assert await what_comes(subscription) == ["0", "1", "2"]
        await numbers(hub, range(3, 8))
        await trio.sleep(1)
        assert (subscription.waiting, subscription.close_reason) == (5, None)
        await numbers(hub, range(8, 9))
        await trio.sleep(1)
        assert (subscription.waiting, subscription.dropped) == (0, 0)
        assert subscription.close_reason is CloseReason.SLOW
        with pytest.raises(trio.BrokenResourceError, match="fell behind"):
            await following(subscription)
        assert hub.statistics().subscriptions_closed == {CloseReason.SLOW: 1}
        assert hub.statistics().audiences == 0
        after = subscription.last_event_id
        async with hub.subscribe(["a"], last_event_id=after) as again:
            assert await what_comes(again) == strings(range(3, 9))


async def test_it_falls_behind_by_bytes(autojump_clock: Clock) -> None:
    """The bound of bytes holds as the one of publications does."""
    async with prompt_hub() as hub, hub.subscribe(["a"], buffer_size=2500) as subscription:
        for number in range(3):
            await numbers(hub, range(number, number + 1), size=900)
            await trio.sleep(1)
            behind = number == 2
            assert (subscription.close_reason is CloseReason.SLOW) is behind


async def test_falling_behind_in_a_replay_loses_no_page(autojump_clock: Clock) -> None:
    """What was read of the history is received before it is told, so that the next can go on."""
    async with prompt_hub() as hub:
        await numbers(hub, range(10))
        await trio.sleep(1)
        async with hub.subscribe(["a"], last_event_id="3", buffer=5) as subscription:
            assert (await following(subscription)).id == "4"
            await numbers(hub, range(10, 20))
            await trio.sleep(1)
            assert [(await following(subscription)).id for _ in range(5)] == strings(range(5, 10))
            with pytest.raises(trio.BrokenResourceError):
                await following(subscription)
            assert subscription.last_event_id == "9"


async def test_drop_oldest_receives_the_newest(autojump_clock: Clock) -> None:
    """As many as may wait, in their order, and how many were dropped is known."""
    async with (
        prompt_hub() as hub,
        hub.subscribe(["a"], overflow="drop_oldest", buffer=5) as subscription,
    ):
        await numbers(hub, range(20))
        await trio.sleep(1)
        assert (subscription.waiting, subscription.dropped) == (5, 15)
        assert await what_comes(subscription) == strings(range(15, 20))
        await numbers(hub, range(20, 22))
        assert await what_comes(subscription) == ["20", "21"]
        assert subscription.close_reason is None


async def test_latest_receives_the_newest_of_each_topic(autojump_clock: Clock) -> None:
    """Of each topic one, in the order of their coming."""
    async with (
        prompt_hub() as hub,
        hub.subscribe(EVERY_TOPIC, overflow="latest", buffer=3) as subscription,
    ):
        for number, topic in enumerate("abcabadab"):
            await numbers(hub, range(number, number + 1), (topic,))
        await trio.sleep(1)
        assert await what_comes(subscription) == ["6", "7", "8"]
        await numbers(hub, range(9, 12))
        await trio.sleep(1)
        assert await what_comes(subscription) == ["11"]


async def test_who_has_not_read_everything_when_the_hub_is_closed_is_told(
    autojump_clock: Clock,
) -> None:
    """That it ended early; what it was given, it receives."""
    for reads in (False, True):
        async with trio.open_nursery() as nursery:
            hub = Hub(batch_delay=0)
            await nursery.start(hub.run)
            await publish(hub, "before")
            async with hub.subscribe(["a"]) as subscription:
                assert not reads or await what_comes(subscription) == []
                await publish(hub, "1", "2")
                hub.close()
                await hub.wait_closed()
                if reads:
                    assert await what_comes(subscription) == ["1", "2"]
                else:
                    with pytest.raises(trio.BrokenResourceError, match="before everything was"):
                        await following(subscription)


async def test_one_task_at_a_time(autojump_clock: Clock) -> None:
    """A second one that waits would make the first one wait for ever."""
    async with (
        prompt_hub() as hub,
        hub.subscribe(["a"]) as subscription,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(following, subscription)
        await trio.sleep(1)
        with pytest.raises(trio.BusyResourceError):
            await following(subscription)
        await publish(hub, "1")
