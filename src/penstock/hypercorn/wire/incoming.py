"""The bytes from one client, and the detection of its disconnect.

The reader always listens. While it must not read, because earlier bytes have not been consumed, it
leaves the bytes in the kernel and polls the socket for the hang-up behind them.
"""

from __future__ import annotations

import math
import os
import select
import socket as sockets
from collections.abc import Callable
from typing import Any, Final, final

import trio

__all__ = ["MAX_AHEAD", "IncomingBytes", "PeerClosed"]

# Bytes to read at once, as in Hypercorn.
_PIECE: Final = 2**16

# Bytes of a client that may be unconsumed; beyond them its socket is not read.
MAX_AHEAD: Final = 2**16

# Seconds between two polls for a hang-up while the socket is not read: at first half of the delay
# that is guaranteed, then longer, since a poll costs 0.1 ms.
_POLL_INTERVAL: Final = 0.05
_MAX_POLL_INTERVAL: Final = 1.0

# If a system has no POLLRDHUP, a FIN behind unread bytes is noticed once they have been read.
_HANG_UP: Final = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)


class PeerClosed(Exception):
    """There is nothing more to read: the client has left, or the server is closing."""


@final
class IncomingBytes:
    """One connection's bytes to read, by one task: its reader.

    A plain socket is read directly. Without a deadline no cancel scope is held while waiting: it
    would be most of the memory that an idle connection takes.

    Args:
      stream: the transport; nothing else may read from it.
      socket: the socket underneath, or None if there is none.
      direct: whether the socket's bytes are the stream's (no TLS).
    """

    __slots__ = (
        *("_ahead", "_deadline", "_direct", "_last_chance", "_poll_interval", "_scope", "_socket"),
        *("_stream", "_waiting", "_watching", "received", "stopped"),
    )

    def __init__(self, stream: Any, socket: Any, *, direct: bool) -> None:
        self.received: int = 0
        self.stopped: bool = False  # whether reading has ended
        self._stream = stream
        self._socket = socket
        self._direct = direct
        self._waiting = False  # whether the reader waits for the socket, without a scope
        self._watching = False
        self._poll_interval = _POLL_INTERVAL
        self._ahead = b""
        self._deadline = math.inf
        self._last_chance = math.inf  # the deadline at which the socket was read once more
        self._scope: trio.CancelScope | None = None

    @property
    def deadline(self) -> float:
        """When reading stops if the client stays silent."""
        return self._deadline

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self._deadline = deadline
        if self._scope is not None:
            self._scope.deadline = deadline
        elif deadline < math.inf:
            self.wake()  # it waits without a scope

    def extend_deadlines(self, move: Callable[[float], float]) -> None:
        """Extend the deadline, after a pause of the process."""
        if self._deadline < math.inf:
            self.deadline = move(self._deadline)

    def stop(self) -> None:
        """End reading, and wake the reader."""
        self.stopped = True
        self.wake()

    def wake(self) -> None:
        """Make the reader check its state again."""
        if self._scope is not None:
            self._scope.cancel()
        elif self._waiting:
            trio.lowlevel.notify_closing(self._socket)  # raises in the waiting reader

    def resume(self) -> None:
        """Continue to read, if the reader only watches."""
        if self._watching:
            self.wake()

    async def receive(self) -> bytes:
        """Return what the client sent; empty if woken, or if the client was silent for too long.

        Raises:
          PeerClosed: the client has closed or reset.

        Cancellation:
          A checkpoint, unless bytes were read ahead. Atomic.
        """
        if self._ahead:
            data, self._ahead = self._ahead, b""
            return data
        if self._direct and self._deadline == math.inf:
            self._waiting = True
            try:
                await trio.lowlevel.wait_readable(self._socket)
            except (trio.ClosedResourceError, OSError):
                return self._woken()
            finally:
                self._waiting = False
            return self._read()
        with trio.CancelScope(deadline=self._deadline) as self._scope:
            try:
                if self._direct:
                    await trio.lowlevel.wait_readable(self._socket)
                    return self._read()
                return self._counted(bytes(await self._stream.receive_some(_PIECE)))
            except trio.ClosedResourceError:
                return self._woken()
            except (trio.BrokenResourceError, OSError) as error:
                raise PeerClosed from error
            finally:
                self._scope = None
        if self._direct and self._last_chance != self._deadline <= trio.current_time():
            self._last_chance = self._deadline
            return self._read() or self._woken()  # bytes that arrived at the last moment count
        return self._woken()

    def _read(self) -> bytes:
        try:
            return self._counted(os.read(self._socket.fileno(), _PIECE))
        except BlockingIOError:
            return b""
        except OSError as error:
            raise PeerClosed from error

    def _counted(self, data: bytes) -> bytes:
        if not data:
            raise PeerClosed
        self.received += len(data)
        self._poll_interval = _POLL_INTERVAL
        return data

    def _woken(self) -> bytes:
        self.stopped = self.stopped or self._deadline <= trio.current_time()
        return b""

    async def watch(self) -> None:
        """Wait to be woken, but at most until it is time to poll the socket for a hang-up.

        Raises:
          PeerClosed: the client has hung up.
        """
        deadline = trio.current_time() + self._poll_interval
        self._poll_interval = min(2 * self._poll_interval, _MAX_POLL_INTERVAL)
        self._watching = True
        with trio.CancelScope(deadline=min(deadline, self._deadline)) as self._scope:
            try:
                await trio.sleep_forever()
            finally:
                self._scope = None
                self._watching = False
        self._woken()
        if not self.stopped and self._socket is not None and _has_hung_up(self._socket):
            raise PeerClosed

    async def read_ahead(self, until: Callable[[], bool]) -> None:
        """Read what the client sends beyond its request, within bounds, until the function is true.

        Raises:
          PeerClosed: the client has closed or reset, or reading has ended.
        """
        self.deadline = math.inf
        while not until():
            if self.stopped:
                raise PeerClosed
            if len(self._ahead) >= MAX_AHEAD:
                await self.watch()
            else:
                ahead, self._ahead = self._ahead, b""
                try:
                    ahead += await self.receive()
                finally:
                    self._ahead = ahead


def _has_hung_up(connection: sockets.socket) -> bool:
    """Return whether the peer has closed or reset, without reading what it sent before."""
    poll = select.poll()
    poll.register(connection.fileno(), _HANG_UP)
    return bool(poll.poll(0))
