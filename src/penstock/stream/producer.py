"""What a producer is, the end of the channel that it is given, and how it runs for a stream.

A producer is an async function that takes a Trio send channel. It knows nothing of Penstock but the
events it sends, and is tested with `trio.open_memory_channel` and no server.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias, final

import trio

from penstock.event import ServerSentEvent
from penstock.outcome import CloseReason, ProducerState
from penstock.stream.channel import StreamChannel
from penstock.stream.feed import COMMENT, Conclude

__all__ = [
    "EventSender",
    "Producer",
    "ProducerFeed",
    "check_producer",
    "log_failure",
    "not_an_event",
    "start_producer",
]

_logger = logging.getLogger(__name__)

Producer: TypeAlias = Callable[[trio.abc.SendChannel[ServerSentEvent]], Awaitable[None]]


def check_producer(producer: object) -> None:
    """Refuse what can be seen to be no producer before it is called.

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


def not_an_event(value: object) -> TypeError:
    """Return the error for what a producer sends that is no event."""
    return TypeError(
        f"a producer sends ServerSentEvent objects, not {type(value).__name__}: "
        "send(ServerSentEvent(…))"
    )


def start_producer(
    producer: Producer, events: trio.abc.SendChannel[ServerSentEvent]
) -> Awaitable[None]:
    """Call a producer, and return what there is to await.

    Raises:
      TypeError: it is no async function, and returned what cannot be awaited.
    """
    running = producer(events)
    if not inspect.isawaitable(running):
        raise TypeError(
            f"the producer {producer!r} returned {type(running).__name__} and nothing to await: "
            "define it with `async def`"
        )
    return running


def log_failure(name: str, errors: BaseExceptionGroup[Exception]) -> None:
    """Log once, with its traceback, what a producer raised and an `except*` caught."""
    # `except*` puts an error that came alone into a group without a message.
    alone = not errors.message and len(errors.exceptions) == 1
    error = errors.exceptions[0] if alone else errors
    _logger.error("%s: the producer failed", name, exc_info=error)


@final
class EventSender(trio.abc.SendChannel[ServerSentEvent]):
    """A producer's end of the channel: refuses, in the producer's own task, what is no event."""

    __slots__ = ("_channel",)

    def __init__(self, channel: StreamChannel) -> None:
        self._channel = channel

    async def send(self, value: ServerSentEvent) -> None:
        """Send an event, waiting while the client is a buffer's length behind.

        Raises:
          TypeError: this is no `ServerSentEvent`.
          trio.ClosedResourceError: the producer has closed its channel, or has returned.

        Cancellation:
          A checkpoint. Atomic: when it is cancelled, the event was not sent.
        """
        if not isinstance(value, ServerSentEvent):
            raise not_an_event(value)
        await self._channel.send(value)

    async def aclose(self) -> None:
        """Close the channel: the stream is finished when what was sent is written.

        The producer may go on, to tidy up briefly: the response ends when it has returned, and
        nothing is written until then, not even to keep it alive. What ends a stream, a disconnect
        say, cancels it still.

        Cancellation:
          A checkpoint; the channel is closed even when it is cancelled.
        """
        self._channel.close()
        await trio.lowlevel.checkpoint()


@final
class ProducerFeed(StreamChannel):
    """A `penstock.stream.feed.Feed`: a producer that runs for one stream, and its channel.

    Args:
      producer: what runs.
      buffer: how many events it may be ahead of the writer.
      keep_alive: seconds of silence after which the writer is given a comment.
      max_lifetime: seconds after which it is cancelled.
    """

    __slots__ = ("_max_lifetime", "_producer", "_scope", "state")

    greeting: Final = COMMENT

    def __init__(
        self, producer: Producer, *, buffer: int, keep_alive: float, max_lifetime: float
    ) -> None:
        super().__init__(buffer, keep_alive)
        self._producer = producer
        self._max_lifetime = max_lifetime
        self._scope = trio.CancelScope()
        self.state: ProducerState = ProducerState.WAITING

    @property
    def expired(self) -> bool:
        """Whether its lifetime is over, or `end` was called."""
        return self._scope.cancel_called

    def end(self) -> None:
        """Cancel the producer."""
        self._scope.cancel()

    @asynccontextmanager
    async def running(self, name: str, conclude: Conclude) -> AsyncIterator[None]:
        """Run the producer in a task of its own; see `Feed.running`."""
        self._scope.deadline = trio.current_time() + self._max_lifetime
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._produce, name, conclude, name=f"producer of {name}")
                try:
                    yield
                finally:
                    # Left before the end: cancelled, or by a writer that could not write.
                    if conclude(CloseReason.DISCONNECTED) is not CloseReason.FINISHED:
                        nursery.cancel_scope.cancel()
        finally:
            self.abandon()

    async def _produce(self, name: str, conclude: Conclude) -> None:
        """Run the producer in its scope; close its channel, and note what ended it."""
        self.state = ProducerState.RUNNING
        try:
            with self._scope:
                # One that is to end before it began, because the server drains or its lifetime is
                # over, is not called at all.
                await trio.lowlevel.checkpoint_if_cancelled()
                await start_producer(self._producer, EventSender(self))
                self.state = ProducerState.RETURNED
        except* Exception as errors:
            self.state = ProducerState.FAILED
            log_failure(name, errors)
        finally:
            if self.state is ProducerState.RUNNING:
                self.state = ProducerState.CANCELLED
            if self.state is not ProducerState.RETURNED:
                # Where all that is round it was cancelled, that is the cause: no client.
                gone = trio.current_effective_deadline() == -math.inf
                conclude(CloseReason.DISCONNECTED if gone else CloseReason.FAILED)
            self.close()
