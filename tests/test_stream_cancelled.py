"""An EventStream cancelled at every step of its life leaves nothing, and nothing undone."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from penstock import CloseReason, EventStream, ProducerState
from stream_fakes import Client, Events, Producer, nothing_left_behind


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope just before the nth time that any task runs."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.scope = scope
        self.steps_left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.steps_left == 0:
            self.scope.cancel()
        self.steps_left -= 1


@pytest.mark.parametrize("pace", [0, 1, 20])
@pytest.mark.parametrize("buffer", [0, 2])
@pytest.mark.parametrize("lifetime", [None, 5.5])
def test_cancelled_at_every_step(pace: float, buffer: int, lifetime: float | None) -> None:
    """Wherever the cancellation falls: the producer has ended, and what was written is in order."""

    async def once(step: int) -> bool:
        producer, client = Producer(6, pause=1), Client(pace=pace)
        started = False

        async def noticed(events: Events) -> None:
            nonlocal started
            started = True
            await producer(events)

        stream = EventStream(noticed, buffer=buffer, keep_alive=4, max_lifetime=lifetime)
        async with nothing_left_behind():
            with trio.CancelScope() as scope:
                instrument = CancelAtStep(scope, step)
                trio.lowlevel.add_instrument(instrument)
                await stream.run(client.send)
            if instrument.steps_left >= 0:
                trio.lowlevel.remove_instrument(instrument)
        figures = stream.statistics()
        assert not figures.open
        if started:
            assert producer.finished_at is not None
            assert figures.producer in (ProducerState.RETURNED, ProducerState.CANCELLED)
        assert client.data == [str(n) for n in range(len(client.data))]
        assert len(client.data) <= producer.sent + 1
        # Counted is what the transport took and came back from: all, or all but the last chunk.
        assert figures.bytes_sent in (
            sum(len(chunk) for _, chunk in client.chunks),
            sum(len(chunk) for _, chunk in client.chunks[:-1]),
        )
        if scope.cancelled_caught:
            expected = {CloseReason.DISCONNECTED} | ({CloseReason.EXPIRED} if lifetime else set())
            assert figures.close_reason in expected
        elif lifetime is None:
            assert figures.close_reason is CloseReason.FINISHED
            assert len(client.data) == 6
        return scope.cancel_called

    step = 0
    while trio.run(partial(once, step), clock=trio.testing.MockClock(autojump_threshold=0)):
        step += 1
    assert step > 5  # how many there are depends on the order in which Trio runs tasks
