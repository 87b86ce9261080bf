"""Send buffers: the bytes of HTTP/2 streams that wait for the client to open its window.

Replaces `StreamBuffer` of Hypercorn 0.18.0, `hypercorn/protocol/h2.py`, whose `pop` let the writer
continue after any small amount had been popped, so that a closed window took gigabytes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final, final

from hypercorn.protocol.h2 import BufferCompleteError

__all__ = ["SendBuffer", "SendBuffers"]

# Buffered bytes at which the writer waits, and below which it continues: two frames and one, as in
# Hypercorn.
_HIGH_WATER: Final = 2 * 2**14
_LOW_WATER: Final = 2**14


@final
class SendBuffer:
    """One stream's bytes with their deadlines; constructed like Hypercorn's `StreamBuffer`."""

    def __init__(self, event_class: Any) -> None:
        self.buffer: bytearray = bytearray()
        self._event = event_class
        self._pieces: deque[tuple[int, float]] = deque()  # the end and the deadline of each
        self._pushed = 0
        self._popped = 0
        self._complete = False
        self._closed = False
        self._changed: Any = None

    @property
    def complete(self) -> bool:
        """Whether everything was popped, and nothing follows."""
        return self._complete and not self.buffer

    @property
    def deadline(self) -> float:
        """When the oldest byte has waited too long; infinity if nothing waits."""
        return self._pieces[0][1] if self._pieces else math.inf

    async def push(self, data: bytes, deadline: float = math.inf) -> None:
        """Add bytes, and wait while the buffer is too full.

        Raises:
          BufferCompleteError: the stream is complete or closed.

        Cancellation:
          A checkpoint if it waits. The bytes are sent even if it is cancelled.
        """
        self.push_nowait(data, deadline)
        if len(self.buffer) >= _HIGH_WATER:
            while len(self.buffer) >= _LOW_WATER:
                await self._change()

    def push_nowait(self, data: bytes, deadline: float) -> None:
        """Add bytes, however full the buffer is.

        Raises:
          BufferCompleteError: the stream is complete or closed.
        """
        if self._complete:
            raise BufferCompleteError
        self.buffer += data
        self._pushed += len(data)
        self._pieces.append((self._pushed, deadline))

    async def drain(self) -> None:
        """Wait until the buffer is empty."""
        while self.buffer:
            await self._change()

    @property
    def ending(self) -> bool:
        """Whether nothing follows the buffered bytes, and their end has not been sent."""
        return self._complete and not self._closed

    def set_complete(self) -> None:
        """Record that nothing follows."""
        self._complete = True

    def extend_deadlines(self, move: Callable[[float], float]) -> None:
        """Extend the deadlines of the buffered bytes."""
        self._pieces = deque((end, move(deadline)) for end, deadline in self._pieces)

    async def finish(self) -> None:
        """Record that nothing follows, and wait until the end of the stream has been sent."""
        self._complete = True
        while not self._closed:
            await self._change()

    async def pop(self, max_length: int) -> bytes:
        """Remove and return at most this many bytes. Not a checkpoint."""
        data = bytes(self.buffer[:max_length])
        del self.buffer[: len(data)]
        self._popped += len(data)
        while self._pieces and self._pieces[0][0] <= self._popped:
            self._pieces.popleft()
        await self._notify()
        return data

    async def close(self) -> None:
        """Discard the buffered bytes, and wake every waiting task. Not a checkpoint."""
        self._complete = self._closed = True
        self.buffer.clear()
        self._pieces.clear()
        await self._notify()

    async def _change(self) -> None:
        if self._changed is None:
            self._changed = self._event()
        await self._changed.wait()

    async def _notify(self) -> None:
        if self._changed is not None:
            changed, self._changed = self._changed, None
            await changed.set()


@final
class SendBuffers(dict[int, SendBuffer]):
    """Replaces the dict in which `H2Protocol` keeps its buffers: any item set is a `SendBuffer`."""

    def __init__(self, event_class: Any) -> None:
        super().__init__()
        self._event = event_class

    def __setitem__(self, stream_id: int, buffer: object) -> None:
        super().__setitem__(stream_id, SendBuffer(self._event))

    def add(self, stream_id: int) -> None:
        """Add a buffer for a stream."""
        self[stream_id] = SendBuffer(self._event)
