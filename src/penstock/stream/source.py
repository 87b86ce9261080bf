"""The source of an event stream: a producer's channel, or a subscription to a hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, TypeGuard

from penstock.close_reason import CloseReason, ProducerState
from penstock.stream.transport import DirectWriter

__all__ = ["COMMENT", "SetCloseReason", "Source", "Tally", "is_source"]

# As the first bytes of a stream, it makes proxies forward the response's head; later it keeps them
# from closing the connection. No blank line follows: a comment needs none, and some clients
# dispatch an empty event for a blank line.
# Spec: #event-stream-interpretation: a line that starts with a colon is ignored.
COMMENT: Final = b":\n"

# Sets the reason why a stream ends, unless one is set, and returns the stream's reason.
SetCloseReason: TypeAlias = Callable[[CloseReason], CloseReason]


@dataclass(slots=True)
class Tally:
    """The events and bytes that were written, or are being written."""

    events: int = 0
    bytes: int = 0
    keep_alives: int = 0

    def add(self, other: Tally) -> None:
        """Add the other tally to this one."""
        self.events += other.events
        self.bytes += other.bytes
        self.keep_alives += other.keep_alives


class Source(Protocol):
    """The events of one stream, in their order.

    Its stream drives it from one task: it asks whether the source is `ready`, and then either takes
    a chunk or waits. The stream adds keep-alive comments, the lifetime, and the first and last
    bytes, whatever the source.
    """

    @property
    def written(self) -> Tally:
        """All that was written: the source counts its direct writes here, the stream the rest."""
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
        """Whether nothing follows the events that are ready."""
        ...

    @property
    def expired(self) -> bool:
        """Whether the source's work was cancelled at the deadline, or by `end`."""
        ...

    async def start(self, name: str, deadline: float, set_close_reason: SetCloseReason) -> None:
        """Begin to work for a stream, which calls `stop` from the same task.

        Args:
          name: the stream's name.
          deadline: the Trio time at which the stream's lifetime ends; the source's work is
            cancelled then.
          set_close_reason: called when the source ends the stream.

        Cancellation:
          Not a checkpoint.
        """
        ...

    async def stop(self, *exc_info: Any) -> bool | None:
        """Cancel the source's remaining work, and wait for its end.

        Args:
          exc_info: the arguments of ``__aexit__`` of the stream's block.

        Returns:
          As ``__aexit__`` does.
        """
        ...

    async def ready(self) -> bool:
        """Return whether there is something to `take`, after reading the log if necessary.

        Cancellation:
          May be a checkpoint. If cancelled, nothing is lost, and it can be called again.
        """
        ...

    async def wait(self, direct: DirectWriter | None) -> None:
        """Wait until `ready` or `ended` may have changed.

        Args:
          direct: the client's direct writer, if everything before was written: the source may
            write events to it meanwhile.

        Cancellation:
          A checkpoint. If cancelled, nothing is lost.
        """
        ...

    def take(self, tally: Tally) -> bytes:
        """Take everything that is ready, as one chunk.

        Args:
          tally: counts the events in the chunk.

        Cancellation:
          Synchronous, no checkpoint.
        """
        ...

    def end(self, reason: CloseReason) -> None:
        """Stop working; events that are ready can still be taken. Synchronous, no checkpoint."""
        ...

    def claim(self) -> None:
        """Reserve the source for one stream. Synchronous.

        Raises:
          RuntimeError: the source was claimed before.
        """
        ...

    async def locate(self) -> str | None:
        """Return the id after which the stream resumes, for the response's head, or None.

        Calling it is optional.

        Cancellation:
          May be a checkpoint. If cancelled, nothing changes.
        """
        ...


def is_source(value: object) -> TypeGuard[Source]:
    """Return whether a value is a source, such as a subscription, and not a producer."""
    return not callable(value) and hasattr(value, "claim")
