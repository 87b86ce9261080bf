"""What a stream takes its bytes from, and what works for it meanwhile.

There are two: a producer of the stream's own (`penstock.stream.producer`), and a subscription to a
hub (`penstock.hub.feed`). To a stream they are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, runtime_checkable

from penstock.outcome import CloseReason, ProducerState
from penstock.stream.transport import WriteThrough

__all__ = ["COMMENT", "Conclude", "Feed", "Source", "Tally"]

# As first bytes it makes proxies pass the response's head on; later it keeps them from closing. No
# blank line follows: a comment needs none, and some clients dispatch an empty event for one.
# Spec: #event-stream-interpretation: a line that starts with a colon is ignored.
COMMENT: Final = b":\n"

# Notes why a stream ends, unless there is an earlier cause, and returns the reason that counts.
Conclude: TypeAlias = Callable[[CloseReason], CloseReason]


@dataclass(slots=True)
class Tally:
    """What was written, or will have been when the writer comes back."""

    events: int = 0
    bytes: int = 0
    keep_alives: int = 0

    def add(self, other: Tally) -> None:
        """Count what the other has counted."""
        self.events += other.events
        self.bytes += other.bytes
        self.keep_alives += other.keep_alives


class Feed(Protocol):
    """Where one stream's bytes come from."""

    written: Tally
    """What was written; what goes through is counted here by the feed, the rest by the stream."""

    farewell: bytes | None
    """What is taken last, behind all events."""

    @property
    def greeting(self) -> bytes:
        """What a stream begins with, once it is running."""
        ...

    @property
    def waiting(self) -> int:
        """How many events wait for the writer."""
        ...

    @property
    def state(self) -> ProducerState | None:
        """What the producer is doing, or how it ended; None where the stream has none."""
        ...

    @property
    def expired(self) -> bool:
        """Whether the greatest lifetime is over, or `end` was called."""
        ...

    def running(self, name: str, conclude: Conclude) -> AbstractAsyncContextManager[None]:
        """Have it work while the block runs; entering is no checkpoint, and raises nothing.

        Args:
          name: the stream's.
          conclude: to be called when something ends the stream.
        """
        ...

    def write_through(self, through: WriteThrough) -> None:
        """From now on, hand events to the server directly while the writer is waiting."""
        ...

    async def take(self, tally: Tally) -> bytes:
        """Return what is to be written next: what waits as one chunk, or a comment.

        Args:
          tally: is given what the chunk holds.

        Raises:
          trio.EndOfChannel: it has ended, and all was taken.

        Cancellation:
          A checkpoint. Atomic: either bytes are returned or nothing was taken.
        """
        ...

    def end(self) -> None:
        """Work no more: what waits can still be taken, and behind it the farewell. Synchronous."""
        ...


@runtime_checkable
class Source(Protocol):
    """What can be made a stream of beside a producer: a subscription."""

    def feed(self, *, keep_alive: float, max_lifetime: float) -> Feed:
        """Return the feed for its one stream; times are in seconds, and may be infinite."""
        ...

    async def locate(self) -> str | None:
        """Return the id after which the stream will go on, for the response's head, or None.

        Cancellation:
          May be a checkpoint. Cancelled, or left out, nothing changes.
        """
        ...
