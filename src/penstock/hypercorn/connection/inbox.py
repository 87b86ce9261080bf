"""What a connection has for an application: the messages that its ``receive`` gives."""

from __future__ import annotations

from typing import Any, Final, final

import trio

from penstock.hypercorn.wire.turns import FlowControl

__all__ = ["Inbox", "Message"]

Message = dict[str, Any]

# What a message counts for beside its content: an empty one takes memory, too.
_EMPTY: Final = 256


@final
class Inbox:
    """One request's messages. Putting one in never waits, so a disconnect is always told.

    Args:
      kind: "http" or "websocket".
      stream_id: the request's on its connection.
      flow: is told what was taken, so that the client may send more.
      counts: whether what is in here keeps the connection from reading on. On HTTP/2 it need not:
        there each stream's own window bounds it.
      body_means_nothing: whether `discard_body` may throw the request's body away.
    """

    __slots__ = (
        *("_arrived", "_body_means_nothing", "_counts", "_discards", "_kind", "_messages"),
        *("_flow", "_working", "stream_id", "untaken"),
    )

    def __init__(
        self,
        kind: str,
        stream_id: int,
        flow: FlowControl,
        *,
        counts: bool,
        body_means_nothing: bool = False,
    ) -> None:
        self.stream_id: int = stream_id
        self.untaken: int = 0  # what its messages count for
        self._kind = kind
        self._body_means_nothing = body_means_nothing
        self._discards = False
        self._flow: FlowControl | None = flow
        self._counts = counts
        self._messages: list[Message] = []
        self._arrived: trio.Event | None = None
        self._working: tuple[trio.CancelScope, ...] = ()

    @property
    def disconnected(self) -> bool:
        """Whether a disconnect was put in."""
        return bool(self._messages) and self._messages[-1]["type"] == f"{self._kind}.disconnect"

    async def put(self, message: Message) -> None:
        """Add a message. Not a checkpoint: whoever closes is not cancelled in the middle of it."""
        if self._flow is None or self.disconnected:
            return
        if self._discards and message["type"] == "http.request" and message["body"]:
            self._flow.taken(self.stream_id, len(message["body"]))
            message = {**message, "body": b""}
        last = self._messages[-1] if self._messages else None
        if last is not None and last["type"] == message["type"] == "http.request":
            # One message, however many pieces the client has cut it into.
            self._count(len(message["body"]))
            last["body"] = bytearray(last["body"]) if type(last["body"]) is bytes else last["body"]
            last["body"] += message["body"]
            last["more_body"] = message["more_body"]
        else:
            self._count(_size(message) + _EMPTY)
            self._messages.append(message)
        if self.disconnected:
            for scope in self._working:
                scope.cancel()
        if self._arrived is not None:
            self._arrived.set()
            self._arrived = None

    async def disconnect(self) -> None:
        """See that the application is told that its client has gone. Not a checkpoint."""
        message: Message = {"type": f"{self._kind}.disconnect"}
        if self._kind == "websocket":
            message["code"] = 1006
        await self.put(message)

    def discard_body(self) -> None:
        """Keep nothing of the request's body from now on, if it means nothing.

        The client may go on sending it; the application sees no more than its end.
        """
        if not self._body_means_nothing or self._discards:
            return
        self._discards = True
        for message in self._messages:
            if message["type"] == "http.request" and (size := len(message["body"])):
                message["body"] = b""
                self._count(-size)
                if self._flow is not None:
                    self._flow.taken(self.stream_id, size)

    def disconnect_scope(self) -> trio.CancelScope:
        """Return a scope that a disconnect cancels; see `penstock.stream.transport`."""
        scope = trio.CancelScope()
        self._working = (*self._working, scope)
        if self.disconnected:
            scope.cancel()
        return scope

    def close(self) -> None:
        """Take nothing more, count for nothing more, and let go of the connection."""
        self._count(-sum(_size(message) + _EMPTY for message in self._messages))
        self._flow = None
        self._working = ()

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
        if message["type"] == f"{self._kind}.disconnect":
            return message.copy()
        del self._messages[0]
        if message["type"] == "http.request":
            message["body"] = bytes(message["body"])
        self._count(-_size(message) - _EMPTY)
        if self._flow is not None:
            self._flow.taken(self.stream_id, _size(message))
        return message

    def _count(self, size: int) -> None:
        self.untaken += size
        if self._counts and self._flow is not None:
            self._flow.untaken += size


def _size(message: Message) -> int:
    return len(message.get("body") or message.get("bytes") or message.get("text") or b"")
