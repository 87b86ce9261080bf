"""A subscription as a stream: what it writes, to whom, in which pieces, and when it stalls."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from hub_fakes import Server, SlowHistory, events_of
from hub_steps import Clock, prompt_hub
from penstock import CloseReason, EventStream, ServerSentEvent
from penstock.logs.memory import MemoryLog
from penstock.stream.source import COMMENT
from subscription_steps import gap, interrupted, numbers, position_id, streaming, strings


async def test_a_stream_begins_with_where_to_go_on(autojump_clock: Clock) -> None:
    """Who loses the connection before the first event misses none, then."""
    async with prompt_hub() as hub:
        server = Server()
        async with streaming(hub, server, retry=5000):
            await trio.sleep(1)
            retry, position = ServerSentEvent(retry=5000), ServerSentEvent(id=position_id(hub, 0))
            assert server.wire == COMMENT + retry.encode() + position.encode()
        await numbers(hub, range(3))
        await trio.sleep(1)
        for requested, begins in (
            (None, COMMENT + f"id: {position_id(hub, 3)}\n\n".encode()),
            ("0", COMMENT + b"id: 1\ndata: 1\n\nid: 2\ndata: 2\n\n"),
            ("x", COMMENT + gap("x", position_id(hub, 3)).encode()),
            ("earliest", COMMENT + b"".join(b"id: %d\ndata: %d\n\n" % (n, n) for n in range(3))),
        ):
            server = Server()
            async with streaming(hub, server, last_event_id=requested):
                await trio.sleep(1)
                assert server.wire == begins


async def test_a_client_that_keeps_up_is_written_to_by_the_dispatcher(
    autojump_clock: Clock,
) -> None:
    """Nothing waits, and the figures are those of what was written."""
    async with prompt_hub() as hub:
        server = Server()
        async with streaming(hub, server) as (stream, subscription):
            await trio.sleep(1)
            await numbers(hub, range(7))
            await trio.sleep(1)
            assert server.data == strings(range(7))
            assert server.through >= 1
            figures = stream.statistics()
            assert (figures.events_sent, figures.bytes_sent) == (7, len(server.wire))
            assert figures.events_buffered == subscription.waiting == 0
            assert figures.producer is None
        assert stream.close_reason is CloseReason.DISCONNECTED
        assert hub.statistics().subscriptions_closed == {CloseReason.DISCONNECTED: 1}


async def test_a_client_that_stalls_and_reads_on_has_one_order(autojump_clock: Clock) -> None:
    """Whichever way an event takes, none is lost, none comes twice."""
    async with prompt_hub() as hub:
        server = Server()
        async with streaming(hub, server, last_event_id="earliest") as (stream, _):
            await numbers(hub, range(10))
            await trio.sleep(1)
            for number in range(10, 100, 10):
                server.stop_reading()
                await numbers(hub, range(number, number + 5))
                await trio.sleep(1)
                server.read_on()
                await numbers(hub, range(number + 5, number + 10))
                await trio.sleep(1)
            assert server.data == strings(range(100))
            assert stream.statistics().events_sent == 100
            assert stream.statistics().bytes_sent == len(server.wire)


async def test_a_stream_that_stalls_with_disconnect_ends(autojump_clock: Clock) -> None:
    """It is known at once; reading on, the client has what it was given, and then no more."""
    async with prompt_hub() as hub:
        server = Server()
        async with streaming(hub, server, buffer=5) as (stream, subscription):
            await trio.sleep(1)
            await numbers(hub, range(3))
            await trio.sleep(1)
            server.stop_reading()
            await numbers(hub, range(3, 4))
            await trio.sleep(1)
            await numbers(hub, range(4, 9))
            await trio.sleep(1)
            assert (stream.close_reason, subscription.waiting) == (None, 5)
            await numbers(hub, range(9, 10))
            await trio.sleep(1)
            assert (stream.close_reason, subscription.waiting) == (CloseReason.SLOW, 0)
            figures = hub.statistics()
            assert (figures.subscriptions_open, figures.audiences) == (0, 0)
            server.read_on()
            await trio.sleep(1)
            assert not stream.statistics().open
        assert server.data == strings(range(4))
        assert hub.statistics().subscriptions_closed == {CloseReason.SLOW: 1}


@pytest.mark.parametrize(
    ("overflow", "then"),
    [("drop_oldest", [*strings(range(2)), *strings(range(15, 20))]), ("latest", ["0", "1", "19"])],
)
async def test_a_stream_that_stalls_has_what_its_policy_says(
    overflow: str, then: list[str], autojump_clock: Clock
) -> None:
    """What the server had is read first, then what was kept for the client."""
    async with prompt_hub() as hub:
        server = Server()
        async with streaming(hub, server, overflow=overflow, buffer=5) as (stream, subscription):
            await trio.sleep(1)
            await numbers(hub, range(1))
            await trio.sleep(1)
            server.stop_reading()
            await numbers(hub, range(1, 2))
            await trio.sleep(1)
            await numbers(hub, range(2, 20))
            await trio.sleep(1)
            assert subscription.waiting == len(then) - 2
            server.read_on()
            await trio.sleep(1)
            assert server.data == then
            assert subscription.dropped == 20 - len(then)
            assert stream.close_reason is None


async def test_what_waits_is_written_in_chunks_of_a_size(autojump_clock: Clock) -> None:
    """A client that was behind does not have a copy of all of it made for it at once."""
    async with prompt_hub() as hub:
        chunks: list[int] = []

        class Sink:
            async def send(self, chunk: bytes) -> None:
                chunks.append(len(chunk))
                await trio.sleep(5)

        subscription = hub.subscription(["a"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(EventStream(subscription).run, Sink().send)
            await trio.sleep(1)
            await numbers(hub, range(20), size=20_000)
            await trio.sleep(1000)
            nursery.cancel_scope.cancel()
        assert max(chunks) <= 2**16 + 20_100
        assert sum(chunks) > 20 * 20_000


async def test_keep_alive_after_silence(autojump_clock: Clock) -> None:
    """A comment comes after so many seconds without an event, whichever way that went."""
    async with prompt_hub() as hub:
        server = Server()
        async with streaming(hub, server, keep_alive=10) as (stream, _):
            await trio.sleep(9)
            await numbers(hub, range(1))
            await trio.sleep(9.5)
            begins = COMMENT + f"id: {position_id(hub, 0)}\n\n".encode() + b"id: 0\ndata: 0\n\n"
            assert server.wire == begins
            await trio.sleep(1)
            assert server.wire == begins + COMMENT
            await trio.sleep(20)
            assert stream.statistics().keep_alives_sent == 3
            assert stream.statistics().bytes_sent == len(server.wire)


async def test_no_keep_alive(autojump_clock: Clock) -> None:
    """Where none is wanted, silence is silence."""
    async with prompt_hub() as hub:
        server = Server()
        async with streaming(hub, server, keep_alive=None):
            await trio.sleep(10_000)
            assert server.wire == COMMENT + f"id: {position_id(hub, 0)}\n\n".encode()


async def test_a_stream_that_replays_is_written_page_by_page(autojump_clock: Clock) -> None:
    """Pulled or pushed, a page at a time, and then what is published, in one order."""
    async with prompt_hub(SlowHistory(None, reads=0.1)) as hub:
        await numbers(hub, range(1000))
        for through in (Server(), None):
            server = through or Server()
            stream = EventStream(hub.subscription(["a"], last_event_id="0"))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.run, server.send, through)
                await trio.sleep(0.25)
                newest = hub.statistics().published
                await numbers(hub, range(newest, newest + 9))
                await trio.sleep(5)
                await numbers(hub, range(newest + 9, newest + 10))
                await trio.sleep(1)
                nursery.cancel_scope.cancel()
            assert [int(each.id or "") for each in events_of(server.wire)] == list(
                range(1, newest + 10)
            )


async def test_a_gap_in_the_middle_of_a_stream_tells_the_last_id(autojump_clock: Clock) -> None:
    """A client hears where something is missing, and keeps the id that it has."""
    history = SlowHistory(None, reads=0.1, inner=MemoryLog(count=600))
    async with prompt_hub(history) as hub:
        await numbers(hub, range(600))
        server = Server()
        async with streaming(hub, server, last_event_id="0"):
            await trio.sleep(0.25)
            server.stop_reading()
            await trio.sleep(1)
            await numbers(hub, range(600, 1400))
            await trio.sleep(1)
            server.read_on()
            await trio.sleep(1)
        events = server.events
        (at,) = [index for index, event in enumerate(events) if event.event == "gap"]
        assert events[at] == gap("512")
        ids = [int(event.id or "") for event in events if event.event != "gap"]
        assert ids == [*range(1, at + 1), *range(800, 1400)]


async def test_taking_from_a_stream_is_a_checkpoint(autojump_clock: Clock) -> None:
    """Who has much waiting holds up nobody, even where the host's writing never waits."""
    async with prompt_hub() as hub:
        stream = EventStream(hub.subscription(["a"]))
        async with stream.open():
            await anext(stream)
            await numbers(hub, range(9), size=30_000)
            await trio.sleep(1)
            for _ in range(3):
                with trio.testing.assert_checkpoints():
                    await anext(stream)


