"""A hub that is used wrongly, or whose subscriber fails: a clear error, and nobody else notices."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from quart import request
from quart_trio import QuartTrio

from hub_fakes import Server, SlowHistory
from hub_steps import Clock, prompt_hub, publish, what_comes
from penstock import (
    EVERY_TOPIC,
    CloseReason,
    EventStream,
    Hub,
    InvalidPublication,
    InvalidSubscription,
    LogError,
    Publication,
    Selection,
    ServerSentEvent,
    open_hub,
)
from penstock.hub import hub as hub_module
from penstock.logs import MemoryLog, memory
from penstock.logs.log import Position
from penstock.quart import EventSourceResponse, add_hub
from penstock.testing import FakeClient, open_app

EVENT = ServerSentEvent("x")


class Broken(Server):
    """A server whose direct writes fail, as one whose protocol has an error does."""

    def write_nowait(self, chunk: Any) -> bool:
        raise ZeroDivisionError("oops")


async def test_a_member_that_fails_ends_alone(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its subscription ends as failed, with one log record; the others and the hub go on."""
    async with prompt_hub() as hub, hub.subscribe(["a"]) as other, trio.open_nursery() as nursery:
        good, broken = Server(), Broken()
        streams = [EventStream(hub.subscription(["a"])) for _ in (good, broken)]
        for stream, server in zip(streams, (good, broken), strict=True):
            nursery.start_soon(stream.run, server.send, server)
        await trio.sleep(1)
        for data in ("1", "2"):
            await publish(hub, data)
            await trio.sleep(1)
        assert (good.data, await what_comes(other)) == (["1", "2"], ["1", "2"])
        assert streams[1].close_reason is CloseReason.FAILED
        assert not streams[1].statistics().open
        assert hub.statistics().subscriptions_closed == {CloseReason.FAILED: 1}
        assert hub.statistics().delivered == 4
        nursery.cancel_scope.cancel()
    (record,) = caplog.records
    assert record.getMessage() == "Delivery to a subscriber failed, its subscription ended"


async def nothing(events: Any) -> None:
    """Produce nothing."""


