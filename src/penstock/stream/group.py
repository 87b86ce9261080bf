"""A stream group: counts the streams of one server, and ends them when the server stops.

`penstock.hypercorn.serve` has a group for each server; an application may have others. A group
starts no task, and holds nothing but references to open streams.
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

# The entry of an ASGI scope's "extensions" in which a server offers its group, to end streams in
# order. Streams outside the group are cancelled when the server stops.
STREAM_GROUP: Final = "penstock.stream_group"


# Streams to end per second, at least: this many clients that reconnect are no storm.
_DRAIN_RATE: Final = 100

# Seconds before a drained client reconnects, at least: the process has to exit, and its successor
# to start.
_MIN_RETRY: Final = 0.5


@dataclass(frozen=True, slots=True)
class StreamGroupStatistics:
    """A group's statistics at one moment."""

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
        self._reconnect_spread: float | None = None

    def __repr__(self) -> str:
        state = "draining" if self._draining else "serving"
        return f"<StreamGroup {state}, {len(self._open)} open>"

    def statistics(self) -> StreamGroupStatistics:
        """Return the group's statistics as they are now."""
        written = [stream.written for stream in self._open]
        return StreamGroupStatistics(
            streams_open=len(written),
            streams_closed=dict(self._closed),
            events_sent=self._events_sent + sum(each.events for each in written),
            bytes_sent=self._bytes_sent + sum(each.bytes for each in written),
            draining=self._draining,
        )

    async def drain(self, *, seconds: float = 0.0, reconnect_spread: float | None = None) -> None:
        """End every stream with `CloseReason.DRAINING`, including streams opened from now on.

        Args:
          seconds: the time over which the streams end, in random order, so that not all clients
            reconnect at once. With fewer than 100 streams per second, it takes less time.
          reconnect_spread: seconds over which the clients reconnect after that: the last ``retry:``
            of each is half a second and a random part of this. None sends no ``retry:``.

        Cancellation:
          A checkpoint after each stream if ``seconds`` is above 0; otherwise no checkpoint. If
          cancelled, the remaining streams stay open, and streams opened from now on still end. It
          does not wait for the streams to be closed.
        """
        self._draining = True
        self._reconnect_spread = reconnect_spread
        if seconds <= 0:
            for stream in list(self._open):
                self._end(stream)
            return
        until = trio.current_time() + seconds
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
        if self._reconnect_spread is not None:
            retry = _MIN_RETRY + random.uniform(0, self._reconnect_spread)
            final_event = ServerSentEvent(retry=round(retry * 1000))
        stream.end(CloseReason.DRAINING, final_event)

    def add(self, stream: EventStream) -> None:
        """Count a stream as open, until it is removed."""
        self._open.add(stream)
        if self._draining:
            self._end(stream)

    def remove(self, stream: EventStream) -> None:
        """Count a closed stream by its reason."""
        self._open.remove(stream)
        figures = stream.statistics()
        if figures.close_reason is not None:
            self._closed[figures.close_reason] += 1
        self._events_sent += figures.events_sent
        self._bytes_sent += figures.bytes_sent
