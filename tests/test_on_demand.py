"""Producers on demand: they run while anybody subscribes to their topic, and a little longer."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from hub_fakes import Server, SlowHistory
from hub_steps import Clock, hold, prompt_hub, publish, what_comes
from penstock import EVERY_TOPIC, EventStream, Hub, InvalidPublication, ServerSentEvent

Events = trio.abc.SendChannel[ServerSentEvent]


class Produce:
    """A producer that publishes a number each second, and notes when it ran.

    Args:
      lives: seconds after which it raises, or returns.
      tidies: seconds that it needs when it is cancelled.
    """

    def __init__(
        self, *, lives: float = 10**6, raises: Exception | None = None, tidies: float = 0
    ) -> None:
        self.lives = lives
        self.raises = raises
        self.tidies = tidies
        self.began: list[float] = []
        self.ended: list[float] = []
        self.origin = 0.0

    async def __call__(self, events: Events) -> None:
        self.began.append(trio.current_time() - self.origin)
        try:
            with trio.move_on_after(self.lives):
                for number in range(10**6):
                    await events.send(ServerSentEvent(str(number)))
                    await trio.sleep(1)
            if self.raises:
                raise self.raises
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(self.tidies)
            self.ended.append(trio.current_time() - self.origin)


@asynccontextmanager
async def hub_with(
    produce: Produce, topic: str = "a", log: Any = None, **options: Any
) -> AsyncIterator[Hub]:
    """Open a hub with a producer, whose times begin now."""
    produce.origin = trio.current_time()
    async with prompt_hub(log) as hub:
        hub.add_producer(topic, produce, **options)
        yield hub


async def subscribe_for(hub: Hub, seconds: float, topic: str = "a") -> None:
    async with hub.subscribe(EVERY_TOPIC if topic == "*" else [topic]):
        await trio.sleep(seconds)


async def test_it_runs_for_all_who_subscribe(autojump_clock: Clock) -> None:
    """It begins with the first, works for all alike, and its events are the topic's."""
    produce = Produce()
    async with hub_with(produce) as hub, trio.open_nursery() as nursery:
        await trio.sleep(10)
        assert produce.began == []
        assert hub.statistics().producers_running == 0
        server = Server()
        nursery.start_soon(EventStream(hub.subscription(["a"])).run, server.send, server)
        await trio.sleep(3.5)
        async with hub.subscribe(["b", "a"]) as later:
            await trio.sleep(2)
            assert await what_comes(later) == ["4", "5"]
        assert server.data == ["0", "1", "2", "3", "4", "5"]
        assert produce.began == [10]
        assert hub.statistics().producers_running == 1
        nursery.cancel_scope.cancel()


async def test_other_topics_are_not_its_business(autojump_clock: Clock) -> None:
    """Who subscribes to something else does not start it, and it starts with nothing else."""
    produce = Produce()
    async with hub_with(produce) as hub:
        await subscribe_for(hub, 5, "b")
        assert produce.began == []


async def test_who_subscribes_to_all_topics_starts_it(autojump_clock: Clock) -> None:
    """A subscription to every topic is one to its topic, too."""
    produce = Produce()
    async with hub_with(produce, keep_running_for=0) as hub:
        await subscribe_for(hub, 5, "*")
        await trio.sleep(1)
    assert produce.began == [0]
    assert produce.ended == [5]


async def test_it_lingers_and_is_cancelled(autojump_clock: Clock) -> None:
    """So long after the last one has gone, exactly, and its clean-up has run."""
    produce = Produce()
    async with hub_with(produce, keep_running_for=7) as hub:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(subscribe_for, hub, 2)
            nursery.start_soon(subscribe_for, hub, 4)
        await trio.sleep(6.9)
        assert hub.statistics().producers_running == 1
        await trio.sleep(0.2)
        assert hub.statistics().producers_running == 0
        assert produce.ended == [11]
        await subscribe_for(hub, 1)
        assert produce.began == [0, pytest.approx(11.1)]


async def test_who_comes_back_meanwhile_finds_it_running(autojump_clock: Clock) -> None:
    """Coming and going within the time to linger, it never notices."""
    produce = Produce()
    async with hub_with(produce, keep_running_for=5) as hub:
        for _ in range(10):
            await subscribe_for(hub, 1)
            await trio.sleep(4.9)
        await trio.sleep(0.05)
        assert produce.ended == []
        await trio.sleep(1)
        assert produce.began == [0]
        assert produce.ended == [pytest.approx(59.1)]


async def test_without_lingering_it_ends_at_once(autojump_clock: Clock) -> None:
    """Seconds may be none at all."""
    produce = Produce()
    async with hub_with(produce, keep_running_for=0) as hub:
        for _ in range(3):
            await subscribe_for(hub, 1)
            await trio.sleep(1)
    assert (produce.began, produce.ended) == ([0, 2, 4], [1, 3, 5])


