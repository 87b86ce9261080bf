"""The messages that an application's ``receive`` returns, queued by its connection."""

from __future__ import annotations

from typing import Any, Final, final

import trio

from penstock.hypercorn.wire.turns import FlowControl

__all__ = ["Message", "ReceiveQueue"]

Message = dict[str, Any]

# Bytes that a message counts in addition to its content: an empty message takes memory, too.
_OVERHEAD: Final = 256


@final
class ReceiveQueue:
    """One request's messages. `put` never waits, so a disconnect always reaches the application.

    Args:
      kind: "http" or "websocket".
      stream_id: the request's stream on its connection.
      flow: informed of each received size, so that the client may send more.
      limits_reading: whether queued messages stop the connection from reading. On HTTP/2 they need
        not: each stream has its own flow-control window.
      body_is_discardable: whether `discard_body` may discard the request's body.
    """

    __slots__ = (
        *("_arrived", "_body_is_discardable", "_discarding", "_flow", "_kind", "_limits_reading"),
        *("_messages", "_scopes", "stream_id", "unconsumed"),
    )

    def __init__(
        self,
        kind: str,
        stream_id: int,
        flow: FlowControl,
        *,
        limits_reading: bool,
        body_is_discardable: bool = False,
    ) -> None:
        self.stream_id: int = stream_id
        self.unconsumed: int = 0  # size of the messages not yet received
        self._kind = kind
        self._body_is_discardable = body_is_discardable
        self._discarding = False
        self._flow: FlowControl | None = flow
        self._limits_reading = limits_reading
        self._messages: list[Message] = []
        self._arrived: trio.Event | None = None
        self._scopes: tuple[trio.CancelScope, ...] = ()

    @property
    def disconnected(self) -> bool:
        """Whether a disconnect was queued."""
        return bool(self._messages) and self._messages[-1]["type"] == f"{self._kind}.disconnect"

    async def put(self, message: Message) -> None:
        """Add a message. Not a checkpoint, so a task that is closing cannot be cancelled here."""
        if self._flow is None or self.disconnected:
            return
        if self._discarding and message["type"] == "http.request" and message["body"]:
            self._flow.acknowledge(self.stream_id, len(message["body"]))
            message = {**message, "body": b""}
        last = self._messages[-1] if self._messages else None
        if last is not None and last["type"] == message["type"] == "http.request":
            # A body is one message, however many pieces it arrives in.
            self._count(len(message["body"]))
            last["body"] = bytearray(last["body"]) if type(last["body"]) is bytes else last["body"]
            last["body"] += message["body"]
            last["more_body"] = message["more_body"]
        else:
            self._count(_size(message) + _OVERHEAD)
            self._messages.append(message)
        if self.disconnected:
            for scope in self._scopes:
                scope.cancel()
        if self._arrived is not None:
            self._arrived.set()
            self._arrived = None

    async def disconnect(self) -> None:
        """Queue a disconnect, unless there is one. Not a checkpoint."""
        message: Message = {"type": f"{self._kind}.disconnect"}
        if self._kind == "websocket":
            message["code"] = 1006
        await self.put(message)

    def discard_body(self) -> None:
        """Keep none of the request's body, received or still to come, if it has no meaning.

        The client may continue to send; the application sees only the end of the body.
        """
        if not self._body_is_discardable or self._discarding:
            return
        self._discarding = True
        for message in self._messages:
            if message["type"] == "http.request" and (size := len(message["body"])):
                message["body"] = b""
                self._count(-size)
                if self._flow is not None:
                    self._flow.acknowledge(self.stream_id, size)

    def disconnect_scope(self) -> trio.CancelScope:
        """Return a scope that a disconnect cancels; see `penstock.stream.transport`."""
        scope = trio.CancelScope()
        self._scopes = (*self._scopes, scope)
        if self.disconnected:
            scope.cancel()
        return scope

    def close(self) -> None:
        """Accept no more messages, stop counting, and drop the references to the connection."""
        self._count(-sum(_size(message) + _OVERHEAD for message in self._messages))
        self._flow = None
        self._scopes = ()

    async def receive(self) -> Message:
        """Return the next message; once a disconnect is next, return it on every call.

        Cancellation:
          A checkpoint. Atomic: either a message is returned or none was removed.
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
        self._count(-_size(message) - _OVERHEAD)
        if self._flow is not None:
            self._flow.acknowledge(self.stream_id, _size(message))
        return message

    def _count(self, size: int) -> None:
        self.unconsumed += size
        if self._limits_reading and self._flow is not None:
            self._flow.unconsumed += size


def _size(message: Message) -> int:
    return len(message.get("body") or message.get("bytes") or message.get("text") or b"")
