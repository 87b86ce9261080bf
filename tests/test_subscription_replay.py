"""What a subscription replays, and joins to what is new; what is missing is told as a gap."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from hub_fakes import SlowHistory
from hub_steps import Clock, following, prompt_hub, what_comes
from penstock import (
    Hub,
    ServerSentEvent,
    Subscription,
)
from penstock.logs.memory import MemoryLog
from subscription_steps import following_ids, gap, numbers, position_id, strings


async def test_replay_while_publishing_goes_on(autojump_clock: Clock) -> None:
    """The seam between the history and what is published is not to be seen, wherever it is."""
    for pace in (1, 2, 7, 64, 300):
        async with prompt_hub(SlowHistory(None, reads=0.01)) as hub:
            await numbers(hub, range(700))
            async with (
                hub.subscribe(["a", "b"], last_event_id="99") as subscription,
                trio.open_nursery() as nursery,
            ):

                async def publisher(hub: Hub = hub, pace: int = pace) -> None:
                    for number in range(700, 1500, pace):
                        await numbers(hub, range(number, min(1500, number + pace)))
                        await trio.sleep(0.002)

                nursery.start_soon(publisher)
                for number in range(100, 1500):
                    assert (await following(subscription)).data == str(number)
            assert hub.statistics().log.publications == 1500


async def test_replay_joins_one_audience_once(autojump_clock: Clock) -> None:
    """Who reads the history still is told of nothing twice, and leaves nothing behind."""
    history = SlowHistory(None, reads=1)
    async with prompt_hub(history) as hub:
        await numbers(hub, range(10))
        async with hub.subscribe(["a"], last_event_id="3") as subscription:
            for _ in range(3):
                with trio.move_on_after(0.5):
                    await following(subscription)
            assert hub.statistics().audiences == 0
            await numbers(hub, range(10, 12))
            assert [(await following(subscription)).id for _ in range(8)] == strings(range(4, 12))
        assert hub.statistics().audiences == 0


async def test_what_is_trimmed_in_the_middle_of_a_replay_is_a_gap(autojump_clock: Clock) -> None:
    """The gap is told where it is, with the last id before it."""
    history = MemoryLog(count=600)
    async with prompt_hub(history) as hub:
        await numbers(hub, range(600))
        async with hub.subscribe(["a"], last_event_id="0") as subscription:
            assert await following_ids(subscription, 256) == strings(range(1, 257))
            await numbers(hub, range(600, 1000))
            assert await following(subscription) == gap("256")
            assert subscription.last_event_id == "256"
            assert await following_ids(subscription, 600) == strings(range(400, 1000))
            assert await what_comes(subscription) == []


async def test_what_is_trimmed_while_it_is_located_is_a_gap(autojump_clock: Clock) -> None:
    """Between finding the id and reading on, the history may forget."""
    history = SlowHistory(None, reads=1, inner=MemoryLog(count=5))
    async with prompt_hub(history) as hub:
        await numbers(hub, range(5))
        async with hub.subscribe(["a"], last_event_id="2") as subscription:
            await numbers(hub, range(5, 10))
            assert await following(subscription) == gap("2")
            assert [(await following(subscription)).id for _ in range(5)] == strings(range(5, 10))


async def test_what_went_with_another_topic_is_a_gap(autojump_clock: Clock) -> None:
    """A publication that made room on one of its topics is missing on the others, too."""
    async with prompt_hub(MemoryLog(per_topic=1)) as hub:
        await numbers(hub, range(1), ("c",))
        await numbers(hub, range(1, 2), ("a", "b"))
        await numbers(hub, range(2, 3), ("a",))
        first = position_id(hub, 1)
        async with hub.subscribe(["b"], last_event_id=first) as subscription:
            told = await following(subscription)
            assert told.data == gap(first).data
            assert await what_comes(subscription) == []
        async with hub.subscribe(["b"], last_event_id=told.id) as subscription:
            assert await what_comes(subscription) == []  # one loss is one gap
        async with hub.subscribe(["c"], last_event_id="0") as subscription:
            assert await what_comes(subscription) == []


async def test_one_loss_is_one_gap(autojump_clock: Clock) -> None:
    """However many pages a replay has, it reports what was discarded once."""
    async with prompt_hub(MemoryLog(per_topic=600, count=None)) as hub:
        await numbers(hub, range(1), ("a", "b"))
        for number in range(1, 700):
            await hub.publish(ServerSentEvent(str(number), id=str(number)), ["ac"[number % 2]])
        await numbers(hub, range(700, 701), ("b", "d"))
        await numbers(hub, range(800, 1400), ("d",))
        await numbers(hub, range(1400, 1401), ("a",))
        async with hub.subscribe(["a", "b", "c"], last_event_id="0") as subscription:
            events = await all_events(subscription)
        assert [event.id for event in events if event.event != "gap"] == [
            *strings(range(1, 700)),
            "1400",
        ]
        assert len([event for event in events if event.event == "gap"]) == 1


async def all_events(subscription: Subscription) -> list[ServerSentEvent]:
    """Return what a subscription has now."""
    events = []
    with trio.move_on_after(1):
        while True:
            events.append(await anext(subscription))
    return events


async def test_an_outage_of_the_history_while_it_is_located(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Who cannot be given what was missed is told, and hears what is published."""
    history = SlowHistory(None)
    async with prompt_hub(history) as hub:
        await numbers(hub, range(3))
        await trio.sleep(1)
        history.failing = "locate"
        async with hub.subscribe(["a"], last_event_id="0") as subscription:
            await numbers(hub, range(3, 4))
            assert await following(subscription) == gap("0", position_id(hub, 3))
            assert await what_comes(subscription) == ["3"]
        history.failing = None
        async with hub.subscribe(["a"], last_event_id="0") as subscription:
            assert await what_comes(subscription) == ["1", "2", "3"]
    (record,) = caplog.records
    assert record.getMessage() == "History lookup failed, resuming with a gap: locate fails"