async def test_who_comes_while_it_tidies_up_has_it_started_again(autojump_clock: Clock) -> None:
    """Two never run at a time; the next begins where the last one has ended."""
    produce = Produce(tidies=3)
    async with hub_with(produce, keep_running_for=1) as hub:
        await subscribe_for(hub, 1)
        await trio.sleep(2)
        async with hub.subscribe(["a"]) as subscription:
            await trio.sleep(4.5)
            assert await what_comes(subscription) == ["0", "1", "2"]
            assert (produce.began, produce.ended) == ([0, 5], [5])


async def test_who_comes_and_goes_while_it_tidies_up_has_nothing_started(
    autojump_clock: Clock,
) -> None:
    """It is nobody's any more when it could be started."""
    produce = Produce(tidies=3)
    async with hub_with(produce, keep_running_for=1) as hub:
        await subscribe_for(hub, 1)
        await trio.sleep(2)
        await subscribe_for(hub, 1)
        await trio.sleep(10)
        assert (produce.began, produce.ended) == ([0], [5])
        assert hub.statistics().producers_running == 0


async def test_one_that_returns_is_started_for_the_next_first_subscriber(
    autojump_clock: Clock,
) -> None:
    """Who subscribes while others do does not start it again."""
    produce = Produce(lives=2)
    async with hub_with(produce) as hub, trio.open_nursery() as nursery:
        nursery.start_soon(subscribe_for, hub, 10)
        await trio.sleep(5)
        nursery.start_soon(subscribe_for, hub, 10)
        await trio.sleep(5)
        assert produce.began == [0]
        assert hub.statistics().producers_running == 0
        await trio.sleep(10)
        nursery.start_soon(subscribe_for, hub, 10)
        await trio.sleep(1)
        assert produce.began == [0, 20]


