"""One subscriber: first what it missed, then what is published; and gaps are told."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
import trio
import trio.testing

from hub_fakes import Server, SlowHistory, events_of
from penstock import (
    CloseReason,
    EventStream,
    Hub,
    ServerSentEvent,
    StreamGroup,
    Subscription,
)
from penstock.stores.memory import MemoryHistory
from penstock.stream.feed import COMMENT
from test_hub import Clock, following, hold, prompt_hub, publish, what_comes

T = TypeVar("T")


async def numbers(
    hub: Hub, numbers: range, topics: tuple[str, ...] = ("a",), size: int = 0
) -> None:
    """Publish numbers, each with itself as its id."""
    for number in numbers:
        padding = "x" * size
        await hub.publish(ServerSentEvent(f"{number}{padding}", id=str(number)), topics)


def strings(numbers: range) -> list[str]:
    return [str(number) for number in numbers]


async def following_ids(subscription: Subscription, count: int) -> list[str | None]:
    return [(await following(subscription)).id for _ in range(count)]


def gap(last_event_id: str | None, goes_on: str | None = None) -> ServerSentEvent:
    data = json.dumps({"last_event_id": last_event_id}, separators=(",", ":"), ensure_ascii=False)
    return ServerSentEvent(data, event="gap", id=goes_on)


# Where to begin


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
    for history in (MemoryHistory(), MemoryHistory(count=3), MemoryHistory(per_topic=3)):
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
            assert told.id == "2"
            assert json.loads(told.data or "") == {"last_event_id": last_event_id}
            assert subscription.last_event_id == "2"
            assert await what_comes(subscription) == ["3", "4", "5"]


async def test_an_id_where_there_is_nothing_at_all(autojump_clock: Clock) -> None:
    """In a history that has never had anything, what comes next is the earliest."""
    async with prompt_hub() as hub, hub.subscribe(["a"], last_event_id="x") as subscription:
        assert await following(subscription) == gap("x", "earliest")


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
        ({"when_slow": "never"}, "not a valid WhenSlow"),
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


async def test_the_id_may_be_of_another_topic(autojump_clock: Clock) -> None:
    """The order of the history is one for all topics."""
    async with prompt_hub() as hub:
        await numbers(hub, range(3))
        await numbers(hub, range(3, 4), ("b",))
        await numbers(hub, range(4, 6))
        async with hub.subscribe(["a"], last_event_id="3") as subscription:
            assert await what_comes(subscription) == ["4", "5"]


async def test_locate_tells_where_it_goes_on(autojump_clock: Clock) -> None:
    """Before anything is sent it is known whether all that was asked for will come."""
    async with prompt_hub(SlowHistory(None, reads=1)) as hub:
        assert await hub.subscription(["a"]).locate() == "earliest"
        await numbers(hub, range(3))
        await trio.sleep(1)
        assert await hub.subscription(["a"]).locate() == "2"
        assert await hub.subscription(["a"], last_event_id="1").locate() == "1"
        assert await hub.subscription(["a"], last_event_id="x").locate() == "2"
        assert await hub.subscription(["a"], last_event_id="earliest").locate() == "earliest"
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
            newest = int(located or 0)
            await numbers(hub, range(newest + 1, newest + 4))
            await trio.sleep(1)
            async with subscription.open():
                events = await what_comes(subscription)
            told = [f'{{"last_event_id":"{requested}"}}'] if requested == "x" else []
            following = [*told, *strings(range(newest + 1, newest + 4))]
            assert events[: len(following)] == following


# Replay


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
            assert hub.statistics().history.publications == 1500


async def test_replay_joins_one_audience_once(autojump_clock: Clock) -> None:
    """Who reads the history still is told of nothing twice, and leaves nothing behind."""
    history = SlowHistory(None, reads=1)
    async with prompt_hub(history) as hub:
        await numbers(hub, range(10))
        async with hub.subscribe(["a"], last_event_id="3") as subscription:
            for _ in range(3):
                with trio.move_on_after(0.5):
                    await following(subscription)
            assert hub.statistics().audiences == 1
            await numbers(hub, range(10, 12))
            assert [(await following(subscription)).id for _ in range(8)] == strings(range(4, 12))
        assert hub.statistics().audiences == 0


async def test_what_is_trimmed_in_the_middle_of_a_replay_is_a_gap(autojump_clock: Clock) -> None:
    """The gap is told where it is, with the last id before it."""
    history = MemoryHistory(count=600)
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
    history = SlowHistory(None, reads=1, inner=MemoryHistory(count=5))
    async with prompt_hub(history) as hub:
        await numbers(hub, range(5))
        async with hub.subscribe(["a"], last_event_id="2") as subscription:
            await numbers(hub, range(5, 10))
            assert await following(subscription) == gap("2")
            assert [(await following(subscription)).id for _ in range(5)] == strings(range(5, 10))


async def test_what_went_with_another_topic_is_a_gap(autojump_clock: Clock) -> None:
    """A publication that made room on one of its topics is missing on the others, too."""
    async with prompt_hub(MemoryHistory(per_topic=1)) as hub:
        await numbers(hub, range(1), ("c",))
        await numbers(hub, range(1, 2), ("a", "b"))
        await numbers(hub, range(2, 3), ("a",))
        async with hub.subscribe(["b"], last_event_id="0") as subscription:
            assert await following(subscription) == gap("0")
            assert await what_comes(subscription) == []
        async with hub.subscribe(["c"], last_event_id="0") as subscription:
            assert await what_comes(subscription) == []


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
            assert await following(subscription) == gap("0", "2")
            assert await what_comes(subscription) == ["3"]
        history.failing = None
        async with hub.subscribe(["a"], last_event_id="0") as subscription:
            assert await what_comes(subscription) == ["1", "2", "3"]
    (record,) = caplog.records
    assert record.getMessage() == "Nothing can be resumed: locate fails"


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
    assert record.getMessage() == "Nothing can be replayed: read fails"


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


# Iterating


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


async def interrupted(take: Callable[[], Awaitable[T]], tries: int) -> T | None:
    """Take something; cancelled at the first checkpoint, the second, or while it waits."""
    if tries == 2:
        with trio.move_on_after(0.005):
            return await take()
        return None
    if tries > 2:
        return await take()
    taken = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel_after, nursery.cancel_scope, tries)
        taken = await take()
        nursery.cancel_scope.cancel()
    return taken


async def cancel_after(scope: trio.CancelScope, checkpoints: int) -> None:
    for _ in range(checkpoints):
        await trio.lowlevel.checkpoint()
    scope.cancel()


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
        assert repr(hub.subscription(["*"])) == "<Subscription to every topic, new, 0 waiting>"


# Falling behind


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
    async with prompt_hub() as hub, hub.subscribe(["a"], buffer_size=2000) as subscription:
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
        hub.subscribe(["a"], when_slow="drop_oldest", buffer=5) as subscription,
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
        hub.subscribe(["*"], when_slow="latest", buffer=3) as subscription,
    ):
        for number, topic in enumerate("abcabadab"):
            await numbers(hub, range(number, number + 1), (topic,))
        await trio.sleep(1)
        assert await what_comes(subscription) == ["6", "7", "8"]
        await numbers(hub, range(9, 12))
        await trio.sleep(1)
        assert await what_comes(subscription) == ["11"]


# As a stream


@asynccontextmanager
async def streaming(hub: Hub, server: Server, **options: Any) -> Any:
    """Run a stream of a subscription to "a" in the background; it is cancelled behind the block."""
    of_stream = {key: options.pop(key) for key in ("keep_alive", "max_lifetime") if key in options}
    subscription = hub.subscription(["a"], **options)
    stream = EventStream(subscription, **of_stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run, server, server)  # noqa: ASYNC113 - runs when the test waits
        yield stream, subscription
        nursery.cancel_scope.cancel()


async def test_a_stream_begins_with_where_to_go_on(autojump_clock: Clock) -> None:
    """Who loses the connection before the first event misses none, then."""
    async with prompt_hub() as hub:
        server = Server()
        async with streaming(hub, server, retry=5000):
            await trio.sleep(1)
            assert server.wire == COMMENT + b"retry: 5000\n\nid: earliest\n\n"
        await numbers(hub, range(3))
        await trio.sleep(1)
        for requested, begins in (
            (None, COMMENT + b"id: 2\n\n"),
            ("0", COMMENT + b"id: 1\ndata: 1\n\nid: 2\ndata: 2\n\n"),
            ("x", COMMENT + b'id: 2\nevent: gap\ndata: {"last_event_id":"x"}\n\n'),
            ("earliest", COMMENT + b"".join(b"id: %d\ndata: %d\n\n" % (n, n) for n in range(3))),
        ):
            server = Server()
            async with streaming(hub, server, last_event_id=requested):
                await trio.sleep(1)
                assert server.wire == begins


async def test_a_client_that_keeps_up_is_written_to_by_the_dispatcher(
    autojump_clock: Clock,
) -> None:
    """Nothing waits, and the figures are those of what was written."""
    async with prompt_hub() as hub:
        server = Server()
        async with streaming(hub, server) as (stream, subscription):
            await trio.sleep(1)
            await numbers(hub, range(7))
            await trio.sleep(1)
            assert server.data == strings(range(7))
            assert server.through >= 1
            figures = stream.statistics()
            assert (figures.events_sent, figures.bytes_sent) == (7, len(server.wire))
            assert figures.events_buffered == subscription.waiting == 0
            assert figures.producer is None
        assert stream.close_reason is CloseReason.DISCONNECTED
        assert hub.statistics().subscriptions_closed == {CloseReason.DISCONNECTED: 1}


async def test_a_client_that_stalls_and_reads_on_has_one_order(autojump_clock: Clock) -> None:
    """Whichever way an event takes, none is lost, none comes twice."""
    async with prompt_hub() as hub:
        server = Server()
        async with streaming(hub, server, last_event_id="earliest") as (stream, _):
            await numbers(hub, range(10))
            await trio.sleep(1)
            for number in range(10, 100, 10):
                server.stop_reading()
                await numbers(hub, range(number, number + 5))
                await trio.sleep(1)
                server.read_on()
                await numbers(hub, range(number + 5, number + 10))
                await trio.sleep(1)
            assert server.data == strings(range(100))
            assert stream.statistics().events_sent == 100
            assert stream.statistics().bytes_sent == len(server.wire)


async def test_a_stream_that_stalls_with_disconnect_ends(autojump_clock: Clock) -> None:
    """It is known at once; reading on, the client has what it was given, and then no more."""
    async with prompt_hub() as hub:
        server = Server()
        async with streaming(hub, server, buffer=5) as (stream, subscription):
            await trio.sleep(1)
            await numbers(hub, range(3))
            await trio.sleep(1)
            server.stop_reading()
            await numbers(hub, range(3, 4))
            await trio.sleep(1)
            await numbers(hub, range(4, 9))
            await trio.sleep(1)
            assert (stream.close_reason, subscription.waiting) == (None, 5)
            await numbers(hub, range(9, 10))
            await trio.sleep(1)
            assert (stream.close_reason, subscription.waiting) == (CloseReason.SLOW, 0)
            figures = hub.statistics()
            assert (figures.subscriptions_open, figures.audiences) == (0, 0)
            server.read_on()
            await trio.sleep(1)
            assert not stream.statistics().open
        assert server.data == strings(range(4))
        assert hub.statistics().subscriptions_closed == {CloseReason.SLOW: 1}


@pytest.mark.parametrize(
    ("when_slow", "then"),
    [("drop_oldest", [*strings(range(2)), *strings(range(15, 20))]), ("latest", ["0", "1", "19"])],
)
async def test_a_stream_that_stalls_has_what_its_policy_says(
    when_slow: str, then: list[str], autojump_clock: Clock
) -> None:
    """What the server had is read first, then what was kept for the client."""
    async with prompt_hub() as hub:
        server = Server()
        async with streaming(hub, server, when_slow=when_slow, buffer=5) as (stream, subscription):
            await trio.sleep(1)
            await numbers(hub, range(1))
            await trio.sleep(1)
            server.stop_reading()
            await numbers(hub, range(1, 2))
            await trio.sleep(1)
            await numbers(hub, range(2, 20))
            await trio.sleep(1)
            assert subscription.waiting == len(then) - 2
            server.read_on()
            await trio.sleep(1)
            assert server.data == then
            assert subscription.dropped == 20 - len(then)
            assert stream.close_reason is None


async def test_what_waits_is_written_in_chunks_of_a_size(autojump_clock: Clock) -> None:
    """A client that was behind does not have a copy of all of it made for it at once."""
    async with prompt_hub() as hub:
        chunks: list[int] = []

        class Sink:
            async def send(self, chunk: bytes) -> None:
                chunks.append(len(chunk))
                await trio.sleep(5)

        subscription = hub.subscription(["a"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(EventStream(subscription).run, Sink())
            await trio.sleep(1)
            await numbers(hub, range(20), size=20_000)
            await trio.sleep(1000)
            nursery.cancel_scope.cancel()
        assert max(chunks) <= 2**16 + 20_100
        assert sum(chunks) > 20 * 20_000


async def test_keep_alive_after_silence(autojump_clock: Clock) -> None:
    """A comment comes after so many seconds without an event, whichever way that went."""
    async with prompt_hub() as hub:
        server = Server()
        async with streaming(hub, server, keep_alive=10) as (stream, _):
            await trio.sleep(9)
            await numbers(hub, range(1))
            await trio.sleep(9.5)
            begins = COMMENT + b"id: earliest\n\n" + b"id: 0\ndata: 0\n\n"
            assert server.wire == begins
            await trio.sleep(1)
            assert server.wire == begins + COMMENT
            await trio.sleep(20)
            assert stream.statistics().keep_alives_sent == 3
            assert stream.statistics().bytes_sent == len(server.wire)


async def test_no_keep_alive(autojump_clock: Clock) -> None:
    """Where none is wanted, silence is silence."""
    async with prompt_hub() as hub:
        server = Server()
        async with streaming(hub, server, keep_alive=None):
            await trio.sleep(10_000)
            assert server.wire == COMMENT + b"id: earliest\n\n"


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
            subscription = hub.subscription(["a"], when_slow="drop_oldest", buffer=1)
            stream = EventStream(subscription, max_lifetime=10)
            assert await stream.run(SlowSink()) is CloseReason.EXPIRED
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
            assert server.wire.endswith(b"data: 2\n\nretry: 7\n\n")
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
            with group.hold(stream):
                await stream.run(server, server)

        for server in servers[:5]:
            nursery.start_soon(held, server)
        await trio.sleep(1)
        await group.drain(over=2, spread=10)
        await held(servers[5])
        await trio.sleep(1)
        assert group.statistics().streams_closed == {CloseReason.DRAINING: 6}
        assert all(b"\n\nretry: " in server.wire for server in servers)
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
        hub.add_producer("a", produce, linger=0)
        stream = EventStream(hub.subscription(["a"]))
        stream.end(CloseReason.KICKED, ServerSentEvent(retry=7))
        server = Server()
        with trio.fail_after(1):
            await stream.run(server, server)
        assert server.wire == COMMENT + b"retry: 7\n\n"
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
        assert await stream.run(server, server) is CloseReason.FINISHED
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
                nursery.start_soon(stream.run, server, server)
            await trio.sleep(1)
            nursery.start_soon(publish, hub, "1")  # noqa: ASYNC111 - goes on while the hub closes
            await trio.sleep(0.1)
        await trio.sleep(0.1)
        assert [server.data for server in servers] == [["1"]] * 3
        assert hub.statistics().subscriptions_closed == {CloseReason.FINISHED: 3}


async def test_a_stream_that_replays_is_written_page_by_page(autojump_clock: Clock) -> None:
    """Pulled or pushed, a page at a time, and then what is published, in one order."""
    async with prompt_hub(SlowHistory(None, reads=0.1)) as hub:
        await numbers(hub, range(1000))
        for through in (Server(), None):
            server = through or Server()
            stream = EventStream(hub.subscription(["a"], last_event_id="0"))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.run, server, through)
                await trio.sleep(0.25)
                newest = hub.statistics().published
                await numbers(hub, range(newest, newest + 9))
                await trio.sleep(5)
                await numbers(hub, range(newest + 9, newest + 10))
                await trio.sleep(1)
                nursery.cancel_scope.cancel()
            assert [int(each.id or "") for each in events_of(server.wire)] == list(
                range(1, newest + 10)
            )


async def test_a_gap_in_the_middle_of_a_stream_tells_the_last_id(autojump_clock: Clock) -> None:
    """A client hears where something is missing, and keeps the id that it has."""
    history = SlowHistory(None, reads=0.1, inner=MemoryHistory(count=600))
    async with prompt_hub(history) as hub:
        await numbers(hub, range(600))
        server = Server()
        async with streaming(hub, server, last_event_id="0"):
            await trio.sleep(0.25)
            server.stop_reading()
            await trio.sleep(1)
            await numbers(hub, range(600, 1400))
            await trio.sleep(1)
            server.read_on()
            await trio.sleep(1)
        events = server.events
        (at,) = [index for index, event in enumerate(events) if event.event == "gap"]
        assert events[at] == gap("512")
        ids = [int(event.id or "") for event in events if event.event != "gap"]
        assert ids == [*range(1, at + 1), *range(800, 1400)]


async def test_taking_from_a_stream_is_a_checkpoint(autojump_clock: Clock) -> None:
    """Who has much waiting holds up nobody, even where the host's writing never waits."""
    async with prompt_hub() as hub:
        stream = EventStream(hub.subscription(["a"]))
        async with stream.open():
            await anext(stream)
            await numbers(hub, range(9), size=30_000)
            await trio.sleep(1)
            for _ in range(3):
                with trio.testing.assert_checkpoints():
                    await anext(stream)


