"""What a producer is, and the end of the channel that it is given.

A producer is an async function that takes a Trio send channel. It knows nothing of Penstock but the
events it sends, and is tested with `trio.open_memory_channel` and no server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias, final

import trio

from penstock.event import ServerSentEvent

__all__ = ["EventSender", "Producer"]

Producer: TypeAlias = Callable[[trio.abc.SendChannel[ServerSentEvent]], Awaitable[None]]


@final
class EventSender(trio.abc.SendChannel[ServerSentEvent]):
    """A producer's end of the channel: refuses, in the producer's own task, what is no event."""

    __slots__ = ("_channel",)

    def __init__(self, channel: trio.MemorySendChannel[ServerSentEvent]) -> None:
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
        """Close the channel: the stream ends when what was sent is written.

        Cancellation:
          A checkpoint; the channel is closed even when it is cancelled.
        """
        await self._channel.aclose()
