"""The bytes on their way to one client.

What the kernel takes is written at once. The rest waits, and is written by a task that exists only
as long as something waits; it gives each piece its deadline. So whoever writes need not wait, and
whoever waits may be cancelled: the bytes stay whole, and in their order.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, final

import trio

__all__ = ["LOST", "Outgoing"]

# What a stream raises when its peer is gone, or something else is closing it.
LOST: Final = (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError)

# Bytes that are written with one deadline. A client on a slow line that takes a download gets on by
# this much each ``send_timeout``: 4.4 kB/s are enough.
_PIECE: Final = 2**16

# Seconds to wait for the client's FIN after ours: closing a socket in which something is unread
# would send RST, and that would take the response's last bytes with it.
_LINGER: Final = 0.5


# Bytes from which on they are not copied when they have to wait: what goes to many clients is then
# in memory once.
_SHARED: Final = 2**13


@final
class _Waiting:
    """Bytes in their order."""

    __slots__ = ("_parts", "size")

    def __init__(self) -> None:
        self.size = 0
        self._parts: deque[bytearray | memoryview] = deque()

    def add(self, data: memoryview) -> None:
        """Put bytes, which do not change, behind the others."""
        self.size += len(data)
        last = self._parts[-1] if self._parts else None
        if len(data) >= _SHARED:
            self._parts.append(data)
        elif isinstance(last, bytearray):
            last += data
        else:
            self._parts.append(bytearray(data))

    def first(self, size: int) -> bytearray | memoryview:
        """Return the first bytes, at most so many; there must be some."""
        return self._parts[0][:size]

    def drop(self, size: int) -> None:
        """Forget the first bytes, which `first` has returned."""
        self.size -= size
        if size == len(self._parts[0]):
            self._parts.popleft()
        elif isinstance(part := self._parts[0], bytearray):
            del part[:size]
        else:
            self._parts[0] = part[size:]


@final
class Outgoing:
    """One connection's bytes to write.

    Args:
      stream: where they go; only this writes to it.
      socket: the stream's socket, if bytes may be written to it as they are, else None.
      send_timeout: seconds for each piece.
      lost: called when the client is gone, or was given up; closes the connection, and calls
        `discard`. Synchronous.
    """

    __slots__ = (
        *("_closed", "_fileno", "_lost", "_patience", "_send_timeout", "_socket", "_stream"),
        *("_waiting", "_written", "nursery", "sent", "stalled", "told"),
    )

    def __init__(
        self,
        stream: Any,
        socket: Any,
        send_timeout: float,
        lost: Callable[[], None],
    ) -> None:
        self.nursery: trio.Nursery  # the connection's, for the writer
        self.sent: int = 0
        self.stalled: bool = False
        self.told: bool = False  # whether the client knows that nothing follows
        self._stream = stream
        self._socket = socket
        # Gives -1 once the socket is closed, so that no other file is ever written to.
        self._fileno: Callable[[], int] | None = None if socket is None else socket.fileno
        self._closed = False
        self._send_timeout = send_timeout
        self._lost = lost
        self._waiting: _Waiting | None = None
        self._written: trio.Event | None = None
        self._patience: trio.CancelScope | None = None  # with the client, while something waits

    @property
    def waiting(self) -> int:
        """How many bytes the kernel has not taken yet."""
        return 0 if self._waiting is None else self._waiting.size

    def write(self, data: bytes) -> None:
        """Write, behind what waits; never lost in part.

        Cancellation:
          Synchronous, no checkpoint.
        """
        if self._waiting is not None:
            self._waiting.add(memoryview(data))
        else:
            self.write_nowait(data)

    def write_nowait(self, data: bytes) -> bool:
        """Write, if nothing waits and the client is there, and tell whether it was taken.

        Cancellation:
          Synchronous, no checkpoint.
        """
        if self._waiting is not None or self._closed:
            return False
        written = 0
        if self._fileno is not None:
            try:
                written = os.write(self._fileno(), data)
            except BlockingIOError:
                pass
            except OSError:
                self._lost()
                return False
            self.sent += written
            if written == len(data):
                return True
        self._waiting = _Waiting()
        self._waiting.add(memoryview(data)[written:])
        self.nursery.start_soon(self._write_waiting, name="writer")
        return True

    async def flush(self) -> None:
        """Wait until the kernel has taken everything, or the client is gone.

        Cancellation:
          Not a checkpoint when nothing waits. What waits is written all the same.
        """
        if self._waiting is not None:
            if self._written is None:
                self._written = trio.Event()
            await self._written.wait()

    async def finish(self, *, linger: bool) -> None:
        """Wait until the last bytes are written, say that they were, and see that they arrive."""
        await self.flush()
        with trio.move_on_after(_LINGER) as self._patience, suppress(*LOST):
            if isinstance(self._stream, trio.SSLStream):
                self.told = True
                await self._stream.aclose()  # TLS's own goodbye
                return
            await self._stream.send_eof()
            self.told = True
            while linger and await self._stream.receive_some(_PIECE):
                pass

    def postpone(self, move: Callable[[float], float]) -> None:
        """Move the deadline of what waits, after a pause of ours."""
        if self._patience is not None:
            self._patience.deadline = move(self._patience.deadline)

    def give_up(self) -> None:
        """Take the client for one that does not read, and have the connection closed."""
        self.stalled = True
        self._lost()

    def discard(self) -> None:
        """Throw away what waits, and let go whoever waits for it; nothing more is written."""
        self._closed = True
        self._release()

    def _release(self) -> None:
        self._waiting = self._patience = None
        if self._written is not None:
            self._written.set()
            self._written = None

    def close(self) -> None:
        """Let go of the connection, whose tasks have ended."""
        self.discard()
        if isinstance(self._stream, trio.SSLStream):
            vars(self._stream).clear()  # it refers to itself, and would wait for the collector
        del self._lost, self.nursery

    async def _write_waiting(self) -> None:
        """Write what waits, and what joins it meanwhile; each piece has its deadline.

        Cancellation:
          Cancelled, with its connection only, it leaves the connection to be reset.
        """
        try:
            while self._waiting is not None and self._waiting.size:
                piece = self._waiting.first(_PIECE)
                with trio.move_on_after(self._send_timeout) as patience:
                    self._patience = patience
                    await self._write(piece)
                if patience.cancelled_caught:
                    self.give_up()
                    return
                if self._waiting is not None:
                    self._waiting.drop(len(piece))
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            self._lost()
        self._release()

    async def _write(self, piece: bytearray | memoryview) -> None:
        """Write a piece, as the kernel takes it."""
        if self._socket is None:
            await self._stream.send_all(piece)
            self.sent += len(piece)
            return
        while piece:
            try:
                await trio.lowlevel.wait_writable(self._socket)
                written = os.write(self._socket.fileno(), piece)
            except BlockingIOError:
                continue
            except trio.ClosedResourceError:
                if self._waiting is None:
                    return  # the connection is closed
                continue  # it was the reader who was woken, `Incoming.wake`
            self.sent += written
            piece = piece[written:]