@pytest.mark.parametrize("when", ["live", "replay"])
async def test_taking_from_a_stream_is_atomic(when: str, autojump_clock: Clock) -> None:
    """Cancelled at any of its checkpoints, nothing is lost and nothing comes twice."""
    async with prompt_hub(SlowHistory(None, reads=0.01)) as hub, trio.open_nursery() as nursery:
        await numbers(hub, range(600))
        await trio.sleep(1)
        wire = b""
        options: dict[str, Any] = {"last_event_id": "9"} if when == "replay" else {}
        stream = EventStream(hub.subscription(["a"], **options), keep_alive=None)

        async def publisher() -> None:
            for number in range(600, 900, 3):
                await trio.sleep(0.01)
                await numbers(hub, range(number, number + 3))

        async with stream.open():
            nursery.start_soon(publisher)
            tries = 0
            while b"data: 899\n" not in wire:
                wire += await interrupted(stream.__anext__, tries % 4) or b""
                tries += 1
        first = 10 if when == "replay" else 600
        assert [event.data for event in events_of(wire)] == strings(range(first, 900))


async def test_many_come_and_go(autojump_clock: Clock) -> None:
    """After any coming and going nobody subscribes, and the tasks are as many as before."""
    make: list[Callable[[Hub], Any]] = [
        lambda hub: hold(hub.subscription(["a"])),
        lambda hub: hold(hub.subscription(["*"], last_event_id="earliest")),
        lambda hub: EventStream(hub.subscription(["a", "b"])).run(Server()),
        lambda hub: EventStream(hub.subscription(["b"], last_event_id="x")).run(Server()),
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


def test_it_selects() -> None:
    """A subscription to every topic is one to each."""
    hub = Hub()
    assert hub.subscription(["a", "b"]).selects("a")
    assert not hub.subscription(["a", "b"]).selects("c")
    every: Subscription = hub.subscription(["*"])
    assert every.selects("c")


async def test_who_has_not_read_everything_when_the_hub_is_closed_is_told(
    autojump_clock: Clock,
) -> None:
    """That it ended early; what it was given, it receives."""
    for reads in (False, True):
        async with trio.open_nursery() as nursery:
            hub = Hub(gather=0)
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


async def test_who_fell_behind_before_its_first_event_can_go_on(autojump_clock: Clock) -> None:
    """With the id after which it began; in a hub that was empty, with the earliest."""
    async with prompt_hub() as hub:
        for before in ("earliest", "2"):
            async with hub.subscribe(["a"], buffer=2) as subscription:
                await trio.sleep(1)
                await numbers(hub, range(3))
                await trio.sleep(1)
                with pytest.raises(trio.BrokenResourceError):
                    await following(subscription)
                goes_on = subscription.last_event_id
                assert goes_on == before
            async with hub.subscribe(["a"], last_event_id=goes_on) as subscription:
                assert await what_comes(subscription) == ["0", "1", "2"]


@pytest.mark.parametrize("ends", [False, True])
async def test_a_slow_history_keeps_nothing_from_the_stream(
    ends: bool, autojump_clock: Clock
) -> None:
    """While it is read there are keep-alives, and the stream ends when it has to."""
    async with prompt_hub(SlowHistory(None, reads=1000)) as hub:
        await numbers(hub, range(3))
        server = Server()
        options = {"max_lifetime": 50} if ends else {}
        async with streaming(hub, server, last_event_id="0", keep_alive=15, **options) as (
            stream,
            _,
        ):
            await trio.sleep(100)
            assert server.wire == COMMENT * (1 + (3 if ends else 6))
            assert (stream.close_reason is CloseReason.EXPIRED) == ends


async def test_closing_is_no_gap(autojump_clock: Clock) -> None:
    """A history that is closed cannot be read; that says nothing about what there is."""
    for failing in ("locate", "read"):
        history = SlowHistory(None, reads=1)
        hub = Hub(history=history, gather=0)
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
        await EventStream(hub.subscription(["a"])).run(Server())


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