async def test_an_outage_of_the_history_in_the_middle_of_a_replay(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes on behind what cannot be read, and says so."""
    history = SlowHistory(None)
    async with prompt_hub(history) as hub:
        await numbers(hub, range(1000))
        await trio.sleep(1)
        async with hub.subscribe(["a"], last_event_id="9") as subscription:
            assert await following_ids(subscription, 256) == strings(range(10, 266))
            history.failing = "read"
            assert await following(subscription) == gap("265")
            history.failing = None
            await numbers(hub, range(1000, 1003))
            assert await what_comes(subscription) == ["1000", "1001", "1002"]
    (record,) = caplog.records
    assert record.getMessage() == "History read failed, replaying with a gap: read fails"


async def test_many_bytes_are_replayed_in_small_pages(autojump_clock: Clock) -> None:
    """A client that resumes is not given the whole history at once."""
    async with prompt_hub() as hub:
        await numbers(hub, range(50), size=20_000)
        await trio.sleep(1)
        async with hub.subscribe(["a"], last_event_id="0") as subscription:
            most = 0
            for number in range(1, 50):
                assert (await following(subscription)).id == str(number)
                most = max(most, subscription.waiting)
            assert most <= 3


async def test_who_fell_behind_before_its_first_event_can_go_on(autojump_clock: Clock) -> None:
    """With the id of the position at which it began, in a hub that was empty, too."""
    async with prompt_hub() as hub:
        for before in (0, 3):
            async with hub.subscribe(["a"], buffer=2) as subscription:
                await trio.sleep(1)
                await numbers(hub, range(3))
                await trio.sleep(1)
                with pytest.raises(trio.BrokenResourceError):
                    await following(subscription)
                goes_on = subscription.last_event_id
                assert goes_on == position_id(hub, before)
            async with hub.subscribe(["a"], last_event_id=goes_on) as subscription:
                assert await what_comes(subscription) == ["0", "1", "2"]
