"""A producer alone: run, and gone with the call."""

from __future__ import annotations

from typing import final

import trio

from penstock.event import ServerSentEvent
from penstock.stream.producer import Producer, check_producer, not_an_event, start_producer
from penstock.testing.waiting import Patience, longest_wait

__all__ = ["collect"]


async def collect(producer: Producer, count: int | None = None) -> list[ServerSentEvent]:
    """Run a producer until it has ended, or has sent so many events, and return what it sent.

        assert [event.data for event in await collect(partial(countdown, 2))] == ["2", "1", "0"]
        assert len(await collect(clock, 10)) == 10

    It runs in the calling task, and is given a channel as a stream's, in which it never waits. To
    read its events while it runs, give it a channel of `trio.open_memory_channel`.

    Args:
      producer: what runs.
      count: after how many events it is cancelled, as when its client leaves; None waits until it
        ends. When it ends earlier, fewer are returned.

    Raises:
      TypeError: it is no producer, or sent what is no event.
      trio.TooSlowError: it neither ended nor sent another event for 10 seconds of a real clock, or
        two days of a `trio.testing.MockClock`.
      Exception: what the producer raised, as it raised it.

    Cancellation:
      A checkpoint. The producer is cancelled with it.
    """
    check_producer(producer)
    if count is not None and count < 1:
        raise ValueError(f"count must be 1 or more: {count}")
    await trio.lowlevel.checkpoint()
    with Patience(longest_wait()) as patience:
        collector = _Collector(count, patience)
        await start_producer(producer, collector)
    if patience.exhausted and not collector.complete:
        wanted = "its end" if count is None else f"{count} events"
        raise trio.TooSlowError(
            f"the producer {producer!r} sent {len(collector.events)} events, and nothing more "
            f"within {patience.seconds:g} s: not {wanted}"
        )
    return collector.events


@final
class _Collector(trio.abc.SendChannel[ServerSentEvent]):
    """A producer's end of the channel: keeps what is sent, and cancels when it has enough."""

    def __init__(self, count: int | None, patience: Patience) -> None:
        self.events: list[ServerSentEvent] = []
        self._count = count
        self._patience = patience
        self._closed = False

    @property
    def complete(self) -> bool:
        return len(self.events) == self._count

    async def send(self, value: ServerSentEvent) -> None:
        if not isinstance(value, ServerSentEvent):
            raise not_an_event(value)
        if self._closed:
            raise trio.ClosedResourceError
        await trio.lowlevel.checkpoint()
        if self.complete:  # a farewell, of one that is cancelled already
            return
        self.events.append(value)
        self._patience.renew()
        if self.complete:
            self._patience.scope.cancel()

    async def aclose(self) -> None:
        self._closed = True
        await trio.lowlevel.checkpoint()
