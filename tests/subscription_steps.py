"""What the tests do with a subscription: publish numbers, interrupt it, stream it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio
import trio.testing

from hub_fakes import Server
from hub_steps import following
from penstock import EventStream, Hub, ServerSentEvent, Subscription
from penstock.position_ids import PositionIds

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


def position_id(hub: Hub, position: int) -> str:
    """Return the id that a client is given for a position of the hub's history."""
    return PositionIds(hub.log.key).encode(position)


def gap(last_event_id: str | None, goes_on: str | None = None) -> ServerSentEvent:
    data = json.dumps({"last_event_id": last_event_id}, separators=(",", ":"), ensure_ascii=False)
    return ServerSentEvent(data, event="gap", id=goes_on)


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


@asynccontextmanager
async def streaming(hub: Hub, server: Server, **options: Any) -> Any:
    """Run a stream of a subscription to "a" in the background; it is cancelled behind the block."""
    of_stream = {key: options.pop(key) for key in ("keep_alive", "max_lifetime") if key in options}
    subscription = hub.subscription(["a"], **options)
    stream = EventStream(subscription, **of_stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run, server.send, server)  # noqa: ASYNC113 - runs when the test waits
        yield stream, subscription
        nursery.cancel_scope.cancel()
