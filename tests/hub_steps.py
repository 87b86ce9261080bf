"""What the tests do with a hub on the virtual clock: publish, subscribe, hear."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from penstock import Hub, ServerSentEvent, Subscription, open_hub

Clock = trio.testing.MockClock


@asynccontextmanager
async def prompt_hub(history: Any = None, **options: Any) -> AsyncIterator[Hub]:
    """Open a hub that does not gather: that goes by the real time that delivering takes."""
    async with open_hub(log=history, batch_delay=0, **options) as hub:
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


async def hold(
    subscription: Subscription, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    async with subscription.open():
        task_status.started()
        await trio.sleep_forever()
