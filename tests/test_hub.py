"""The hub: publish once, reach everyone once, in one order, and know what became of it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from hub_fakes import Server, SlowHistory
from penstock import (
    CloseReason,
    EventStream,
    HistoryError,
    Hub,
    InvalidPublication,
    ServerSentEvent,
    Subscription,
    open_hub,
)
from penstock.hub import dispatcher as dispatcher_module
from penstock.hub import keeping as keeping_module
from penstock.stores import MemoryHistory
from test_publication import BAD_TOPICS

Clock = trio.testing.MockClock


@asynccontextmanager
async def prompt_hub(history: Any = None, **options: Any) -> AsyncIterator[Hub]:
    """Open a hub that does not gather: that goes by the real time that delivering takes."""
    async with open_hub(history=history, gather=0, **options) as hub:
        yield hub


async def publish(hub: Hub, *data: str, topics: Iterable[str] = ("a",)) -> None:
    for each in data:
        await hub.publish(ServerSentEvent(each), topics)


async def what_comes(subscription: Subscription) -> list[str | None]:
    """Return the data of what a subscription has now."""
    data = []
    with trio.move_on_after(0.001):
        async for event in subscription:
            data.append(event.data)
            assert len(data) < 10_000, "this does not end"
    return data


async def following(subscription: Subscription) -> ServerSentEvent:
    """Return the next event, which has to come in a minute of virtual time."""
    with trio.fail_after(60):
        return await anext(subscription)


@pytest.fixture
def every_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the dispatcher let others have their turn after each member it delivers to."""
    seconds = iter(range(10**9))
    monkeypatch.setattr(dispatcher_module, "perf_counter", lambda: float(next(seconds)))
    monkeypatch.setattr(dispatcher_module, "_LOOK", 1)


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
        with pytest.raises(InvalidPublication, match=said):
            hub.subscribe(["good", topic])
        with pytest.raises(InvalidPublication, match=said):
            hub.add_producer(topic, produce)
        figures = hub.statistics()
        assert figures.published == figures.history.publications == figures.subscriptions_open == 0


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
        with pytest.raises(InvalidPublication, match="larger than 16 bytes: this one has 17"):
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
    async with prompt_hub(max_event_size=90) as hub, hub.subscribe(["*"]) as subscription:
        good = (ServerSentEvent("good"), ["a"])
        with pytest.raises(InvalidPublication) as caught:
            await hub.publish_batch([good, good, bad, good])
        assert caught.value.index == 2
        assert await what_comes(subscription) == []
        assert hub.statistics().history.publications == 0


