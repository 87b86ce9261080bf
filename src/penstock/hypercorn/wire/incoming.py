"""The bytes that come from one client, and the news that it has left.

The reader always listens. Where it must not read more, because what it has read was not taken, it
looks for the hang-up behind the bytes that it leaves in the kernel.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, Final, final

import trio

from penstock.hypercorn.wire.sockets import has_hung_up

__all__ = ["MAX_AHEAD", "Incoming", "PeerClosed"]

# Bytes to read at once, as Hypercorn does.
_PIECE: Final = 2**16

# Bytes that a client may have sent and nobody has taken; then its socket is left alone.
MAX_AHEAD: Final = 2**16

# Seconds between two looks for a hang-up while nothing is read: at first half of what is promised,
# then longer, for a look costs 0.1 ms.
_LOOK: Final = 0.05
_LOOK_AT_LAST: Final = 1.0


class PeerClosed(Exception):
    """There is nothing more to read: the client has left, or we are closing."""


@final
class Incoming:
    """One connection's bytes to read; by one task, its reader.

    A socket is read directly, and waited for without a scope, unless there is a deadline: that is
    the greater part of what an idle connection would need otherwise.

    Args:
      stream: where they come from; only this reads from it.
      socket: the socket underneath, or None where there is none.
      direct: whether its bytes are the stream's as they are.
    """

    __slots__ = (
        *("_ahead", "_deadline", "_direct", "_last_look", "_look", "_scope", "_socket"),
        *("_stopped", "_stream", "_waits", "_watches", "received"),
    )

    def __init__(self, stream: Any, socket: Any, *, direct: bool) -> None:
        self.received: int = 0
        self._stream = stream
        self._socket = socket
        self._direct = direct
        self._waits = False  # for the socket, without a scope
        self._watches = False
        self._look = _LOOK
        self._ahead = b""
        self._deadline = math.inf
        self._last_look = math.inf  # the deadline at which the last look was taken
        self._scope: trio.CancelScope | None = None
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether nothing more is to be read."""
        return self._stopped

    @property
    def deadline(self) -> float:
        """Until when the client may be silent; then reading stops."""
        return self._deadline

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self._deadline = deadline
        if self._scope is not None:
            self._scope.deadline = deadline
        elif deadline < math.inf:
            self.wake()  # it waits without one

    def postpone(self, move: Callable[[float], float]) -> None:
        """Move the deadline, after a pause of ours."""
        if self._deadline < math.inf:
            self.deadline = move(self._deadline)

    def stop(self) -> None:
        """Read no more; the reader is woken."""
        self._stopped = True
        self.wake()

    def wake(self) -> None:
        """Have the reader look again at what it waits for."""
        if self._scope is not None:
            self._scope.cancel()
        elif self._waits:
            trio.lowlevel.notify_closing(self._socket)  # which raises where it is waited for

    def resume(self) -> None:
        """Read on, if the reader only watches."""
        if self._watches:
            self.wake()

    async def receive(self) -> bytes:
        """Return what the client sent; nothing, if woken, or if it was silent for too long.

        Raises:
          PeerClosed: the client has closed or reset.

        Cancellation:
          A checkpoint, unless bytes were read ahead. Atomic.
        """
        if self._ahead:
            data, self._ahead = self._ahead, b""
            return data
        if self._direct and self._deadline == math.inf:
            self._waits = True
            try:
                await trio.lowlevel.wait_readable(self._socket)
            except (trio.ClosedResourceError, OSError):
                return self._woken()
            finally:
                self._waits = False
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
        if self._direct and self._last_look != self._deadline <= trio.current_time():
            self._last_look = self._deadline
            return self._read() or self._woken()  # what came in the last moment counts
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
        self._look = _LOOK
        return data

    def _woken(self) -> bytes:
        self._stopped = self._stopped or self._deadline <= trio.current_time()
        return b""

    async def watch(self) -> None:
        """Wait to be woken, and look from time to time whether the client has hung up.

        Raises:
          PeerClosed: it has.
        """
        deadline = trio.current_time() + self._look
        self._look = min(2 * self._look, _LOOK_AT_LAST)
        self._watches = True
        with trio.CancelScope(deadline=min(deadline, self._deadline)) as self._scope:
            try:
                await trio.sleep_forever()
            finally:
                self._scope = None
                self._watches = False
        self._woken()
        if not self._stopped and self._socket is not None and has_hung_up(self._socket):
            raise PeerClosed

    async def read_ahead(self, until: Callable[[], bool]) -> None:
        """Read, within bounds, what the client sends beyond its request, until it is its turn.

        Raises:
          PeerClosed: the client has closed or reset, or nothing more is to be read.
        """
        self.deadline = math.inf
        while not until():
            if self._stopped:
                raise PeerClosed
            if len(self._ahead) >= MAX_AHEAD:
                await self.watch()
            else:
                ahead, self._ahead = self._ahead, b""
                try:
                    ahead += await self.receive()
                finally:
                    self._ahead = ahead
