"""Run a producer alone, without a stream, and collect what it sends."""

from __future__ import annotations

from typing import final

import trio

from penstock.event import ServerSentEvent
from penstock.printable import counted
from penstock.stream.producer import Producer, check_producer, not_an_event, start_producer
from penstock.testing.waiting import TimeLimit, default_limit

__all__ = ["collect"]


async def collect(producer: Producer, count: int | None = None) -> list[ServerSentEvent]:
    """Run a producer until it ends or has sent ``count`` events, and return the events.

        assert [event.data for event in await collect(partial(countdown, 2))] == ["2", "1", "0"]
        assert len(await collect(clock, 10)) == 10

    It runs in the calling task, with a channel like a stream's that never makes it wait. To read
    its events while it runs, call it with a channel of `trio.open_memory_channel`.

    Args:
      producer: the producer.
      count: after how many events to cancel it, as when its client disconnects; None waits until it
        ends. If it ends earlier, there are fewer events.

    Raises:
      TypeError: it is not a producer, or sent something that is not an event.
      trio.TooSlowError: it neither ended nor sent another event for 10 seconds of a real clock, or
        two days of a `trio.testing.MockClock`.
      Exception: the producer's own error.

    Cancellation:
      A checkpoint. The producer is cancelled with it.
    """
    check_producer(producer)
    if count is not None and count < 1:
        raise ValueError(f"count must be 1 or more: {count}")
    await trio.lowlevel.checkpoint()
    with TimeLimit(default_limit()) as limit:
        collector = _Collector(count, limit)
        await start_producer(producer, collector)
    if limit.exceeded and not collector.complete:
        wanted = "its end" if count is None else counted(count, "event")
        raise trio.TooSlowError(
            f"the producer {producer!r} sent {counted(len(collector.events), 'event')} and nothing "
            f"more within {limit.seconds:g} s; expected {wanted}"
        )
    return collector.events


@final
class _Collector(trio.abc.SendChannel[ServerSentEvent]):
    """A producer's channel, which keeps the events, and cancels the producer after the last."""

    def __init__(self, count: int | None, limit: TimeLimit) -> None:
        self.events: list[ServerSentEvent] = []
        self._count = count
        self._limit = limit
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
        if self.complete:  # a final event of a producer that is cancelled already
            return
        self.events.append(value)
        self._limit.renew()
        if self.complete:
            self._limit.scope.cancel()

    async def aclose(self) -> None:
        self._closed = True
        await trio.lowlevel.checkpoint()
