"""The hub and its history: groups, publishers that are cancelled, failures and recovery."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from hub_fakes import SlowHistory
from hub_steps import Clock, prompt_hub, publish, what_comes
from penstock import LogError


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
            except LogError as error:
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
        with pytest.raises(LogError, match=r"the log failed: ZeroDivisionError\('oops'\)"):
            await publish(hub, "1")
        history.failing = None
        await publish(hub, "2")
        assert hub.statistics().published == 1
    (record,) = caplog.records
    assert record.name == "penstock.hub.committer"
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
            with pytest.raises(LogError, match="append fails"):
                await publish(hub, "2")
        history.failing = None
        await publish(hub, "3")
        await publish(hub, "4")
    assert [record.getMessage() for record in caplog.records] == [
        "History write failed, publishing suspended: append fails",
        "History recovered, publishing resumed",
    ]


async def test_a_history_that_cannot_be_opened(autojump_clock: Clock) -> None:
    """The block is not entered, and the error says why; the history is closed all the same."""
    history = SlowHistory()
    history.failing = "open"
    with pytest.RaisesGroup(pytest.RaisesExc(LogError, match="open fails")):
        async with prompt_hub(history):
            pytest.fail("there is no hub")
    assert (history.opened, history.closed) == (1, 1)