async def test_one_that_raises_is_started_again_later_and_later(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Twice as long each time, up to a minute; each error is logged once, with its traceback."""
    produce = Produce(lives=0.5, raises=ZeroDivisionError("oops"))
    async with hub_with(produce, restart_after=4) as hub:
        async with hub.subscribe(["a"]) as subscription:
            await trio.sleep(250)
            assert len(await what_comes(subscription)) == 8
            assert hub.statistics().producers_running == 1
    # Half a second to live, and 4, 8, 16, 32, 60, 60 until the next start.
    assert produce.began == [0, 4.5, 13, 29.5, 62, 122.5, 183, 243.5]
    assert len(caplog.records) == 8
    assert {record.name for record in caplog.records} == {"penstock.stream.producer"}
    assert {record.getMessage() for record in caplog.records} == {"topic a: the producer failed"}
    assert all(
        record.exc_info and record.exc_info[0] is ZeroDivisionError for record in caplog.records
    )


async def test_one_that_raises_may_be_left_alone(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a time to restart, it is started for the next first subscriber only."""
    produce = Produce(lives=1, raises=ValueError("oops"))
    async with hub_with(produce, restart_after=None, keep_running_for=0) as hub:
        await subscribe_for(hub, 100)
        assert hub.statistics().producers_running == 0
        await subscribe_for(hub, 100)
    assert produce.began == [0, 100]
    assert len(caplog.records) == 2


async def test_it_is_not_started_again_for_nobody(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Waiting to be started again, it lingers and is given up as if it were running."""
    produce = Produce(lives=1, raises=ValueError("oops"))
    async with hub_with(produce, restart_after=50, keep_running_for=5) as hub:
        await subscribe_for(hub, 3)
        await trio.sleep(4)
        assert hub.statistics().producers_running == 1
        await trio.sleep(2)
        assert hub.statistics().producers_running == 0
        await trio.sleep(100)
        assert produce.began == [0]
        await subscribe_for(hub, 1)
        assert produce.began == [0, 109]


@pytest.mark.parametrize("way", ["closed", "cancelled"])
async def test_the_end_of_the_hub_cancels_it(
    way: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """However long the history takes to keep what waits; nothing of that is an error."""
    produce = Produce(tidies=0.25)
    tasks = trio.lowlevel.current_statistics().tasks_living
    with trio.CancelScope() as scope:
        async with hub_with(produce, log=SlowHistory(2.5)) as hub:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hold, hub.subscription(["a"]))
                await trio.sleep(10)
                if way == "cancelled":
                    scope.cancel()
                hub.close()
                await trio.sleep(10)
                nursery.cancel_scope.cancel()
    assert produce.ended == [10.25]
    assert caplog.records == []
    assert hub.statistics().producers_running == 0
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_it_is_there_again_when_the_hub_runs_again(autojump_clock: Clock) -> None:
    """A hub that is opened again has its producers still."""
    produce = Produce()
    hub = Hub(batch_delay=0)
    hub.add_producer("a", produce, keep_running_for=0)
    for number in range(3):
        async with trio.open_nursery() as nursery:
            await nursery.start(hub.run)
            async with hub.subscribe(["a"]) as subscription:
                await trio.sleep(1.5)
                assert await what_comes(subscription) == ["0", "1"]
                if number:
                    await publish(hub, "last")
                    hub.close()
                    await hub.wait_closed()
            hub.close()
    assert len(produce.began) == len(produce.ended) == 3


async def test_it_is_started_for_those_who_are_there(autojump_clock: Clock) -> None:
    """Added late, it finds its subscribers, and counts them."""
    produce = Produce()
    async with prompt_hub() as hub, trio.open_nursery() as nursery:
        nursery.start_soon(subscribe_for, hub, 5)
        nursery.start_soon(subscribe_for, hub, 5, "*")
        nursery.start_soon(subscribe_for, hub, 5, "b")
        await trio.sleep(1)
        produce.origin = trio.current_time()
        hub.add_producer("a", produce, keep_running_for=0)
        await trio.sleep(10)
        assert (produce.began, produce.ended) == ([0], [4])


async def test_what_it_sends_is_refused_in_its_own_task(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """What is no event, or comes after it closed its channel, is its error."""
    caught: list[type[BaseException]] = []

    async def produce(events: Events) -> None:
        send: Any = events.send
        for value in ("text", None):
            try:
                await send(value)
            except InvalidPublication as error:
                caught.append(type(error))
        await events.send(ServerSentEvent("1"))
        await events.aclose()
        try:
            await events.send(ServerSentEvent("2"))
        except trio.ClosedResourceError as error:
            caught.append(type(error))

    async with prompt_hub() as hub:
        hub.add_producer("a", produce)
        async with hub.subscribe(["a"]) as subscription:
            assert await what_comes(subscription) == ["1"]
    assert caught == [InvalidPublication, InvalidPublication, trio.ClosedResourceError]
    assert caplog.records == []


async def test_a_history_that_fails_is_its_error_and_it_is_started_again(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage of the history is survived."""
    produce = Produce()
    history = SlowHistory(0.1)
    history.failing = "append"
    async with hub_with(produce, log=history) as hub:
        async with hub.subscribe(["a"]) as subscription:
            await trio.sleep(2)
            history.failing = None
            await trio.sleep(5)
            assert (await what_comes(subscription))[:3] == ["0", "1", "2"]
    assert [record.name for record in caplog.records].count("penstock.stream.producer") == 2


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"keep_running_for": -1}, ValueError, "keep_running_for and restart_after must be"),
        (
            {"keep_running_for": float("nan")},
            ValueError,
            "keep_running_for and restart_after must be",
        ),
        ({"restart_after": -1}, ValueError, "keep_running_for and restart_after must be"),
        ({"producer": "x"}, TypeError, "producer must be an async function"),
        ({"topic": "taken"}, ValueError, "the topic 'taken' already has a producer"),
        ({"topic": "*"}, InvalidPublication, "is reserved"),
        ({"topic": ""}, InvalidPublication, "must not be empty"),
    ],
)
def test_what_cannot_be_is_refused(
    options: dict[str, Any], error: type[Exception], said: str
) -> None:
    """When it is added, and not when the first subscriber comes."""
    hub = Hub()
    hub.add_producer("taken", Produce())
    given: dict[str, Any] = {"topic": "a", "producer": Produce(), **options}
    with pytest.raises(error, match=said):
        hub.add_producer(given.pop("topic"), given.pop("producer"), **given)


async def test_one_that_is_no_async_function_is_logged(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be seen before it is called is an error of that producer alone."""
    caplog.set_level(logging.ERROR)

    def produce(events: Events) -> Any:
        return 5

    async with prompt_hub() as hub:
        hub.add_producer("a", produce, restart_after=None)
        async with hub.subscribe(["a"]) as subscription:
            await publish(hub, "1")
            assert await what_comes(subscription) == ["1"]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "cannot be awaited" in str(record.exc_info[1])


async def test_who_comes_while_it_fails_to_tidy_up_has_it_started(autojump_clock: Clock) -> None:
    """Though one that raises is left alone: it was cancelled for want of subscribers."""

    class Fails(Produce):
        async def __call__(self, events: Events) -> None:
            try:
                await super().__call__(events)
            finally:
                raise ValueError("while it is cancelled")

    produce = Fails(tidies=10)
    async with hub_with(produce, keep_running_for=1, restart_after=None) as hub:
        await subscribe_for(hub, 5)
        await trio.sleep(5)
        await subscribe_for(hub, 20)
        assert len(produce.began) == 2


async def test_one_that_ran_for_long_is_started_again_soon(autojump_clock: Clock) -> None:
    """It is not held against it that it has raised before."""
    produce = Produce(lives=100, raises=ValueError("now and then"))
    async with hub_with(produce) as hub:
        await subscribe_for(hub, 510)
        assert produce.began == pytest.approx([0, 101, 202, 303, 404, 505], abs=1)
