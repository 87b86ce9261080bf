"""Turns: how the readers of all connections share the event loop fairly.

Rule 1: a reader handles its input in time slices, whatever the input is: between two units of work
(a frame, a chunk, a fragment) it looks at the clock.

Rule 2: a reader whose slice is spent queues for a lock with all other such readers. One of them
runs in each turn of the scheduler, so fifty floods cost the other tasks no more than one does.

A small amount of work needs no queueing. This allowance refills at a small share of real time: a
client that requests a page has it again before its next request; a flood does not, however it is
cut into packets.
"""

from __future__ import annotations

from time import perf_counter
from typing import Final, Protocol, final

import trio

from penstock.hypercorn.wire.incoming import MAX_AHEAD, IncomingBytes, PeerClosed

__all__ = ["FlowControl", "Turn"]

# Seconds of work before other tasks run. An event takes about three turns of the scheduler from its
# producer to the socket, and the longest unit of work (a header block of 32 KiB) takes 15 ms.
_SLICE: Final = 0.002

# Seconds of work that a reader may do without queueing: what a request or two take. Fifty clients
# that begin to flood at the same moment take this much each.
_ALLOWANCE: Final = 0.0005

# How fast the allowance refills: fifty floods use half of the loop's time without queueing.
_REFILL: Final = 0.01


class FlowControl(Protocol):
    """Bounds the bytes that a client may send before its applications receive them."""

    unconsumed: int
    """The size of the messages that no application has received."""

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Record that an application has received a message, so that its client may send more."""
        ...


@final
class Turn:
    """One reader's time slices.

    Args:
      lock: the fair lock for which all readers of one server queue.
      incoming: the connection's bytes; when they end, so does the work.
      flow: work pauses while the connection's applications have too much to receive.
    """

    __slots__ = ("_ends", "_flow", "_holds", "_incoming", "_left", "_lock", "_since")

    def __init__(self, lock: trio.Lock, incoming: IncomingBytes, flow: FlowControl) -> None:
        self._lock = lock
        self._incoming = incoming
        self._flow = flow
        self._holds = False
        self._left = _ALLOWANCE
        self._since = self._ends = perf_counter()

    def begin(self) -> None:
        """Start the clock: the reader has input to handle."""
        now = perf_counter()
        if self._left < _ALLOWANCE:
            self._left = min(_ALLOWANCE, self._left + (now - self._since) * _REFILL)
        self._ends = now + self._left

    def end(self) -> None:
        """Stop the clock and let the next queued reader run; this one waits for its client."""
        self._since = perf_counter()
        self._left = self._ends - self._since
        if self._holds:
            self._holds = False
            self._lock.release()

    @property
    def due(self) -> bool:
        """Whether the reader must call `next` before it continues."""
        return (
            perf_counter() >= self._ends
            or self._incoming.stopped
            or self._flow.unconsumed > MAX_AHEAD
        )

    async def next(self) -> None:
        """Let other tasks run, and wait until it is this reader's turn again.

        Raises:
          PeerClosed: the connection is over, or closing.

        Cancellation:
          A checkpoint if the slice is spent, or if an application has to receive something first.
        """
        self.end()
        while self._flow.unconsumed > MAX_AHEAD and not self._incoming.stopped:
            await self._incoming.watch()
        if self._left <= 0 and not self._incoming.stopped:
            await self._lock.acquire()
            self._holds = True
            self._left = _SLICE
            self._since = perf_counter()
        self.begin()
        if self._incoming.stopped:
            raise PeerClosed
