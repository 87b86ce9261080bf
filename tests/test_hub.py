"""The hub: what is published, by whom it is heard, and in which order."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
import trio.testing

from hub_fakes import SlowHistory
from hub_steps import Clock, following, prompt_hub, publish, what_comes
from penstock import (
    EVERY_TOPIC,
    Hub,
    InvalidPublication,
    InvalidSubscription,
    PublicationTooLarge,
    ServerSentEvent,
)
from test_publication import BAD_TOPICS


async def test_publish_returns_the_id_that_the_event_has(autojump_clock: Clock) -> None:
    """The publisher knows what the subscribers get: its own id, or one that it is given."""
    async with prompt_hub() as hub, hub.subscribe(["a"]) as subscription:
        given = await hub.publish(ServerSentEvent("1"), topics=["a"])
        own = await hub.publish(ServerSentEvent("2", id="own"), topics=["a"])
        assert given.startswith("urn:uuid:")
        assert own == "own"
        assert [(await following(subscription)).id for _ in range(2)] == [given, own]
        assert subscription.last_event_id == own


@pytest.mark.parametrize(("topic", "said"), BAD_TOPICS)
async def test_bad_topics_are_refused_wherever_they_are_given(topic: Any, said: str) -> None:
    """Publishing, subscribing and a producer's topic say the same, and nothing has happened."""

    async def produce(events: trio.abc.SendChannel[ServerSentEvent]) -> None: ...

    async with prompt_hub() as hub:
        with pytest.raises(InvalidPublication, match=said):
            await hub.publish(ServerSentEvent("x"), ["good", topic])
        with pytest.raises(InvalidSubscription, match=said):
            hub.subscribe(["good", topic])
        with pytest.raises(InvalidPublication, match=said):
            hub.add_producer(topic, produce)
        figures = hub.statistics()
        assert figures.published == figures.log.publications == figures.subscriptions_open == 0


async def test_an_error_without_a_batch_has_no_index() -> None:
    """The index says which of a batch it was, and there was none."""
    async with prompt_hub() as hub:
        with pytest.raises(InvalidPublication) as caught:
            await hub.publish(ServerSentEvent("x"), [""])
        assert caught.value.index is None


async def test_an_event_that_is_too_large_is_refused() -> None:
    """The limit counts the bytes on the wire, id included, and may be reached."""
    event = ServerSentEvent("é", id="1")
    async with prompt_hub(max_event_size=len(event.encode())) as hub:
        assert await hub.publish(event, ["a"]) == "1"
        with pytest.raises(PublicationTooLarge, match="larger than 16 bytes: this one has 17"):
            await hub.publish(ServerSentEvent("é!", id="1"), ["a"])
        assert hub.statistics().published == 1


async def test_a_batch_is_published_in_its_order(autojump_clock: Clock) -> None:
    """Each event of it goes where it should; the ids come in the order of the events."""
    async with prompt_hub() as hub, hub.subscribe(["a"]) as subscription:
        ids = await hub.publish_batch(
            (ServerSentEvent(str(number), id=str(number)), ["ab"[number % 2]])
            for number in range(6)
        )
        assert ids == ["0", "1", "2", "3", "4", "5"]
        assert await what_comes(subscription) == ["0", "2", "4"]
        assert await hub.publish_batch([]) == []


@pytest.mark.parametrize(
    "bad", [(ServerSentEvent("x"), [""]), ("x", ["a"]), (ServerSentEvent("y" * 99), ["a"])]
)
async def test_a_batch_is_published_as_a_whole_or_not_at_all(
    bad: Any, autojump_clock: Clock
) -> None:
    """One that cannot be published is told by its index, and no other is."""
    async with prompt_hub(max_event_size=90) as hub, hub.subscribe(EVERY_TOPIC) as subscription:
        good = (ServerSentEvent("good"), ["a"])
        with pytest.raises(InvalidPublication) as caught:
            await hub.publish_batch([good, good, bad, good])
        assert caught.value.index == 2
        assert await what_comes(subscription) == []
        assert hub.statistics().log.publications == 0


