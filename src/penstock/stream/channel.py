"""The bounded channel between a stream's producer and its writer, and the way past it.

A client that keeps up has its events written through: the producer's own `send` hands them to the
server, and the writer sleeps. As soon as one is not taken, because bytes wait in front of it, it
goes into the channel, and so does all that follows, until the writer has emptied it. So there is
one order, whichever way an event took.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import trio

from penstock.event import ServerSentEvent
from penstock.stream.feed import COMMENT, Tally
from penstock.stream.transport import Chunk, WriteThrough

__all__ = ["StreamChannel"]

# Events that one producer may write through before other tasks get their turn: a turn of the
# scheduler costs as much as making an event. A producer that waits for other things gives way
# there.
_TURNS: Final = 8

_Memory: TypeAlias = tuple[
    trio.MemorySendChannel[ServerSentEvent], trio.MemoryReceiveChannel[ServerSentEvent]
]


class StreamChannel:
    """Events from one producer, whose tasks may be several, to one writer.

    Args:
      buffer: how many events may wait; with 0 each send waits for the writer.
      keep_alive: seconds of silence after which the writer is given a comment.
    """

    __slots__ = (
        *("_at", "_buffer", "_called", "_closed", "_free", "_keep_alive", "_memory"),
        *("_through", "_turn", "farewell", "written"),
    )

    def __init__(self, buffer: int, keep_alive: float) -> None:
        self._buffer = buffer
        self._keep_alive = keep_alive
        self._through: WriteThrough | None = None
        self._free = False  # the writer waits, and neither it nor the channel has anything
        self._at = 0.0  # when something was last written through
        self._turn = 0
        self._closed = False
        self._memory: _Memory | None = None  # opened when something has to wait
        self._called: trio.Event | None = None  # what the writer waits for until then
        self.written: Tally = Tally()
        self.farewell: bytes | None = None  # what is written last, behind all events

    @property
    def waiting(self) -> int:
        """How many events wait in the channel."""
        return self._memory[1].statistics().current_buffer_used if self._memory else 0

    def write_through(self, through: WriteThrough) -> None:
        """From now on, hand events to the server directly while the writer is waiting."""
        self._through = through

    def close(self) -> None:
        """Close the producer's end: what waits can still be taken."""
        self._closed, self._free = True, False
        if self._memory is not None:
            self._memory[0].close()
        elif self._called is not None:
            self._called.set()

    def abandon(self) -> None:
        """Close the writer's end: nobody takes anything any more."""
        self._free = False
        self._open()[1].close()

    async def send(self, event: ServerSentEvent) -> None:
        """Write an event through, or put it into the channel, waiting while that is full.

        Raises:
          trio.ClosedResourceError: the producer's end was closed.
          trio.BrokenResourceError: the writer's was.

        Cancellation:
          A checkpoint. Atomic: when it is cancelled, the event was not sent. Where it is written
          through, other tasks get their turn at every eighth event only.
        """
        if self._free and self._through is not None:
            await trio.lowlevel.checkpoint_if_cancelled()
            chunk = Chunk(event.encode())
            if self._through.write_nowait(chunk):
                self.written.events += event.data is not None
                self.written.bytes += len(chunk.data)
                self._at = trio.current_time()
                self._turn += 1
                if self._turn % _TURNS == 0:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                return
            self._free = False
        await self._open()[0].send(event)

    async def take(self, tally: Tally) -> bytes:
        """Return what is to be written next; see `penstock.stream.feed.Feed.take`."""
        silent_since = trio.current_time()
        while True:
            deadline = max(self._at, silent_since) + self._keep_alive
            with trio.CancelScope(deadline=deadline) as silence:
                try:
                    event = await self._receive()
                except trio.EndOfChannel:
                    if self.farewell is None:
                        raise
                    chunk, self.farewell = self.farewell, None
                    tally.bytes = len(chunk)
                    return chunk
                return self._with_all_that_waits(event, tally)
            if silence.cancelled_caught and self._at + self._keep_alive <= trio.current_time():
                tally.keep_alives = 1
                tally.bytes = len(COMMENT)
                return COMMENT

    async def _receive(self) -> ServerSentEvent:
        """Wait for an event; meanwhile, others are written through."""
        try:
            if self._memory is None and not self._closed:
                self._free = True
                self._called = trio.Event()
                await self._called.wait()
            memory = self._open()
            ahead = memory[1].statistics()
            self._free = not (ahead.current_buffer_used or ahead.tasks_waiting_send)
            return await memory[1].receive()
        finally:
            self._free = False

    def _open(self) -> _Memory:
        """Return the memory channel: a client that keeps up never needs it."""
        if self._memory is None:
            self._memory = trio.open_memory_channel[ServerSentEvent](self._buffer)
            if self._closed:
                self._memory[0].close()
            if self._called is not None:
                self._called.set()
        return self._memory

    def _with_all_that_waits(self, event: ServerSentEvent, tally: Tally) -> bytes:
        """Join an event with those behind it: one write, however many events."""
        chunks = []
        try:
            while True:
                chunks.append(event.encode())
                tally.events += event.data is not None
                event = self._open()[1].receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel):
            chunk = b"".join(chunks)
            tally.bytes = len(chunk)
            return chunk