async def test_who_cannot_be_admitted_ends_alone(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """One that waits for the head and fails there has failed; the hub goes on."""

    class Failing:
        failed: Exception | None = None

        def head_reached(self) -> None:
            raise ZeroDivisionError("oops")

        def fail(self, error: Exception) -> None:
            self.failed = error
            hub.dispatcher.remove_awaiting(Position(1), member)

    member: Any = Failing()
    async with prompt_hub() as hub, hub.subscribe(["a"]) as other:
        hub.dispatcher.add_awaiting(Position(1), member)
        await publish(hub, "1", "2")
        assert await what_comes(other) == ["1", "2"]
    assert isinstance(member.failed, ZeroDivisionError)


async def test_what_was_kept_though_it_failed_has_a_position(autojump_clock: Clock) -> None:
    """Who joins behind it misses nothing of what comes next: positions are the history's."""

    class Unsure(SlowHistory):
        async def append(self, publications: Sequence[Publication]) -> Sequence[Position]:
            positions = await super().append(publications)
            if publications[0].event.data == "unsure":
                raise LogError("it is not known whether it was kept")
            return positions

    async with prompt_hub(Unsure(0.1)) as hub:
        await publish(hub, "1")
        with pytest.raises(LogError):
            await publish(hub, "unsure")
        async with hub.subscribe(["a"]) as subscription:
            await publish(hub, "2", "3")
            await trio.sleep(1)
            assert await what_comes(subscription) == ["2", "3"]


async def test_one_outage_of_the_history_is_one_gap(autojump_clock: Clock) -> None:
    """However often it is asked meanwhile: up to the head, and then up to the mark."""
    history = SlowHistory(None, reads=1)
    async with prompt_hub(history) as hub:
        ids = [await hub.publish(ServerSentEvent(data), ["a"]) for data in "123"]
        history.failing = "read"
        async with (
            hub.subscribe(["a"], last_event_id=ids[0]) as subscription,
            trio.open_nursery() as nursery,
        ):
            events: list[ServerSentEvent] = []

            async def listen() -> None:
                async for event in subscription:
                    events.append(event)

            nursery.start_soon(listen)
            for data in "4567":
                await trio.sleep(0.6)
                await publish(hub, data)
            await trio.sleep(10)
            nursery.cancel_scope.cancel()
        assert [event.event for event in events].count("gap") == 1
        assert events[-1].data == "7"


@pytest.mark.parametrize("topics", [["*"], [], "a", [""]])
def test_a_selection_of_no_topics(topics: Any) -> None:
    """It is refused where it is made, and not where it joins."""
    with pytest.raises(InvalidSubscription):
        Selection(topics)
    assert Selection({"a"}) == Selection(["a"])


def test_a_history_in_memory_ages_from_run_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of each Trio run begins somewhere else, and what is kept is as old as it is."""
    history = MemoryLog(age=3600)

    async def publish_and_read(data: str) -> list[str | None]:
        async with prompt_hub(history) as hub:
            await publish(hub, data)
            async with hub.subscribe(["a"], last_event_id="earliest") as subscription:
                await trio.sleep(1)
                return await what_comes(subscription)

    def run(data: str, begins: float) -> list[str | None]:
        clock = Clock(autojump_threshold=0)
        clock.jump(begins)
        return trio.run(publish_and_read, data, clock=clock)

    assert run("a", 50_000) == ["a"]
    assert run("b", 90_000) == ["a", "b"]
    assert run("c", 0) == ["a", "b", "c"]
    later = time.monotonic() + 3600
    monkeypatch.setattr(memory, "time", SimpleNamespace(monotonic=lambda: later))
    assert run("d", 70_000) == ["d"]


async def test_another_trio_run_is_refused(autojump_clock: Clock) -> None:
    """A thread that runs its own loop is told how to publish, and the hub is unharmed."""
    refused: list[BaseException] = []

    def in_a_thread(hub: Hub) -> None:
        calls: list[Any] = [
            partial(hub.publish, EVENT, ["a"]),
            partial(hub.publish_batch, [(EVENT, ["a"])]),
            hub.wait_closed,
        ]
        for call in calls:
            try:
                trio.run(call)
            except RuntimeError as error:
                refused.append(error)
        synchronous: list[Any] = [
            hub.close,
            partial(hub.add_producer, "p", nothing),
            partial(subscription.end, CloseReason.FINISHED),
        ]
        for call in synchronous:
            with pytest.raises(RuntimeError) as raised:
                call()
            refused.append(raised.value)

    async with prompt_hub() as hub, hub.subscribe(["a"]) as subscription:
        thread = threading.Thread(target=in_a_thread, args=(hub,))
        thread.start()
        thread.join()
        assert len(refused) == 6
        assert all("trio.from_thread.run(" in str(error) for error in refused)
        token = trio.lowlevel.current_trio_token()

        def rightly() -> None:
            trio.from_thread.run(hub.publish, ServerSentEvent("2"), ["a"], trio_token=token)

        await trio.to_thread.run_sync(rightly)
        assert await what_comes(subscription) == ["2"]


def test_without_trio_it_says_so() -> None:
    """Under asyncio a hub does not open, and says in a sentence what it needs."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="a hub runs on Trio, but this is no Trio task"):
            async with open_hub():
                pytest.fail("there is no hub")

    asyncio.run(main())


async def test_topics_from_a_url_are_answered_with_400() -> None:
    """What is no topic is the client's fault; a word from a URL never selects everything."""
    app = QuartTrio(__name__)
    hub = add_hub(app)

    @app.get("/")
    async def stream() -> EventSourceResponse:
        return EventSourceResponse(hub.subscription(request.args.getlist("topic")))

    async with open_app(app):
        for query, said in (
            ("", "at least one topic"),
            ("topic=", "must not be empty"),
            ("topic=a%0d", "control characters"),
            ("topic=*", "reserved"),
            ("topic=a&topic=*", "reserved"),
            ("topic=" + "x" * 2000, "longer than 1024 bytes"),
            ("&".join(["topic=a"] * 1001), "more than 1,000 topics"),
        ):
            client = FakeClient(app, f"/?{query}")
            await client.run()
            assert client.status == 400
            assert said in client.body.decode()
            assert client.body.count(b"\n") == 1


async def test_a_batch_is_bounded(monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock) -> None:
    """By its events and its bytes, topics included; nothing of what is too large is published."""
    monkeypatch.setattr(hub_module, "MAX_BATCH", 1000)
    monkeypatch.setattr(hub_module, "MAX_BATCH_SIZE", 10**6)
    async with prompt_hub() as hub:
        with pytest.raises(InvalidPublication, match="more than 1,000 events") as caught:
            await hub.publish_batch([(EVENT, ["a"])] * 1001)
        assert caught.value.index == 1000
        topics = [f"{'x' * 900} {number}" for number in range(1000)]
        with pytest.raises(InvalidPublication, match="must not be larger than 1,000,000 bytes"):
            await hub.publish_batch([(EVENT, topics)] * 2)
        assert len(await hub.publish_batch([(EVENT, topics)])) == 1
        assert hub.statistics().published == 1


async def test_others_have_their_turn_while_a_batch_is_checked(autojump_clock: Clock) -> None:
    """A large batch is worked off in turns, and cancelled then, nothing of it is published."""
    async with prompt_hub() as hub, trio.open_nursery() as nursery:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        nursery.start_soon(other)
        await hub.publish_batch([(EVENT, ["a"])] * 3000)
        assert turns >= 10
        with trio.CancelScope() as scope:
            scope.cancel()
            await hub.publish_batch([(EVENT, ["a"])] * 3000)
        assert scope.cancelled_caught
        assert hub.statistics().published == 3000
        nursery.cancel_scope.cancel()


async def test_events_without_data_do_not_count_as_sent(autojump_clock: Clock) -> None:
    """As with a producer, `events_sent` is what clients dispatch."""
    async with prompt_hub() as hub, trio.open_nursery() as nursery:
        await hub.publish(ServerSentEvent(id="0", retry=5), ["a"])
        await hub.publish(ServerSentEvent("x", id="1"), ["a"])
        await trio.sleep(1)
        server = Server()
        stream = EventStream(hub.subscription(EVERY_TOPIC, last_event_id="earliest"))
        nursery.start_soon(stream.run, server.send, server)
        await trio.sleep(1)
        await hub.publish(ServerSentEvent(id="2", retry=5), ["a"])
        await hub.publish(ServerSentEvent("x", id="3"), ["a"])
        await trio.sleep(1)
        assert stream.statistics().events_sent == 2
        nursery.cancel_scope.cancel()
