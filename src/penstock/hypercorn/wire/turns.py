"""Fair turns: how the readers of all connections share the event loop.

Rule 1: a reader works off what it has read in slices of time, whatever the bytes say: between two
units of work (a frame, a chunk, a fragment) it looks at the clock.

Rule 2: a reader whose slice is spent waits in one line with all others whose slice is spent. One of
them runs in each turn of the scheduler, so fifty floods cost the other tasks no more than one does.

Little work needs no turn, and that little refills at a small share of real time: a client that asks
for a page has it again before it asks for the next one; a flood, however it is cut into packets,
does not.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Final, Protocol, final

from penstock.hypercorn.wire.incoming import MAX_AHEAD, PeerClosed

if TYPE_CHECKING:
    import trio

    from penstock.hypercorn.wire.incoming import Incoming

__all__ = ["FlowControl", "Turn"]

# Seconds of work before others run. An event takes about three turns of the scheduler from its
# producer to the socket, and the longest unit of work (a header block of 32 KiB) takes 15 ms.
_SLICE: Final = 0.002

# Seconds of work that a reader may do without waiting in line: what a request or two take. Fifty
# clients that begin to flood at one moment take that much, each.
_FRESH: Final = 0.0005

# How fast that refills: of the loop's time, fifty floods have half without waiting in line.
_SHARE: Final = 0.01


class FlowControl(Protocol):
    """What keeps one connection's client from sending more than its applications take."""

    untaken: int
    """What the messages that no application has taken count for."""

    def taken(self, stream_id: int, size: int) -> None:
        """Note that an application has taken a message, so that its client may send more."""
        ...


@final
class Turn:
    """One reader's slices.

    Args:
      line: where the readers of one server wait for their turn; a fair lock.
      incoming: the connection's bytes, whose end ends the work.
      flow: knows what the connection's applications have not taken yet, which pauses the work.
    """

    __slots__ = ("_ends", "_flow", "_holds", "_incoming", "_left", "_line", "_since")

    def __init__(self, line: trio.Lock, incoming: Incoming, flow: FlowControl) -> None:
        self._line = line
        self._incoming = incoming
        self._flow = flow
        self._holds = False
        self._left = _FRESH
        self._since = self._ends = perf_counter()

    def begin(self) -> None:
        """Start the clock: the reader has bytes to work off."""
        now = perf_counter()
        if self._left < _FRESH:
            self._left = min(_FRESH, self._left + (now - self._since) * _SHARE)
        self._ends = now + self._left

    def end(self) -> None:
        """Stop the clock, and let the next reader in line run; this one waits for its client."""
        self._since = perf_counter()
        self._left = self._ends - self._since
        if self._holds:
            self._holds = False
            self._line.release()

    @property
    def due(self) -> bool:
        """Whether the reader has to call `next` before it goes on."""
        return (
            perf_counter() >= self._ends or self._incoming.stopped or self._flow.untaken > MAX_AHEAD
        )

    async def next(self) -> None:
        """Let others run, and wait until it is this reader's turn again.

        Raises:
          PeerClosed: the connection is over, or closing.

        Cancellation:
          A checkpoint if the slice is spent, or an application has to take something first.
        """
        self.end()
        while self._flow.untaken > MAX_AHEAD and not self._incoming.stopped:
            await self._incoming.watch()
        if self._left <= 0 and not self._incoming.stopped:
            await self._line.acquire()
            self._holds = True
            self._left = _SLICE
            self._since = perf_counter()
        self.begin()
        if self._incoming.stopped:
            raise PeerClosed
