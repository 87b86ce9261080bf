"""A stream's surroundings on the virtual clock: a producer that notes its end, and a client."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
import trio.testing

from penstock import EventStreamDecoder, ServerSentEvent

Events = trio.abc.SendChannel[ServerSentEvent]
ProducerFunction = Callable[[Events], Awaitable[None]]
COMMENT = b":\n"


class Producer:
    """Sends numbers as fast as it may, and notes when its finally ran."""

    def __init__(self, count: float = math.inf, pause: float = 0) -> None:
        self.count = count
        self.pause = pause
        self.sent = 0
        self.finished_at: float | None = None

    async def __call__(self, events: Events) -> None:
        try:
            while self.sent < self.count:
                await trio.sleep(self.pause)
                await events.send(ServerSentEvent(str(self.sent)))
                self.sent += 1
        finally:
            self.finished_at = trio.current_time()


class Client:
    """A transport that reads at its own pace, in virtual time, and may go away."""

    def __init__(self, *, pace: float = 0, leaves_after: float = math.inf) -> None:
        self.pace = pace
        self.leaves_after = leaves_after
        self.chunks: list[tuple[float, bytes]] = []

    async def send(self, chunk: bytes) -> None:
        await trio.sleep(self.pace)
        if len(self.chunks) >= self.leaves_after:
            raise trio.BrokenResourceError
        self.chunks.append((trio.current_time(), chunk))

    @property
    def data(self) -> list[str | None]:
        wire = b"".join(chunk for _, chunk in self.chunks)
        return [event.data for event in EventStreamDecoder().feed(wire)]


@asynccontextmanager
async def nothing_left_behind() -> AsyncIterator[None]:
    """Fail unless as many tasks live after the block as before it."""
    before = trio.lowlevel.current_statistics().tasks_living
    yield
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == before


class Broken(Exception):
    pass


def tidies_up_for(seconds: float) -> ProducerFunction:
    """Make a producer whose end takes some time, whatever comes."""

    async def producer(events: Events) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(seconds)

    return producer
