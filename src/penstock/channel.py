"""The bounded channel between a stream's producer and its writer, and the way past it.

A client that keeps up has its events written through: the producer's own `send` hands them to the
server, and the writer sleeps. As soon as one is not taken, because bytes wait in front of it, it
goes into the channel, and so does all that follows, until the writer has emptied it. So there is
one order, whichever way an event took.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import trio

from penstock.event import ServerSentEvent
from penstock.transport import WriteThrough

__all__ = ["COMMENT", "StreamChannel", "Tally"]

# As first bytes it makes the browser's `onopen` fire; later it keeps proxies from closing.
COMMENT: Final = b":\n\n"


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


@final
class StreamChannel:
    """Events from one producer, whose tasks may be several, to one writer.

    Args:
      buffer: how many events may wait; with 0 each send waits for the writer.
      keep_alive: seconds of silence after which the writer is given a comment.
    """

    __slots__ = (
        "_at",
        "_free",
        "_keep_alive",
        "_receive",
        "_send",
        "_through",
        "farewell",
        "written",
    )

    def __init__(self, buffer: int, keep_alive: float) -> None:
        self._send, self._receive = trio.open_memory_channel[ServerSentEvent](buffer)
        self._keep_alive = keep_alive
        self._through: WriteThrough | None = None
        self._free = False  # the writer waits, and neither it nor the channel has anything
        self._at = 0.0  # when something was last written through
        self.written = Tally()
        self.farewell: bytes | None = None  # what is written last, behind all events

    @property
    def waiting(self) -> int:
        """How many events wait in the channel."""
        return self._receive.statistics().current_buffer_used

    def write_through(self, through: WriteThrough) -> None:
        """From now on, hand events to the server directly while the writer is waiting."""
        self._through = through

    def close(self) -> None:
        """Close the producer's end: what waits can still be taken."""
        self._send.close()
        self._free = False

    def abandon(self) -> None:
        """Close the writer's end: nobody takes anything any more."""
        self._receive.close()
        self._free = False

    async def send(self, event: ServerSentEvent) -> None:
        """Write an event through, or put it into the channel, waiting while that is full.

        Raises:
          trio.ClosedResourceError: the producer's end was closed.
          trio.BrokenResourceError: the writer's was.

        Cancellation:
          A checkpoint. Atomic: when it is cancelled, the event was not sent.
        """
        if self._free and self._through is not None:
            await trio.lowlevel.checkpoint_if_cancelled()
            chunk = event.encode()
            if self._through.write_nowait(chunk):
                self.written.events += event.data is not None
                self.written.bytes += len(chunk)
                self._at = trio.current_time()
                await trio.lowlevel.cancel_shielded_checkpoint()
                return
            self._free = False
        await self._send.send(event)

    async def take(self, tally: Tally) -> bytes:
        """Return what is to be written next: all that waits as one chunk, or a comment.

        Behind the last event comes the farewell, once.

        Args:
          tally: is given what the chunk holds.

        Raises:
          trio.EndOfChannel: the producer's end is closed and all was taken.

        Cancellation:
          A checkpoint. Atomic: either bytes are returned or nothing was taken.
        """
        silent_since = trio.current_time()
        while True:
            deadline = max(self._at, silent_since) + self._keep_alive
            with trio.CancelScope(deadline=deadline) as silence:
                ahead = self._receive.statistics()
                self._free = not (ahead.current_buffer_used or ahead.tasks_waiting_send)
                try:
                    event = await self._receive.receive()
                except trio.EndOfChannel:
                    if self.farewell is None:
                        raise
                    chunk, self.farewell = self.farewell, None
                    tally.bytes = len(chunk)
                    return chunk
                finally:
                    self._free = False
                return self._with_all_that_waits(event, tally)
            if silence.cancelled_caught and self._at + self._keep_alive <= trio.current_time():
                tally.keep_alives = 1
                tally.bytes = len(COMMENT)
                return COMMENT

    def _with_all_that_waits(self, event: ServerSentEvent, tally: Tally) -> bytes:
        """Join an event with those behind it: one write, however many events."""
        chunks = []
        try:
            while True:
                chunks.append(event.encode())
                tally.events += event.data is not None
                event = self._receive.receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel):
            chunk = b"".join(chunks)
            tally.bytes = len(chunk)
            return chunk
