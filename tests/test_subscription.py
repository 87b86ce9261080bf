"""Where a subscription begins, and which options it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing

from hub_fakes import Server, SlowHistory
from hub_steps import Clock, following, prompt_hub, what_comes
from penstock import EventStream, Hub, ServerSentEvent
from penstock.logs.memory import MemoryLog
from subscription_steps import gap, numbers, position_id, strings


@pytest.mark.parametrize("last_event_id", [None, ""])
async def test_without_an_id_it_begins_now(
    last_event_id: str | None, autojump_clock: Clock
) -> None:
    """What was published before is not heard."""
    async with prompt_hub() as hub:
        await numbers(hub, range(3))
        await trio.sleep(1)
        async with hub.subscribe(["a"], last_event_id=last_event_id) as subscription:
            await numbers(hub, range(3, 6))
            assert await what_comes(subscription) == ["3", "4", "5"]
            assert subscription.last_event_id == "5"


@pytest.mark.parametrize("seen", [0, 1, 500, 998, 999])
@pytest.mark.parametrize("reads", [0, 0.0001])
async def test_with_an_id_it_goes_on_behind_it(
    seen: int, reads: float, autojump_clock: Clock
) -> None:
    """All that came after it comes, however many pages that is, and then what is published."""
    async with prompt_hub(SlowHistory(None, reads=reads)) as hub:
        await numbers(hub, range(1000))
        await trio.sleep(1)
        async with hub.subscribe(["a"], last_event_id=str(seen)) as subscription:
            for number in range(seen + 1, 1000):
                assert (await following(subscription)).data == str(number)
                assert subscription.last_event_id == str(number)
            await numbers(hub, range(1000, 1003))
            assert await what_comes(subscription) == ["1000", "1001", "1002"]


async def test_earliest_begins_with_all_there_is(autojump_clock: Clock) -> None:
    """It is told of no gap, whatever the history has forgotten before."""
    for history in (MemoryLog(), MemoryLog(count=3), MemoryLog(per_topic=3)):
        async with prompt_hub(history) as hub:
            await numbers(hub, range(10))
            async with hub.subscribe(["a"], last_event_id="earliest") as subscription:
                there_are = history.statistics().publications
                assert await what_comes(subscription) == strings(range(10 - there_are, 10))


async def test_earliest_of_nothing(autojump_clock: Clock) -> None:
    """An empty history has nothing to give, and then there is what is published."""
    async with prompt_hub() as hub:
        async with hub.subscribe(["a"], last_event_id="earliest") as subscription:
            await numbers(hub, range(2))
            assert await what_comes(subscription) == ["0", "1"]


@pytest.mark.parametrize(
    "last_event_id",
    [
        "unknown",
        "0 ",
        "*",
        "EARLIEST",
        "x" * 100_000,
        "é\u2028\U00010348",
        "a\r\nid: 1\r\n\r\n",
        "\0",
        "\ud800",
        '"\\',
        "0' OR 1=1; --",
    ],
)
async def test_an_id_of_any_shape_that_is_not_there_is_a_gap(
    last_event_id: str, autojump_clock: Clock
) -> None:
    """It is told which, in an event of its own with the id where it goes on, and then goes on."""
    async with prompt_hub() as hub:
        await numbers(hub, range(3))
        await trio.sleep(1)
        async with hub.subscribe(["a"], last_event_id=last_event_id) as subscription:
            await numbers(hub, range(3, 6))
            told = await following(subscription)
            assert told.event == "gap"
            assert told.id == position_id(hub, 3)
            assert json.loads(told.data or "") == {"last_event_id": last_event_id}
            assert subscription.last_event_id == position_id(hub, 3)
            assert await what_comes(subscription) == ["3", "4", "5"]


async def test_an_id_where_there_is_nothing_at_all(autojump_clock: Clock) -> None:
    """In a history that has never had anything, there is a position, too."""
    async with prompt_hub() as hub, hub.subscribe(["a"], last_event_id="x") as subscription:
        assert await following(subscription) == gap("x", position_id(hub, 0))


@pytest.mark.parametrize("last_event_id", [5, b"5", True, ["5"]])
async def test_an_id_that_is_no_text_is_refused(last_event_id: Any) -> None:
    """It is a programmer's mistake, and told as such."""
    with pytest.raises(TypeError, match="last_event_id must be text, not "):
        Hub().subscription(["a"], last_event_id=last_event_id)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"buffer": 0}, "must be at least 1"),
        ({"buffer_size": 0}, "must be at least 1"),
        ({"overflow": "never"}, "not a valid OverflowPolicy"),
        ({"retry": -1}, "retry must be"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], said: str) -> None:
    """Where it is made, not where it is used."""
    with pytest.raises(ValueError, match=said):
        Hub().subscription(["a"], **options)


async def test_where_several_have_an_id_it_is_the_first(autojump_clock: Clock) -> None:
    """Nothing is lost to who saw the earlier one."""
    async with prompt_hub() as hub:
        for data in ("1", "2", "3"):
            await hub.publish(ServerSentEvent(data, id="same"), ["a"])
        async with hub.subscribe(["a"], last_event_id="same") as subscription:
            assert await what_comes(subscription) == ["2", "3"]


async def test_an_id_of_another_topic_is_unknown(autojump_clock: Clock) -> None:
    """Nobody can probe which ids others have: such an id is answered as one that never was."""
    async with prompt_hub() as hub:
        await numbers(hub, range(3))
        await numbers(hub, range(3, 4), ("b",))
        await numbers(hub, range(4, 6))
        await trio.sleep(1)
        for probe in ("3", "never"):
            async with hub.subscribe(["a"], last_event_id=probe) as subscription:
                assert await following(subscription) == gap(probe, position_id(hub, 6))
                assert await what_comes(subscription) == []