async def test_who_subscribes_to_a_topic_hears_it_once(autojump_clock: Clock) -> None:
    """Alternates, several topics of one subscription, and `*` are each one delivery."""
    async with (
        prompt_hub() as hub,
        hub.subscribe(["a"]) as one,
        hub.subscribe(["b", "a"]) as two,
        hub.subscribe(["a", "b"]) as same,
        hub.subscribe(["*"]) as every,
        hub.subscribe(["*", "a"]) as every_and,
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
        assert await what_comes(every_and) == ["ab", "b", "bxa", "x"]
        assert await what_comes(other) == []
        figures = hub.statistics()
        assert figures.audiences == 4
        assert figures.delivered == 2 + 3 + 3 + 4 + 4


async def test_a_subscription_without_a_topic_is_refused() -> None:
    """There is nothing it could hear."""
    async with prompt_hub() as hub:
        with pytest.raises(InvalidPublication, match="at least one topic"):
            hub.subscribe([])
        with pytest.raises(InvalidPublication, match=r"pass \['a'\]"):
            hub.subscribe("a")


async def test_who_subscribes_gets_exactly_what_is_published_then(autojump_clock: Clock) -> None:
    """What was published before is over, even where nobody has had it yet."""
    async with prompt_hub() as hub:
        await publish(hub, "before")
        async with hub.subscribe(["a"]) as subscription:
            await publish(hub, "1", "2")
            assert await what_comes(subscription) == ["1", "2"]


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


async def test_all_publishers_and_subscribers_see_one_order(autojump_clock: Clock) -> None:
    """Whoever publishes when, every subscriber has the same order, and it is each publisher's."""
    histories: list[Any] = [None, SlowHistory(0.3)]
    for history in histories:
        async with (
            prompt_hub(history) as hub,
            hub.subscribe(["a"]) as one,
            hub.subscribe(["*"]) as two,
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


async def hold(
    subscription: Subscription, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    async with subscription.open():
        task_status.started()
        await trio.sleep_forever()


async def test_a_busy_hub_gathers(monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock) -> None:
    """Where delivering takes long, what is published meanwhile comes together, soon enough."""
    took = 0.001
    seconds = iter(range(10**9))
    monkeypatch.setattr(dispatcher_module, "perf_counter", lambda: next(seconds) * took)
    server = Server()
    async with open_hub(gather=0.5) as hub, trio.open_nursery() as nursery:
        nursery.start_soon(EventStream(hub.subscription(["a"])).run, server, server)
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


async def test_its_arguments_are_checked() -> None:
    """A limit that nothing keeps to is no limit."""
    with pytest.raises(ValueError, match="max_event_size must be at least 1 byte, not 0"):
        Hub(max_event_size=0)
    with pytest.raises(ValueError, match="gather must be a number of seconds from 0"):
        Hub(gather=float("nan"))


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


async def test_all_that_waits_is_appended_at_once(autojump_clock: Clock) -> None:
    """While one append runs, what is published waits for the next, and all of it is that."""
    history = SlowHistory(1)
    acknowledged: dict[str, float] = {}
    async with prompt_hub(history) as hub, hub.subscribe(["a"]) as subscription:
        began = trio.current_time()

        async def publisher(name: str) -> None:
            await publish(hub, name)
            acknowledged[name] = trio.current_time() - began

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publisher, "first")
            await trio.sleep(0.5)
            assert hub.statistics().waiting == 0
            for number in range(50):
                nursery.start_soon(publisher, str(number))
            await trio.sleep(0.1)
            assert hub.statistics().waiting == 50
            assert hub.statistics().published == 0
            assert await what_comes(subscription) == []
        assert history.groups == [1, 50]
        assert acknowledged.pop("first") == 1
        assert set(acknowledged.values()) == {2}
        assert sorted(map(str, await what_comes(subscription)))[:50] == sorted(map(str, range(50)))


async def test_a_publisher_may_be_cancelled_while_it_waits(autojump_clock: Clock) -> None:
    """It is published all the same, once, and nobody else is concerned."""
    history = SlowHistory(1)
    async with prompt_hub(history) as hub, hub.subscribe(["a"]) as subscription:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish, hub, "1")
            await trio.sleep(0.1)
            nursery.start_soon(publish, hub, "2")
            await trio.sleep(0.1)
            with trio.move_on_after(0.1) as scope:
                await publish(hub, "3")
            assert scope.cancelled_caught
        await trio.sleep(5)
        assert await what_comes(subscription) == ["1", "2", "3"]
        assert history.groups == [1, 2]


async def test_a_history_that_fails_tells_the_publishers_and_recovers(
    autojump_clock: Clock,
) -> None:
    """All of the group are told why; nothing of it is published; the next one is."""
    history = SlowHistory(1)
    errors: list[str] = []
    async with prompt_hub(history) as hub, hub.subscribe(["a"]) as subscription:

        async def publisher(name: str) -> None:
            try:
                await publish(hub, name)
            except HistoryError as error:
                errors.append(f"{name}: {error}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publisher, "1")
            await trio.sleep(1.5)
            history.failing = "append"
            nursery.start_soon(publisher, "2")
            nursery.start_soon(publisher, "3")
            await trio.sleep(1.1)
            history.failing = None
            nursery.start_soon(publisher, "4")
        assert sorted(errors) == ["2: append fails", "3: append fails"]
        assert await what_comes(subscription) == ["1", "4"]
        assert hub.statistics().published == 2
        async with hub.subscribe(["a"], last_event_id="earliest") as again:
            assert await what_comes(again) == ["1", "4"]


async def test_a_history_that_fails_otherwise_is_an_error_of_the_history(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that the contract does not know is logged, and the hub goes on."""
    history = SlowHistory(1)
    history.failing, history.broken = "append", ZeroDivisionError("oops")
    async with prompt_hub(history) as hub:
        with pytest.raises(HistoryError, match=r"the history failed: ZeroDivisionError\('oops'\)"):
            await publish(hub, "1")
        history.failing = None
        await publish(hub, "2")
        assert hub.statistics().published == 1
    (record,) = caplog.records
    assert record.name == "penstock.hub.keeping"
    assert record.exc_info


async def test_an_outage_of_the_history_is_logged_once(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """When it begins, and when it is over; each publisher is told of its own publication."""
    caplog.set_level(logging.INFO, "penstock")
    history = SlowHistory(1)
    async with prompt_hub(history) as hub:
        await publish(hub, "1")
        history.failing = "append"
        for _ in range(3):
            with pytest.raises(HistoryError, match="append fails"):
                await publish(hub, "2")
        history.failing = None
        await publish(hub, "3")
        await publish(hub, "4")
    assert [record.getMessage() for record in caplog.records] == [
        "Nothing can be published: append fails",
        "What is published is kept again",
    ]


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
            with pytest.raises(HistoryError, match="append fails"):
                await publish(hub, "1")

        nursery.start_soon(publisher)
        await trio.sleep(0.5)
        hub.close()


async def test_cancelled_it_tells_those_who_wait(autojump_clock: Clock) -> None:
    """Publishers whose events are not known to be kept are told that the hub is closed."""
    history = SlowHistory(1)
    told: list[str] = []
    hub = Hub(history=history, gather=0)

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


async def test_a_history_that_cannot_be_opened(autojump_clock: Clock) -> None:
    """The block is not entered, and the error says why; the history is closed all the same."""
    history = SlowHistory()
    history.failing = "open"
    with pytest.RaisesGroup(pytest.RaisesExc(HistoryError, match="open fails")):
        async with prompt_hub(history):
            pytest.fail("there is no hub")
    assert (history.opened, history.closed) == (1, 1)


async def test_it_runs_again(autojump_clock: Clock) -> None:
    """A hub that was closed can be opened again, and goes on with its history."""
    history = SlowHistory(None)
    hub = Hub(history=history, gather=0)
    for number in range(3):
        async with trio.open_nursery() as nursery:
            await nursery.start(hub.run)
            with pytest.raises(RuntimeError, match="running already"):
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
            nursery.start_soon(EventStream(hub.subscription(["a", "b"])).run, Server())
            nursery.start_soon(EventStream(hub.subscription(["*"])).run, Server())
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
    assert figures.published == figures.history.publications == 2
    assert trio.lowlevel.current_statistics().tasks_living == tasks


@pytest.mark.parametrize("when_slow", ["disconnect", "drop_oldest", "latest"])
async def test_a_client_that_stalls_delays_nobody(when_slow: str, autojump_clock: Clock) -> None:
    """Whatever its policy: no time passes for publishers, others have all, memory is bounded."""
    stalled, healthy = Server(), Server()
    async with prompt_hub() as hub, trio.open_nursery() as nursery:
        slow = hub.subscription(["a"], when_slow=when_slow, buffer=10)
        nursery.start_soon(EventStream(slow, keep_alive=None).run, stalled, stalled)
        nursery.start_soon(EventStream(hub.subscription(["a"])).run, healthy, healthy)
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


async def test_no_log_where_nothing_goes_wrong(
    caplog: pytest.LogCaptureFixture, autojump_clock: Clock
) -> None:
    """A hub in ordinary use says nothing."""
    caplog.set_level(logging.DEBUG, "penstock")
    async with prompt_hub(SlowHistory(0.1)) as hub, hub.subscribe(["a"]) as subscription:
        await publish(hub, "1", "2")
        assert await what_comes(subscription) == ["1", "2"]
    assert caplog.records == []


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
    monkeypatch.setattr(keeping_module, "_MOST_KEPT", 10_000)
    for history in (MemoryHistory(), SlowHistory(0)):
        async with open_hub(history=history, gather=100) as hub, trio.open_nursery() as nursery:
            # As a hub whose last delivery took so long that it gathers now.
            hub.dispatcher._began, hub.dispatcher._took = trio.current_time(), 10**6

            async def publisher(hub: Hub = hub) -> None:
                for _ in range(100):
                    await publish(hub, "x" * 1000)

            for _ in range(3):
                nursery.start_soon(publisher)
            await trio.sleep(50)
            assert 7 <= hub.statistics().published < 20
            await trio.sleep(10_000)
            assert hub.statistics().published == 300


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
        with pytest.raises(RuntimeError, match="running already"):
            await hub.run()
        await hub.wait_closed()
        await nursery.start(hub.run)
        await publish(hub, "again")
        hub.close()
