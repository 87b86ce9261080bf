"""The source of an event stream: a producer's channel, or a subscription to a hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, TypeAlias, TypeGuard

from penstock.close_reason import CloseReason, ProducerState
from penstock.stream.transport import DirectWriter

__all__ = ["COMMENT", "SetCloseReason", "Source", "Tally", "is_source"]

# As first bytes it makes proxies pass the response's head on; later it keeps them from closing. No
# blank line follows: a comment needs none, and some clients dispatch an empty event for one.
# Spec: #event-stream-interpretation: a line that starts with a colon is ignored.
COMMENT: Final = b":\n"

# Sets why a stream ends, unless there is an earlier cause, and returns the reason that counts.
SetCloseReason: TypeAlias = Callable[[CloseReason], CloseReason]


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


class Source(Protocol):
    """The events of one stream, in their order.

    Its stream drives it from one task: it asks whether the source is `ready`, and then either takes
    a chunk or waits. Keep-alive comments, the lifetime, the first and the last bytes are the
    stream's, whatever the source.
    """

    @property
    def written(self) -> Tally:
        """What was written; the source counts its direct writes here, and the stream the rest."""
        ...

    @property
    def last_direct_write(self) -> float:
        """The Trio time of the last direct write; -inf before the first."""
        ...

    @property
    def preamble(self) -> bytes:
        """The first bytes of the stream, once the source is running."""
        ...

    @property
    def waiting(self) -> int:
        """The number of events that wait for the stream."""
        ...

    @property
    def producer_state(self) -> ProducerState | None:
        """The state of the producer; None where the source has none."""
        ...

    @property
    def ended(self) -> bool:
        """Whether nothing more comes after what is ready."""
        ...

    @property
    def expired(self) -> bool:
        """Whether work of its own was cut off at the deadline."""
        ...

    async def start(self, name: str, deadline: float, set_close_reason: SetCloseReason) -> None:
        """Begin to work for a stream, which calls `stop` from the same task.

        Args:
          name: the stream's.
          deadline: the Trio time at which the stream's lifetime ends; work of the source's own is
            cancelled then.
          set_close_reason: to be called when the source ends the stream.

        Cancellation:
          Not a checkpoint.
        """
        ...

    async def stop(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Cancel what is left of that work, and wait for its end; returns what `__aexit__` does.

        Args:
          exc_type: what leaves the stream's block, with the two others, as `__aexit__` is given it.
          exc_value: see there.
          traceback: see there.
        """
        ...

    async def ready(self) -> bool:
        """Return whether `take` has something; before that, read what has to be read.

        Cancellation:
          May be a checkpoint. Cancelled, nothing is lost, and it can be called again.
        """
        ...

    async def wait(self, direct: DirectWriter | None) -> None:
        """Wait until `ready` or `ended` may have changed.

        Args:
          direct: the client's direct writer, if the client was given everything before: events may
            be written to it meanwhile.

        Cancellation:
          A checkpoint. Cancelled, nothing is lost.
        """
        ...

    def take(self, tally: Tally) -> bytes:
        """Take what is ready, as one chunk.

        Args:
          tally: counts the events in the chunk.

        Cancellation:
          Synchronous, no checkpoint.
        """
        ...

    def end(self, reason: CloseReason) -> None:
        """Stop working: what is ready can still be taken. Synchronous, no checkpoint."""
        ...

    def claim(self) -> None:
        """Belong to one stream. Synchronous.

        Raises:
          RuntimeError: it belongs to one already, or was used otherwise.
        """
        ...

    async def locate(self) -> str | None:
        """Return the id after which the stream will go on, for the response's head, or None.

        Cancellation:
          May be a checkpoint. Cancelled, or left out, nothing changes.
        """
        ...


def is_source(value: object) -> TypeGuard[Source]:
    """Return whether a value is a source, such as a subscription, and not a producer."""
    return not callable(value) and hasattr(value, "claim")