@pytest.mark.parametrize("others", [0, 5])
async def test_who_begins_with_nothing_has_a_position(autojump_clock: Clock, others: int) -> None:
    """`earliest` is no id to come back with: it would hide that something was lost meanwhile."""
    async with prompt_hub(MemoryLog(count=3)) as hub:
        await numbers(hub, range(100, 100 + others), ("b",))
        await trio.sleep(1)
        begins = position_id(hub, others)
        server = Server()
        stream = EventStream(hub.subscription(["a"], last_event_id="earliest"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.run, server.send)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert server.wire.decode() == f":\nid: {begins}\n\n"
        located = hub.subscription(["a"], last_event_id="earliest")
        assert await located.locate() == begins
        await numbers(hub, range(10))
        await trio.sleep(1)
        async with hub.subscribe(["a"], last_event_id=begins) as subscription:
            assert await following(subscription) == gap(begins)
            assert await what_comes(subscription) == ["7", "8", "9"]


async def test_an_id_is_remembered_longer_than_its_event(autojump_clock: Clock) -> None:
    """A quiet topic has no gap because others were busy; it has one where something was lost."""
    async with prompt_hub(MemoryLog(count=10)) as hub:
        await numbers(hub, range(2))
        begins = position_id(hub, 2)
        await numbers(hub, range(100, 200), ("b",))
        await trio.sleep(1)
        for seen in ("1", begins):
            async with hub.subscribe(["a"], last_event_id=seen) as subscription:
                assert await what_comes(subscription) == []
        async with hub.subscribe(["a"], last_event_id=position_id(hub, 1)) as subscription:
            # Its id is behind the loss: who comes back with it has no second gap.
            assert await following(subscription) == gap(position_id(hub, 1), position_id(hub, 102))
            assert await what_comes(subscription) == []
        async with hub.subscribe(["a"], last_event_id=position_id(hub, 102)) as subscription:
            assert await what_comes(subscription) == []
        await numbers(hub, range(2, 3))
        await trio.sleep(1)
        async with hub.subscribe(["a"], last_event_id="1") as subscription:
            assert await what_comes(subscription) == ["2"]


@pytest.mark.parametrize("bound", [{"count": 3}, {"age": 1}])
async def test_what_was_lost_since_an_empty_hub_is_a_gap(
    bound: dict[str, Any], autojump_clock: Clock
) -> None:
    """A client that was there before the first event has a position, which is no wish."""
    async with prompt_hub(MemoryLog(**bound)) as hub:
        async with hub.subscribe(["a"]) as subscription:
            begins = subscription.last_event_id
        assert begins == position_id(hub, 0)
        await numbers(hub, range(5))
        await trio.sleep(5)
        await numbers(hub, range(5, 6))
        async with hub.subscribe(["a"], last_event_id=begins) as subscription:
            assert (await following(subscription)).data == gap(begins).data
            assert (await what_comes(subscription))[-1] == "5"


async def test_a_position_of_another_history_is_unknown(autojump_clock: Clock) -> None:
    """After a restart that forgot everything, a position of before is a gap."""
    async with prompt_hub() as hub:
        await numbers(hub, range(5))
        before = position_id(hub, 3)
    async with prompt_hub() as hub:
        await numbers(hub, range(5))
        await trio.sleep(1)
        for unknown in (before, position_id(hub, 6), "urn:penstock:position:" + "0" * 32):
            async with hub.subscribe(["a"], last_event_id=unknown) as subscription:
                assert await following(subscription) == gap(unknown, position_id(hub, 5))


async def test_locate_tells_where_it_goes_on(autojump_clock: Clock) -> None:
    """Before anything is sent it is known whether all that was asked for will come."""
    async with prompt_hub(SlowHistory(None, reads=1)) as hub:
        assert await hub.subscription(["a"]).locate() == position_id(hub, 0)
        await numbers(hub, range(3))
        await trio.sleep(1)
        assert await hub.subscription(["a"]).locate() == position_id(hub, 3)
        assert await hub.subscription(["a"], last_event_id="1").locate() == "1"
        assert await hub.subscription(["a"], last_event_id="x").locate() == position_id(hub, 3)
        assert await hub.subscription(["a"], last_event_id="earliest").locate() is None
        subscription = hub.subscription(["a"], last_event_id="1")
        with trio.move_on_after(0.5):
            await subscription.locate()
        assert await subscription.locate() == "1"
        assert hub.statistics().subscriptions_open == 0


async def test_it_begins_where_it_was_located(autojump_clock: Clock) -> None:
    """What is published between a response's head and its stream is not lost."""
    async with prompt_hub() as hub:
        await numbers(hub, range(3))
        await trio.sleep(1)
        for requested in (None, "x", "1"):
            subscription = hub.subscription(["a"], last_event_id=requested)
            located = await subscription.locate()
            newest = hub.log.newest.position - 1 if requested != "1" else int(located or "")
            await numbers(hub, range(newest + 1, newest + 4))
            await trio.sleep(1)
            async with subscription.open():
                events = await what_comes(subscription)
            told = [f'{{"last_event_id":"{requested}"}}'] if requested == "x" else []
            following = [*told, *strings(range(newest + 1, newest + 4))]
            assert events[: len(following)] == following
