"""Writing through: one order and no loss, whichever way an event takes; the close reasons."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from penstock import CloseReason, EventStream, EventStreamDecoder, ServerSentEvent
from penstock.stream.transport import Chunk

Events = trio.abc.SendChannel[ServerSentEvent]

COMMENT = b":\n"


class Server:
    """What a server offers: takes chunks as long as nothing waits, and falls behind at random."""

    def __init__(self, chance: random.Random, *, direct: bool = True) -> None:
        self.chance = chance
        self.wire = b""
        self.waiting = b""
        self.taken = 0
        self.stalled = False
        self.gone = False
        self.direct = direct

    def set_sender(self, send: object) -> None:
        pass

    def try_enable(self) -> bool:
        return self.direct

    def write_nowait(self, chunk: Chunk) -> bool:
        if self.waiting or self.gone:
            return False
        self.taken += 1
        data = chunk.data
        keep = self.chance.choice([len(data), len(data), self.chance.randrange(len(data))])
        self.wire += data[:keep]
        self.waiting = data[keep:]
        return True

    async def send(self, chunk: bytes) -> None:
        self.waiting += chunk
        await trio.sleep(self.chance.choice([0, 0.5]))
        if self.gone:
            raise trio.BrokenResourceError
        self.wire += self.waiting
        self.waiting = b""
        await trio.lowlevel.checkpoint()

    @property
    def data(self) -> list[str | None]:
        return [event.data for event in EventStreamDecoder().feed(self.wire)]


async def write(stream: EventStream, server: Server) -> list[bytes]:
    """Do what a host does: iterate, and write what comes the ordinary way."""
    pulled = []
    async with stream.open(server):
        async for chunk in stream:
            pulled.append(chunk)
            server.wire += chunk
    return pulled


@given(st.integers(0, 2**32), st.integers(0, 3), st.integers(1, 3))
def test_one_order_whichever_way(seed: int, buffer: int, tasks: int) -> None:
    """Each task's events arrive in its order, none lost, none twice, while the client lags."""
    chance = random.Random(seed)
    server = Server(chance)

    async def produce(events: Events) -> None:
        async def send(task: int) -> None:
            for number in range(20):
                await trio.sleep(chance.choice([0, 0, 0.1, 1]))
                await events.send(ServerSentEvent(f"{task} {number}"))

        async with trio.open_nursery() as nursery:
            for task in range(tasks):
                nursery.start_soon(send, task)

    stream = EventStream(produce, buffer=buffer)

    async def main() -> None:
        assert await write(stream, server) == [COMMENT]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    for task in range(tasks):
        mine = [data for data in server.data if data and data.startswith(f"{task} ")]
        assert mine == [f"{task} {number}" for number in range(20)]
    assert len(server.data) == 20 * tasks
    figures = stream.statistics()
    assert figures.events_sent == 20 * tasks
    assert figures.bytes_sent == len(server.wire)
    assert figures.close_reason is CloseReason.FINISHED
    assert server.taken


async def test_a_client_that_keeps_up_is_written_past_the_writer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The producer's own send hands an event to the server."""
    server = Server(random.Random(0))
    seen = []

    async def produce(events: Events) -> None:
        await trio.sleep(1)
        await events.send(ServerSentEvent("now"))
        seen.append(server.taken)

    await write(EventStream(produce), server)
    assert seen == [1]


async def test_where_the_server_declines_every_event_is_pulled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Where direct writes are not possible, the host is given every event, keep-alives included."""
    server = Server(random.Random(0), direct=False)

    async def produce(events: Events) -> None:
        await events.send(ServerSentEvent("a"))

    assert await write(EventStream(produce), server) == [COMMENT, b"data: a\n\n"]
    assert not server.taken


async def test_keep_alive_counts_from_what_was_written_through(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A comment comes after that many seconds of silence, not of the writer's sleep."""
    server = Server(random.Random(1))
    server.chance.choice = lambda options: options[0]  # type: ignore[method-assign,assignment]

    async def produce(events: Events) -> None:
        await trio.sleep(9)
        await events.send(ServerSentEvent("a"))
        await trio.sleep(15)

    stream = EventStream(produce, keep_alive=10)
    await write(stream, server)
    assert server.wire == COMMENT + b"data: a\n\n" + COMMENT
    assert stream.statistics().keep_alives_sent == 1


@pytest.mark.parametrize(
    ("stalled", "reason"), [(True, CloseReason.SLOW), (False, CloseReason.DISCONNECTED)]
)
async def test_who_was_given_up_was_slow(
    stalled: bool, reason: CloseReason, autojump_clock: trio.testing.MockClock
) -> None:
    """The server knows whether the client left or did not read, and the reason says so."""
    server = Server(random.Random(0))

    async def produce(events: Events) -> None:
        await trio.sleep(1)
        server.gone, server.stalled = True, stalled
        await events.send(ServerSentEvent("never"))
        await trio.sleep_forever()

    stream = EventStream(produce)
    await write(stream, server)
    assert stream.close_reason is reason
    assert server.wire == COMMENT


async def test_cancelled_while_it_sends_an_event_is_sent_or_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Send is atomic: cancelled before, nothing was written; there is no cancel after."""
    server = Server(random.Random(1))
    outcome = []

    async def produce(events: Events) -> None:
        await trio.sleep(1)
        with trio.CancelScope() as scope:
            scope.cancel()
            await events.send(ServerSentEvent("a"))
        outcome.append(scope.cancelled_caught)

    await write(EventStream(produce), server)
    assert outcome == [True]
    assert server.wire == COMMENT


@pytest.mark.parametrize("through", [True, False])
async def test_a_farewell_comes_last(through: bool, autojump_clock: trio.testing.MockClock) -> None:
    """What the stream is ended with is written behind all that was sent, and is no event."""
    server = Server(random.Random(0), direct=through)

    async def produce(events: Events) -> None:
        await events.send(ServerSentEvent("a"))
        await trio.sleep_forever()

    stream = EventStream(produce)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, stream, server)
        await trio.sleep(5)
        stream.end(CloseReason.DRAINING, ServerSentEvent(retry=7))
        stream.end(CloseReason.KICKED, ServerSentEvent(retry=8))
    assert server.wire == COMMENT + b"data: a\n\nretry: 7\n"
    assert stream.statistics().events_sent == 1
    assert stream.close_reason is CloseReason.DRAINING