@pytest.mark.parametrize("when", ["live", "replay"])
async def test_taking_from_a_stream_is_atomic(when: str, autojump_clock: Clock) -> None:
    """Cancelled at any of its checkpoints, nothing is lost and nothing comes twice."""
    async with prompt_hub(SlowHistory(None, reads=0.01)) as hub, trio.open_nursery() as nursery:
        await numbers(hub, range(600))
        await trio.sleep(1)
        wire = b""
        options: dict[str, Any] = {"last_event_id": "9"} if when == "replay" else {}
        stream = EventStream(hub.subscription(["a"], **options), keep_alive=None)

        async def publisher() -> None:
            for number in range(600, 900, 3):
                await trio.sleep(0.01)
                await numbers(hub, range(number, number + 3))

        async with stream.open():
            nursery.start_soon(publisher)
            tries = 0
            while b"data: 899\n" not in wire:
                wire += await interrupted(stream.__anext__, tries % 4) or b""
                tries += 1
        first = 10 if when == "replay" else 600
        assert [event.data for event in events_of(wire)] == strings(range(first, 900))


@pytest.mark.parametrize("ends", [False, True])
async def test_a_slow_history_keeps_nothing_from_the_stream(
    ends: bool, autojump_clock: Clock
) -> None:
    """While it is read there are keep-alives, and the stream ends when it has to."""
    async with prompt_hub(SlowHistory(None, reads=1000)) as hub:
        await numbers(hub, range(3))
        server = Server()
        options = {"max_lifetime": 50} if ends else {}
        async with streaming(hub, server, last_event_id="0", keep_alive=15, **options) as (
            stream,
            _,
        ):
            await trio.sleep(100)
            assert server.wire == COMMENT * 3  # at 0, 15 and 45: each has twice the time
            assert (stream.close_reason is CloseReason.EXPIRED) == ends
