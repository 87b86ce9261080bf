"""What a producer is, and the end of the channel that it is given.

A producer is an async function that takes a Trio send channel. It knows nothing of Penstock but the
events it sends, and is tested with `trio.open_memory_channel` and no server.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias, final

import trio

from penstock.channel import StreamChannel
from penstock.event import ServerSentEvent

__all__ = ["EventSender", "Producer", "check_producer", "start_producer"]

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
            raise TypeError(
                f"a producer sends ServerSentEvent objects, not {type(value).__name__}: "
                "send(ServerSentEvent(…))"
            )
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
