"""Hubs that share a log: each delivers what anybody has appended, in the log's one order."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import trio
import trio.testing

from hub_fakes import SlowHistory
from hub_steps import following, prompt_hub, publish, what_comes
from penstock import ServerSentEvent
from penstock.errors import LogError
from penstock.logs import MemoryLog
from penstock.testing import check_log

Clock = trio.testing.MockClock


class Shared(SlowHistory):
    """One node's view of a log; a call takes time, and fails while it is told to."""

    @property
    def shared(self) -> bool:
        return True


def nodes(count: int, **options: Any) -> list[Shared]:
    """Return the views that some nodes have of one log."""
    inner = MemoryLog()
    return [Shared(inner=inner, **options) for _ in range(count)]


@pytest.mark.parametrize("takes", [None, 0.1])
@pytest.mark.parametrize("reads", [0, 0.3])
async def test_all_nodes_deliver_the_same(
    takes: float | None, reads: float, autojump_clock: Clock
) -> None:
    """Whoever publishes, all subscribers of all nodes receive it, in one order, once."""
    one, two = nodes(2, takes=takes, reads=reads)
    async with prompt_hub(one) as first, prompt_hub(two) as second:
        async with first.subscribe(["a"]) as here, second.subscribe(["a"]) as there:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish, first, *"123")
                nursery.start_soon(publish, second, *"456")
            await trio.sleep(10)
            received = await what_comes(here)
            assert (len(received), {*received}) == (6, {*"123456"})
            assert await what_comes(there) == received
        assert first.statistics().published == second.statistics().published == 3
    assert one.closed == two.closed == 1


async def test_a_client_resumes_at_another_node(autojump_clock: Clock) -> None:
    """An id is the log's, and not the node's."""
    one, two = nodes(2, takes=0.1, reads=0.1)
    async with prompt_hub(one) as first, prompt_hub(two) as second:
        seen = await first.publish(ServerSentEvent("1"), ["a"])
        await publish(first, "2", "3")
        async with second.subscribe(["a"], last_event_id=seen) as resumed:
            await publish(first, "4")
            assert [(await following(resumed)).data for _ in range(3)] == ["2", "3", "4"]


async def test_closed_it_has_delivered_what_it_acknowledged(autojump_clock: Clock) -> None:
    """However late that comes back from the log."""
    (node,) = nodes(1, takes=0.1, reads=4)
    async with prompt_hub(node) as hub, hub.subscribe(["a"]) as subscriber:
        await publish(hub, "1")
        hub.close()
        await hub.wait_closed()
        assert trio.current_time() >= 4
        assert await what_comes(subscriber) == ["1"]


async def test_an_outage_of_following_loses_nothing(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once; streams stay open, and go on where they were."""
    caplog.set_level(logging.INFO, "penstock.hub")
    one, two = nodes(2, takes=0.1)
    async with prompt_hub(one) as first, prompt_hub(two) as second:
        async with second.subscribe(["a"]) as subscriber:
            await publish(first, "1")
            await trio.sleep(1)
            two.failing = "follow"
            await publish(first, "2")
            await trio.sleep(100)
            assert await what_comes(subscriber) == ["1"]
            two.failing = None
            await trio.sleep(2)
            assert await what_comes(subscriber) == ["2"]
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, "Following the log failed, delivery suspended: follow fails"),
        (logging.INFO, "Following the log recovered, delivery resumed"),
    ]


@pytest.mark.parametrize("fails", [True, False], ids=["fails", "hangs"])
async def test_closed_it_does_not_wait_for_ever(
    fails: bool, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A log that does not return what was committed keeps a hub open for five seconds."""
    (node,) = nodes(1, takes=0.1, reads=0.1 if fails else math.inf)
    async with prompt_hub(node) as hub, hub.subscribe(["a"]):
        node.failing = "follow" if fails else None
        await publish(hub, "1")
        closed_at = trio.current_time()
        hub.close()
        await hub.wait_closed()
        assert 4.9 < trio.current_time() - closed_at < 5.1
    assert caplog.messages[-1] == "Hub closed before the log returned all entries it had committed"


async def test_an_append_that_fails_is_not_waited_for(autojump_clock: Clock) -> None:
    """The hub closes, since the log did not take it."""
    (node,) = nodes(1, takes=0.1)
    async with prompt_hub(node) as hub:
        node.failing = "append"
        with pytest.raises(LogError):
            await publish(hub, "1")
    assert node.closed == 1


async def test_it_keeps_to_the_contract() -> None:
    """What is shared here is a log."""
    await check_log(lambda **bounds: Shared(None, inner=MemoryLog(**bounds)))
