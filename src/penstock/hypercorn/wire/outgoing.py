"""The bytes to one client.

What the kernel takes is written at once. The rest is pending, and a writer task sends it, which
exists only as long as bytes are pending; each piece has a deadline. So the sender of a byte need
not wait, and if it waits it may be cancelled: bytes are sent completely and in order.
"""

from __future__ import annotations

import os
import socket as sockets
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, final

import trio

__all__ = ["LOST", "OutgoingBytes", "reset_on_close"]

# What a stream raises when its peer is gone, or when another task is closing it.
LOST: Final = (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError)

# Bytes that are written with one deadline. A download on a slow line has to progress by this much
# in each ``send_timeout``: 4.4 kB/s are enough.
_PIECE: Final = 2**16

# Seconds to wait for the client's FIN after ours: closing a socket with unread bytes would send
# RST, which would discard the response's last bytes.
_LINGER: Final = 0.5


# Bytes from this size on are pending without a copy, so that an event for many clients is in memory
# once.
_SHARED: Final = 2**13


@final
class _PendingBytes:
    """A queue of bytes."""

    __slots__ = ("_parts", "size")

    def __init__(self) -> None:
        self.size = 0
        self._parts: deque[bytearray | memoryview] = deque()

    def add(self, data: memoryview) -> None:
        """Append bytes, which must not change."""
        self.size += len(data)
        last = self._parts[-1] if self._parts else None
        if len(data) >= _SHARED:
            self._parts.append(data)
        elif isinstance(last, bytearray):
            last += data
        else:
            self._parts.append(bytearray(data))

    def first(self, size: int) -> bytearray | memoryview:
        """Return at most this many bytes from the front; there must be some."""
        return self._parts[0][:size]

    def drop(self, size: int) -> None:
        """Remove bytes from the front, at most as many as `first` has returned."""
        self.size -= size
        if size == len(self._parts[0]):
            self._parts.popleft()
        elif isinstance(part := self._parts[0], bytearray):
            del part[:size]
        else:
            self._parts[0] = part[size:]


@final
class OutgoingBytes:
    """One connection's bytes to write.

    Args:
      stream: the transport; nothing else may write to it.
      socket: the stream's socket if bytes may be written to it unchanged (no TLS), else None.
      send_timeout: seconds for each piece.
      on_lost: called when the client is gone, or was given up; closes the connection, and calls
        `discard`. Synchronous.
    """

    __slots__ = (
        *("_closed", "_fileno", "_on_lost", "_pending", "_send_timeout", "_socket", "_stream"),
        *("_timeout", "_written", "eof_sent", "nursery", "sent", "stalled"),
    )

    def __init__(
        self,
        stream: Any,
        socket: Any,
        send_timeout: float,
        on_lost: Callable[[], None],
    ) -> None:
        self.nursery: trio.Nursery  # the connection's, for the writer task
        self.sent: int = 0
        self.stalled: bool = False
        self.eof_sent: bool = False
        self._stream = stream
        self._socket = socket
        # Returns -1 once the socket is closed, so that another file is never written to.
        self._fileno: Callable[[], int] | None = None if socket is None else socket.fileno
        self._closed = False
        self._send_timeout = send_timeout
        self._on_lost = on_lost
        self._pending: _PendingBytes | None = None
        self._written: trio.Event | None = None
        self._timeout: trio.CancelScope | None = None  # of the current piece, or of `finish`

    @property
    def pending(self) -> int:
        """How many bytes the kernel has not taken yet."""
        return 0 if self._pending is None else self._pending.size

    def write(self, data: bytes) -> None:
        """Write behind the pending bytes; all of it is sent, or the connection is lost.

        Cancellation:
          Synchronous, no checkpoint.
        """
        if self._pending is not None:
            self._pending.add(memoryview(data))
        else:
            self.write_nowait(data)

    def write_nowait(self, data: bytes) -> bool:
        """Write, if nothing is pending and the client is there; return whether it was taken.

        Cancellation:
          Synchronous, no checkpoint.
        """
        if self._pending is not None or self._closed:
            return False
        written = 0
        if self._fileno is not None:
            try:
                written = os.write(self._fileno(), data)
            except BlockingIOError:
                pass
            except OSError:
                self._on_lost()
                return False
            self.sent += written
            if written == len(data):
                return True
        self._pending = _PendingBytes()
        self._pending.add(memoryview(data)[written:])
        self.nursery.start_soon(self._write_pending, name="writer")
        return True

    async def flush(self) -> None:
        """Wait until the kernel has taken everything, or the client is gone.

        Cancellation:
          Not a checkpoint if nothing is pending. Pending bytes are sent even if it is cancelled.
        """
        if self._pending is not None:
            if self._written is None:
                self._written = trio.Event()
            await self._written.wait()

    async def finish(self, *, linger: bool) -> None:
        """Wait for the last bytes to be written, send the end, and let it arrive (`linger`)."""
        await self.flush()
        with trio.move_on_after(_LINGER) as self._timeout, suppress(*LOST):
            if isinstance(self._stream, trio.SSLStream):
                self.eof_sent = True
                await self._stream.aclose()  # sends TLS's close_notify
                return
            await self._stream.send_eof()
            self.eof_sent = True
            while linger and await self._stream.receive_some(_PIECE):
                pass

    def extend_deadlines(self, move: Callable[[float], float]) -> None:
        """Extend the deadline of the pending bytes, after a pause of the process."""
        if self._timeout is not None:
            self._timeout.deadline = move(self._timeout.deadline)

    def give_up(self) -> None:
        """Treat the client as stalled, and have the connection closed."""
        self.stalled = True
        self._on_lost()

    def discard(self) -> None:
        """Discard the pending bytes, and wake the tasks that wait for them; write nothing more."""
        self._closed = True
        self._release()

    def _release(self) -> None:
        self._pending = self._timeout = None
        if self._written is not None:
            self._written.set()
            self._written = None

    def close(self) -> None:
        """Drop the references to the connection, once its tasks have ended."""
        self.discard()
        if isinstance(self._stream, trio.SSLStream):
            vars(self._stream).clear()  # its reference cycle would wait for the cyclic collector
        del self._on_lost, self.nursery

    async def _write_pending(self) -> None:
        """Write the pending bytes, and those that are added meanwhile, with a deadline per piece.

        Cancellation:
          Cancelled only with its connection, which is then reset.
        """
        try:
            while self._pending is not None and self._pending.size:
                piece = self._pending.first(_PIECE)
                with trio.move_on_after(self._send_timeout) as timeout:
                    self._timeout = timeout
                    await self._write(piece)
                if timeout.cancelled_caught:
                    self.give_up()
                    return
                if self._pending is not None:
                    self._pending.drop(len(piece))
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            self._on_lost()
        self._release()

    async def _write(self, piece: bytearray | memoryview) -> None:
        """Write a piece as the kernel takes it."""
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
                if self._pending is None:
                    return  # the connection is closed
                continue  # `IncomingBytes.wake` woke the reader
            self.sent += written
            piece = piece[written:]


def reset_on_close(connection: sockets.socket) -> None:
    """Make closing send RST, and discard what the kernel could not send."""
    connection.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))
