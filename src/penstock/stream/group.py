"""The streams of one server: counted, and ended together when it stops.

A group belongs to whoever opens it, for as long as it likes: `penstock.hypercorn.serve` has one for
each server. It starts no task and holds nothing but references to streams that are open.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import trio

from penstock.close_reason import CloseReason
from penstock.event import ServerSentEvent
from penstock.stream.event_stream import EventStream

__all__ = ["STREAM_GROUP", "StreamGroup", "StreamGroupStatistics"]

# The entry of an ASGI scope's "extensions" in which a server offers the group it ends its streams
# with. Without it a stream is its application's alone, and a stopping server just cancels it.
STREAM_GROUP: Final = "penstock.stream_group"


# Streams that end in a second when there is time for more: their clients are no storm.
_DRAIN_RATE: Final = 100

# Seconds until a drained client comes back at the soonest: the process has to be gone, and another
# to be there.
_LEAST_RETRY: Final = 0.5


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
        self._spread: float | None = None

    def __repr__(self) -> str:
        state = "draining" if self._draining else "serving"
        return f"<StreamGroup {state}, {len(self._open)} open>"

    def statistics(self) -> StreamGroupStatistics:
        """Return the group's figures as they are now."""
        written = [stream.written for stream in self._open]
        return StreamGroupStatistics(
            streams_open=len(written),
            streams_closed=dict(self._closed),
            events_sent=self._events_sent + sum(each.events for each in written),
            bytes_sent=self._bytes_sent + sum(each.bytes for each in written),
            draining=self._draining,
        )

    async def drain(self, *, over: float = 0.0, spread: float | None = None) -> None:
        """End every stream with `CloseReason.DRAINING`, and each that is opened from now on.

        Args:
          over: seconds over which the ends are spread, in random order, so that not all clients
            come back at once. Fewer than 100 streams a second are no storm: then it takes less.
          spread: seconds over which the clients come back after that: each is told to wait for a
            random part of it, and half a second, as its last ``retry:``. None tells them nothing.

        Cancellation:
          A checkpoint between two ends. Cancelled, streams that it has not reached live on, and
          those that are opened from now on end still. It does not wait for streams to be over.
        """
        self._draining = True
        self._spread = spread
        if over <= 0:
            for stream in list(self._open):
                self._end(stream)
            return
        until = trio.current_time() + over
        streams = list(self._open)
        random.shuffle(streams)
        while streams:
            stream = streams.pop()
            if stream in self._open:
                self._end(stream)
                pause = min(1 / _DRAIN_RATE, (until - trio.current_time()) / (len(streams) + 1))
                await trio.sleep(max(0, pause))

    def _end(self, stream: EventStream) -> None:
        final_event = None
        if self._spread is not None:
            seconds = _LEAST_RETRY + random.uniform(0, self._spread)
            final_event = ServerSentEvent(retry=round(seconds * 1000))
        stream.end(CloseReason.DRAINING, final_event)

    def add(self, stream: EventStream) -> None:
        """Count a stream as open, until it is removed."""
        self._open.add(stream)
        if self._draining:
            self._end(stream)

    def remove(self, stream: EventStream) -> None:
        """Count a stream that is over by its reason."""
        self._open.remove(stream)
        figures = stream.statistics()
        if figures.close_reason is not None:
            self._closed[figures.close_reason] += 1
        self._events_sent += figures.events_sent
        self._bytes_sent += figures.bytes_sent
