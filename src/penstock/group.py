"""The streams of one server: counted, and ended together when it stops.

A group belongs to whoever opens it, for as long as it likes: `penstock.hypercorn.serve` has one for
each server. It starts no task and holds nothing but references to streams that are open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, final

from penstock.outcome import CloseReason
from penstock.stream import EventStream

__all__ = ["STREAM_GROUP", "StreamGroup", "StreamGroupStatistics"]

# The entry of an ASGI scope's "extensions" in which a server offers the group it ends its streams
# with. Without it a stream is its application's alone, and a stopping server just cancels it.
STREAM_GROUP: Final = "penstock.stream_group"


@dataclass(frozen=True, slots=True)
class StreamGroupStatistics:
    """A group's figures at one moment."""

    streams_open: int
    """Streams whose block is running."""
    streams_closed: Mapping[CloseReason, int]
    """Streams that have ended, by reason; reasons that did not occur are not in it."""
    events_sent: int
    """Events written by the streams that have ended and those that are open."""
    bytes_sent: int
    """Bytes written by the streams that have ended and those that are open."""
    draining: bool
    """Whether `StreamGroup.drain` was called."""


@final
class StreamGroup:
    """The streams of one server."""

    def __init__(self) -> None:
        self._open: set[EventStream] = set()
        self._closed: Counter[CloseReason] = Counter()
        self._events_sent = 0
        self._bytes_sent = 0
        self._draining = False

    def __repr__(self) -> str:
        state = "draining" if self._draining else "serving"
        return f"<StreamGroup {state}, {len(self._open)} open>"

    def statistics(self) -> StreamGroupStatistics:
        """Return the group's figures as they are now."""
        open_now = [stream.statistics() for stream in self._open]
        return StreamGroupStatistics(
            streams_open=len(open_now),
            streams_closed=dict(self._closed),
            events_sent=self._events_sent + sum(each.events_sent for each in open_now),
            bytes_sent=self._bytes_sent + sum(each.bytes_sent for each in open_now),
            draining=self._draining,
        )

    def drain(self) -> None:
        """End every stream with `CloseReason.DRAINING`, and each that is opened from now on.

        Cancellation:
          Synchronous, no checkpoint. It does not wait for the streams to be over.
        """
        self._draining = True
        for stream in self._open:
            stream.end(CloseReason.DRAINING)

    @contextmanager
    def hold(self, stream: EventStream) -> Iterator[None]:
        """Count a stream as open while the block runs, and by its reason afterwards.

        The stream is opened in the block: its reason is final when it has been left.
        """
        self._open.add(stream)
        if self._draining:
            stream.end(CloseReason.DRAINING)
        try:
            yield
        finally:
            self._open.remove(stream)
            figures = stream.statistics()
            if figures.close_reason is not None:
                self._closed[figures.close_reason] += 1
            self._events_sent += figures.events_sent
            self._bytes_sent += figures.bytes_sent
