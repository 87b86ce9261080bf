"""What a connection has for an application: the messages that its ``receive`` gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

import trio

__all__ = ["Inbox", "Message"]

Message = dict[str, Any]

_LAST: Final = ("http.disconnect", "websocket.disconnect")


def _nothing(message: Message) -> None:
    pass


@final
class Inbox:
    """One request's messages. Putting one in never waits, so a disconnect is always told.

    How much may wait in it is the connection's business, which is told what was taken out.
    """

    __slots__ = ("_arrived", "_gone", "_messages", "_taken", "_working")

    def __init__(self, taken: Callable[[Message], None]) -> None:
        self._messages: list[Message] = []
        self._arrived: trio.Event | None = None
        self._gone = False
        self._working: trio.CancelScope | None = None
        self._taken = taken

    async def put(self, message: Message) -> None:
        """Add a message. Not a checkpoint: whoever closes is not cancelled in the middle of it."""
        self._messages.append(message)
        if message["type"] in _LAST:
            self._gone = True
            if self._working is not None:
                self._working.cancel()
        if self._arrived is not None:
            self._arrived.set()
            self._arrived = None

    def disconnect_scope(self) -> trio.CancelScope:
        """Return the scope that a disconnect cancels; see `penstock.transport.DISCONNECT_SCOPE`."""
        self._working = trio.CancelScope()
        if self._gone:
            self._working.cancel()
        return self._working

    def close(self) -> None:
        """Let go of the connection: nothing is taken any more."""
        self._taken = _nothing
        self._working = None

    def rest(self) -> list[Message]:
        """Return what nobody has taken."""
        return list(self._messages)

    async def receive(self) -> Message:
        """Return the next message; a disconnect, once it is there, at every further call.

        Cancellation:
          A checkpoint. Atomic: either a message is returned or nothing was taken.
        """
        if self._messages:
            await trio.lowlevel.checkpoint()
        while not self._messages:
            if self._arrived is None:
                self._arrived = trio.Event()
            await self._arrived.wait()
        message = self._messages[0]
        if message["type"] not in _LAST:
            del self._messages[0]
            self._taken(message)
        return message
