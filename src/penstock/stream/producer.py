"""Producers: the type, the channel that a producer sends to, and the source that runs it.

A producer is an async function that takes a Trio send channel. It needs nothing of Penstock but the
events that it sends, and can be tested with `trio.open_memory_channel` and no server.

Theory of operation: between a producer and its stream is a bounded memory channel. A client that
keeps up does not need it: the producer's `send` writes to the server while the stream waits. If the
server does not take an event, because bytes wait before it, the event goes into the channel, and so
do all later events until the stream has emptied it. So there is one order, whichever path an event
takes.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeAlias, final

import trio

from penstock.close_reason import CloseReason, ProducerState
from penstock.event import ServerSentEvent
from penstock.stream.source import COMMENT, SetCloseReason, Tally
from penstock.stream.transport import Chunk, DirectWriter

__all__ = [
    "Producer",
    "ProducerSource",
    "check_producer",
    "log_failure",
    "not_an_event",
    "start_producer",
]

# Direct writes by one producer before it yields to other tasks: a pass of the scheduler costs as
# much as making an event. A producer that waits for other things yields there.
_WRITES_PER_TURN: Final = 8

_logger = logging.getLogger(__name__)

Producer: TypeAlias = Callable[[trio.abc.SendChannel[ServerSentEvent]], Awaitable[None]]


def check_producer(producer: object) -> Producer:
    """Return a producer, unless it is visibly none before it is called.

    Raises:
      TypeError: it cannot be called, or it is a generator function.
    """
    if not callable(producer):
        raise TypeError(
            "producer must be an async function that takes a send channel, "
            f"not {type(producer).__name__}"
        )
    if inspect.isasyncgenfunction(producer) or inspect.isgeneratorfunction(producer):
        raise TypeError("a producer does not yield its events: await events.send(event)")
    return producer


def not_an_event(value: object) -> TypeError:
    """Return the error for a value that a producer sends and that is no event."""
    return TypeError(
        f"a producer sends ServerSentEvent objects, not {type(value).__name__}: "
        "send(ServerSentEvent(…))"
    )


def start_producer(
    producer: Producer, events: trio.abc.SendChannel[ServerSentEvent]
) -> Awaitable[None]:
    """Call a producer, and return its result, for the caller to await.

    Raises:
      TypeError: it is no async function: it returned something that cannot be awaited.
    """
    running = producer(events)
    if not inspect.isawaitable(running):
        raise TypeError(
            f"the producer {producer!r} returned {type(running).__name__}, which cannot be "
            "awaited: define it with `async def`"
        )
    return running


def log_failure(name: str, errors: BaseExceptionGroup[Exception]) -> None:
    """Log the error that a producer raised and an `except*` caught, once, with its traceback."""
    # `except*` wraps a single error in a group with no message.
    alone = not errors.message and len(errors.exceptions) == 1
    error = errors.exceptions[0] if alone else errors
    _logger.error("%s: the producer failed", name, exc_info=error)


@final
class ProducerSource(trio.abc.SendChannel[ServerSentEvent]):
    """A `penstock.stream.source.Source`: a producer's task, and the channel that it sends to.

    This object is also the send channel that the producer gets.

    Args:
      producer: the producer to run.
      buffer: how many events may wait in the channel; with 0 each send waits for the stream.
    """

    __slots__ = (
        *("_buffer", "_closed", "_direct", "_direct_writes", "_memory", "_nursery_scope"),
        *("_producer", "_running", "_scope", "_set_close_reason", "_wakeup", "last_direct_write"),
        *("producer_state", "written"),
    )

    preamble: Final = COMMENT

    def __init__(self, producer: Producer, buffer: int) -> None:
        self.written: Tally = Tally()
        self.last_direct_write: float = -math.inf
        self.producer_state: ProducerState = ProducerState.WAITING
        self._producer = producer
        self._buffer = buffer
        self._scope = trio.CancelScope()  # the producer's
        # From `start` to `stop`:
        self._running: AbstractAsyncContextManager[trio.Nursery]
        self._nursery_scope: trio.CancelScope
        self._set_close_reason: SetCloseReason
        self._memory: (
            tuple[
                trio.MemorySendChannel[ServerSentEvent], trio.MemoryReceiveChannel[ServerSentEvent]
            ]
            | None
        ) = None  # opened when an event has to wait
        self._closed = False
        self._direct: DirectWriter | None = None  # while the stream waits and has written all
        self._direct_writes = 0
        self._wakeup: trio.Event | None = None

    @property
    def waiting(self) -> int:
        """How many events wait in the channel."""
        return self._memory[1].statistics().current_buffer_used if self._memory else 0

    @property
    def ended(self) -> bool:
        """Whether the send channel is closed."""
        return self._closed

    @property
    def expired(self) -> bool:
        """Whether the producer was cancelled at its deadline, or by `end`."""
        return self._scope.cancel_called

    async def start(self, name: str, deadline: float, set_close_reason: SetCloseReason) -> None:
        """Start the producer's task; see `Source.start`."""
        self._scope.deadline = deadline
        self._set_close_reason = set_close_reason
        self._running = trio.open_nursery()
        nursery = await self._running.__aenter__()
        self._nursery_scope = nursery.cancel_scope
        nursery.start_soon(self._produce, name, name=f"producer of {name}")

    async def stop(self, *exc_info: Any) -> bool | None:
        """Cancel the producer, unless it has finished, and wait for its end; see `Source.stop`."""
        # If nothing has ended the stream, it was cancelled, or its writer could not write.
        if self._set_close_reason(CloseReason.DISCONNECTED) is not CloseReason.FINISHED:
            self._nursery_scope.cancel()
        try:
            # ASYNC102: the nursery's own exit, which waits for the producer: no shield is needed.
            return await self._running.__aexit__(*exc_info)  # noqa: ASYNC102
        finally:
            if self._memory is not None:
                self._memory[1].close()
            # Reference cycles would wait for the cyclic collector.
            del self._running, self._nursery_scope, self._set_close_reason

    def claim(self) -> None:
        """Do nothing: a stream creates its own `ProducerSource`."""

    async def locate(self) -> None:
        """Return None: a producer has no position. Not a checkpoint."""

    async def _produce(self, name: str) -> None:
        """Run the producer in its scope; then close its channel, and set its final state."""
        self.producer_state = ProducerState.RUNNING
        try:
            with self._scope:
                # A producer whose stream has ended already, because the server drains or the
                # lifetime is over, is not called at all.
                await trio.lowlevel.checkpoint_if_cancelled()
                await start_producer(self._producer, self)
                self.producer_state = ProducerState.RETURNED
        except* Exception as errors:
            self.producer_state = ProducerState.FAILED
            log_failure(name, errors)
        finally:
            if self.producer_state is ProducerState.RUNNING:
                self.producer_state = ProducerState.CANCELLED
            if self.producer_state is not ProducerState.RETURNED:
                # If everything around the stream is cancelled, the cause is a disconnect.
                cancelled = trio.current_effective_deadline() == -math.inf
                reason = CloseReason.DISCONNECTED if cancelled else CloseReason.FAILED
                self._set_close_reason(reason)
            self._close()

    def end(self, reason: CloseReason) -> None:
        """Cancel the producer, whatever the reason."""
        self._scope.cancel()

    # As the producer's send channel

    async def send(self, value: ServerSentEvent) -> None:
        """Send an event; wait while the buffer is full.

        Raises:
          TypeError: the value is no `ServerSentEvent`.
          trio.ClosedResourceError: the channel was closed, or the producer has returned.
          trio.BrokenResourceError: the stream has been closed.

        Cancellation:
          A checkpoint. Atomic: if it is cancelled, the event was not sent. Direct writes yield to
          other tasks at every eighth event only.
        """
        if not isinstance(value, ServerSentEvent):
            raise not_an_event(value)
        if self._direct is not None:
            await trio.lowlevel.checkpoint_if_cancelled()
            chunk = Chunk(value.encode())
            if self._direct.write_nowait(chunk):
                self.written.events += value.data is not None
                self.written.bytes += len(chunk.data)
                self.last_direct_write = trio.current_time()
                self._direct_writes += 1
                if self._direct_writes % _WRITES_PER_TURN == 0:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                return
        memory = self._open()
        self._wake()  # before this waits in the channel; the stream's task runs later
        await memory[0].send(value)

    async def aclose(self) -> None:
        """Close the channel: the stream is finished once everything sent is written.

        The producer may continue, for a brief cleanup: the response ends when it has returned, and
        nothing is written until then, not even keep-alive comments. A disconnect, or whatever else
        ends a stream, still cancels it.

        Cancellation:
          A checkpoint; the channel is closed even if cancelled.
        """
        self._close()
        await trio.lowlevel.checkpoint()

    def _close(self) -> None:
        self._closed = True
        if self._memory is not None:
            self._memory[0].close()
        self._wake()

    # As the stream's source

    async def ready(self) -> bool:
        """Return whether an event waits; not a checkpoint. See `Source.ready`."""
        if self._memory is None:
            return False
        figures = self._memory[1].statistics()
        return bool(figures.current_buffer_used or figures.tasks_waiting_send)

    async def wait(self, direct: DirectWriter | None) -> None:
        """Wait for an event, or the end; see `Source.wait`."""
        self._wakeup = trio.Event()
        self._direct = direct
        try:
            await self._wakeup.wait()
        finally:
            self._wakeup = self._direct = None

    def take(self, tally: Tally) -> bytes:
        """Take all events that wait, as one chunk; see `Source.take`."""
        chunks = []
        receive = self._open()[1]
        try:
            while True:
                event = receive.receive_nowait()
                chunks.append(event.encode())
                tally.events += event.data is not None
        except (trio.WouldBlock, trio.EndOfChannel):
            return b"".join(chunks)

    def _wake(self) -> None:
        self._direct = None
        if self._wakeup is not None:
            self._wakeup.set()

    def _open(
        self,
    ) -> tuple[trio.MemorySendChannel[ServerSentEvent], trio.MemoryReceiveChannel[ServerSentEvent]]:
        """Return the memory channel, which is opened for the first event that has to wait."""
        if self._memory is None:
            self._memory = trio.open_memory_channel[ServerSentEvent](self._buffer)
            if self._closed:
                self._memory[0].close()
        return self._memory
