"""The way from history to live, whatever interrupts it: deadlines, failures, and the next event."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from hub_fakes import Server, SlowHistory
from hub_steps import prompt_hub
from penstock import CloseReason, EventStream, Hub, ServerSentEvent

# Virtual time is in ticks of a millisecond, so that deadlines, reads and publications coincide.
TICK = 0.001


async def follow(
    hub: Hub, lives: int, *, writes_directly: bool, keep_alive: float | None, lifetime: float
) -> list[str | None]:
    """Return what one client has in so many streams, of which each resumes after the last."""
    data: list[str | None] = []
    last_event_id: str | None = "0"
    for _ in range(lives):
        server = Server()
        stream = EventStream(
            hub.subscription(["a"], last_event_id=last_event_id),
            keep_alive=keep_alive,
            max_lifetime=lifetime,
        )
        await stream.run(server.send, server if writes_directly else None)
        assert stream.close_reason is CloseReason.EXPIRED
        data += server.data
        last_event_id = server.events[-1].id if server.events else last_event_id
    return data


async def publish_on(hub: Hub, every: int) -> None:
    number = 6
    while True:
        await hub.publish(ServerSentEvent(str(number), id=str(number)), ["a"])
        number += 1
        await trio.sleep(every * TICK)


@settings(max_examples=3 * settings().max_examples, derandomize=True)
@given(
    reads=st.integers(0, 5),
    takes=st.none() | st.integers(0, 1),
    every=st.integers(1, 2),
    keep_alive=st.none() | st.integers(1, 8),
    lifetime=st.integers(1, 20),
    writes_directly=st.booleans(),
)
def test_a_stream_that_expires_anywhere_is_resumed_without_a_gap(
    reads: int,
    takes: int | None,
    every: int,
    keep_alive: int | None,
    lifetime: int,
    writes_directly: bool,
) -> None:
    """Whenever a lifetime or a keep-alive expires, what is written is what comes next."""

    async def main() -> None:
        seconds = None if takes is None else takes * TICK
        history = SlowHistory(seconds, reads=reads * TICK)
        async with prompt_hub(history) as hub, trio.open_nursery() as nursery:
            for number in range(6):
                await hub.publish(ServerSentEvent(str(number), id=str(number)), ["a"])
            nursery.start_soon(publish_on, hub, every)
            options: dict[str, Any] = {"writes_directly": writes_directly}
            options["keep_alive"] = None if keep_alive is None else keep_alive * TICK
            data = await follow(hub, 12, lifetime=lifetime * TICK, **options)
            nursery.cancel_scope.cancel()
        assert data == [str(number) for number in range(1, len(data) + 1)]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("keep_alive", [1, 3, 9])
async def test_a_history_slower_than_the_keep_alive_is_read(
    keep_alive: int, autojump_clock: trio.testing.MockClock
) -> None:
    """A keep-alive interrupts a read that can be cancelled, and yet the client gets its events."""
    async with prompt_hub(SlowHistory(None, reads=10)) as hub:
        for number in range(3):
            await hub.publish(ServerSentEvent(str(number), id=str(number)), ["a"])
        server = Server()
        stream = EventStream(hub.subscription(["a"], last_event_id="0"), keep_alive=keep_alive)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.run, server.send, server)
            await trio.sleep(200)
            nursery.cancel_scope.cancel()
        assert server.data == ["1", "2"]
        assert stream.statistics().keep_alives_sent >= 3
