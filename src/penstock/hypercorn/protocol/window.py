"""The bytes of one HTTP/2 stream that wait for the client to open its window.

Replaces `StreamBuffer` of Hypercorn 0.18.0, `hypercorn/protocol/h2.py`, whose `pop` let the writer
go on whenever little had been popped, so that a closed window took gigabytes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final, final

from hypercorn.protocol.h2 import BufferCompleteError

__all__ = ["Window", "Windows"]

# Bytes that wait before who writes them waits, too; and how far they must have gone before it goes
# on. Hypercorn's own figures: two frames and one.
_HIGH_WATER: Final = 2 * 2**14
_LOW_WATER: Final = 2**14


@final
class Window:
    """One stream's bytes, each with a deadline; made like Hypercorn's `StreamBuffer`."""

    def __init__(self, event_class: Any) -> None:
        self.buffer: bytearray = bytearray()
        self._event = event_class
        self._pieces: deque[tuple[int, float]] = deque()  # where each ends, and its deadline
        self._pushed = 0
        self._popped = 0
        self._complete = False
        self._closed = False
        self._changed: Any = None

    @property
    def complete(self) -> bool:
        """Whether all was popped, and nothing follows."""
        return self._complete and not self.buffer

    @property
    def deadline(self) -> float:
        """When the oldest byte has waited too long."""
        return self._pieces[0][1] if self._pieces else math.inf

    async def push(self, data: bytes, deadline: float = math.inf) -> None:
        """Add bytes, and wait while too many wait.

        Raises:
          BufferCompleteError: the stream was closed before.

        Cancellation:
          A checkpoint if it waits. The bytes are sent even when it is cancelled.
        """
        self.push_nowait(data, deadline)
        if len(self.buffer) >= _HIGH_WATER:
            while len(self.buffer) >= _LOW_WATER:
                await self._change()

    def push_nowait(self, data: bytes, deadline: float) -> None:
        """Add bytes, however many wait.

        Raises:
          BufferCompleteError: the stream was closed before.
        """
        if self._complete:
            raise BufferCompleteError
        self.buffer += data
        self._pushed += len(data)
        self._pieces.append((self._pushed, deadline))

    async def drain(self) -> None:
        """Wait until nothing waits."""
        while self.buffer:
            await self._change()

    @property
    def ending(self) -> bool:
        """Whether nothing follows what waits."""
        return self._complete and not self._closed

    def set_complete(self) -> None:
        """Note that nothing follows."""
        self._complete = True

    def postpone(self, move: Callable[[float], float]) -> None:
        """Move the deadlines of what waits."""
        self._pieces = deque((end, move(deadline)) for end, deadline in self._pieces)

    async def finish(self) -> None:
        """Note that nothing follows, and wait until the end of the stream was sent."""
        self._complete = True
        while not self._closed:
            await self._change()

    async def pop(self, max_length: int) -> bytes:
        """Take at most so many bytes. Not a checkpoint."""
        data = bytes(self.buffer[:max_length])
        del self.buffer[: len(data)]
        self._popped += len(data)
        while self._pieces and self._pieces[0][0] <= self._popped:
            self._pieces.popleft()
        await self._notify()
        return data

    async def close(self) -> None:
        """Throw away what waits, and let go whoever waits for it. Not a checkpoint."""
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
class Windows(dict[int, Window]):
    """What `H2Protocol._create_stream` puts its `StreamBuffer` into, and finds a `Window` in."""

    def __init__(self, event_class: Any) -> None:
        super().__init__()
        self._event = event_class

    def __setitem__(self, stream_id: int, buffer: object) -> None:
        super().__setitem__(stream_id, Window(self._event))

    def add(self, stream_id: int) -> None:
        """Open a window for a stream."""
        self[stream_id] = Window(self._event)