async def test_who_subscribes_to_a_topic_hears_it_once(autojump_clock: Clock) -> None:
    """Alternates, several topics of one subscription, and every topic are each one delivery."""
    async with (
        prompt_hub() as hub,
        hub.subscribe(["a"]) as one,
        hub.subscribe(["b", "a"]) as two,
        hub.subscribe(["a", "b"]) as same,
        hub.subscribe(EVERY_TOPIC) as every,
        hub.subscribe(["c"]) as other,
    ):
        await hub.publish(ServerSentEvent("ab"), ["a", "b"])
        await hub.publish(ServerSentEvent("b"), ["b"])
        await hub.publish(ServerSentEvent("bxa"), ["b", "x", "a"])
        await hub.publish(ServerSentEvent("x"), ["x"])
        assert await what_comes(one) == ["ab", "bxa"]
        assert await what_comes(two) == ["ab", "b", "bxa"]
        assert await what_comes(same) == ["ab", "b", "bxa"]
        assert await what_comes(every) == ["ab", "b", "bxa", "x"]
        assert await what_comes(other) == []
        figures = hub.statistics()
        assert figures.audiences == 4
        assert figures.delivered == 2 + 3 + 3 + 4


async def test_a_subscription_without_a_topic_is_refused() -> None:
    """There is nothing it could hear."""
    async with prompt_hub() as hub:
        with pytest.raises(InvalidSubscription, match="at least one topic"):
            hub.subscribe([])
        with pytest.raises(InvalidSubscription, match=r"pass \['a'\]"):
            hub.subscribe("a")


async def test_who_subscribes_gets_exactly_what_is_published_then(autojump_clock: Clock) -> None:
    """What was published before is over, even where nobody has had it yet."""
    async with prompt_hub() as hub:
        await publish(hub, "before")
        async with hub.subscribe(["a"]) as subscription:
            await publish(hub, "1", "2")
            assert await what_comes(subscription) == ["1", "2"]


async def test_all_publishers_and_subscribers_see_one_order(autojump_clock: Clock) -> None:
    """Whoever publishes when, every subscriber has the same order, and it is each publisher's."""
    histories: list[Any] = [None, SlowHistory(0.3)]
    for history in histories:
        async with (
            prompt_hub(history) as hub,
            hub.subscribe(["a"]) as one,
            hub.subscribe(EVERY_TOPIC) as two,
        ):

            async def publisher(name: str, hub: Hub = hub) -> None:
                for number in range(30):
                    await publish(hub, f"{name}{number}")

            async with trio.open_nursery() as nursery:
                for name in "xyz":
                    nursery.start_soon(publisher, name)
            seen = await what_comes(one)
            assert seen == await what_comes(two)
            for name in "xyz":
                mine = [data for data in seen if data and data[0] == name]
                assert mine == [f"{name}{number}" for number in range(30)]
            assert len(seen) == 90


@pytest.mark.parametrize("state", ["new", "closed"])
async def test_what_is_not_open_is_not_used(state: str) -> None:
    """A hub that is not open yet, or no more, says so to publishers and subscribers."""
    hub = Hub()
    if state == "closed":
        async with prompt_hub() as hub:
            pass
    said = "the hub is closed" if state == "closed" else "the hub is not open yet"
    assert repr(hub) == f"<Hub {state}, 0 subscriptions>"
    with pytest.raises(trio.ClosedResourceError, match=said):
        await publish(hub, "x")
    with pytest.raises(trio.ClosedResourceError, match=said):
        await hub.publish_batch([(ServerSentEvent("x"), ["a"])])
    with pytest.raises(trio.ClosedResourceError, match=said):
        async with hub.subscribe(["a"]):
            pass
    figures = hub.statistics()
    assert figures.subscriptions_open == figures.audiences == figures.published == 0


async def test_its_arguments_are_checked() -> None:
    """A limit that nothing keeps to is no limit."""
    with pytest.raises(ValueError, match="max_event_size must be at least 1 byte, not 0"):
        Hub(max_event_size=0)
    with pytest.raises(ValueError, match="batch_delay must be a number of seconds from 0"):
        Hub(batch_delay=float("nan"))


async def test_publish_and_subscribe_are_checkpoints(autojump_clock: Clock) -> None:
    """A cancelled publisher publishes nothing."""
    for history in (None, SlowHistory()):
        async with prompt_hub(history) as hub:
            with trio.CancelScope() as scope:
                scope.cancel()
                await publish(hub, "x")
            assert scope.cancelled_caught
            await trio.sleep(5)
            assert hub.statistics().published == 0


async def test_no_log_where_nothing_goes_wrong(
    caplog: pytest.LogCaptureFixture, autojump_clock: Clock
) -> None:
    """A hub in ordinary use says nothing."""
    caplog.set_level(logging.DEBUG, "penstock")
    async with prompt_hub(SlowHistory(0.1)) as hub, hub.subscribe(["a"]) as subscription:
        await publish(hub, "1", "2")
        assert await what_comes(subscription) == ["1", "2"]
    assert caplog.records == []
