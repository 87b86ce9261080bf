"""The applications that run for one connection's requests: Hypercorn's `TaskGroup`, made ours.

Replaces `hypercorn/trio/task_group.py` of Hypercorn 0.18.0. There, a disconnect waits for room in a
bounded channel; here it is always told, and the connection learns how much nobody has taken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, final

import trio
from hypercorn.config import Config
from hypercorn.typing import AppWrapper

from penstock.hypercorn.connection.direct_writer import ConnectionWriter, ResponseDirectWriter
from penstock.hypercorn.connection.inbox import Inbox, Message
from penstock.hypercorn.protocol.access_log import finish_access_log, start_access_log
from penstock.stream.transport import DIRECT_WRITER, DISCONNECT_SCOPE

__all__ = ["RequestTasks"]


# Seconds for a logger that waits for something, such as the address of statsd.
_LOG_TIMEOUT: Final = 5.0

# Characters of a path in a task's name, which is kept as long as the task.
_LONGEST_NAME: Final = 200


class _Connection(ConnectionWriter, Protocol):
    """What the tasks need of their connection."""

    def taken(self, stream_id: int, size: int) -> None:
        """Note that an application has taken this many bytes."""
        ...

    async def guarded(self, function: Callable[..., Awaitable[None]], *args: Any) -> bool:
        """Run a step of the connection; an exception is logged and ends the connection."""
        ...

    async def report(self, message: str, *args: Any) -> None:
        """Log the exception that is being handled."""
        ...


@final
class _Extensions(dict[str, Any]):
    """A request's ``scope["extensions"]``: what is offered there is lent, and copied by no one.

    A middleware that changes a scope may copy it deeply first, as Hypercorn's `ProxyFixMiddleware`
    does; a connection cannot be copied, and a stream group's copy would never be drained.
    """

    def __deepcopy__(self, memo: object) -> _Extensions:
        return _Extensions(self)


@final
class RequestTasks:
    """The tasks that a connection's protocol starts, in the connection's nursery."""

    __slots__ = ("_connection", "_inboxes", "_spawned", "nursery", "untaken")

    def __init__(self, connection: _Connection) -> None:
        self.untaken: int = 0  # what counts of the messages that no application has taken
        self._connection = connection
        self._inboxes: list[Inbox] = []
        self._spawned: list[trio.CancelScope] = []
        self.nursery: trio.Nursery  # the connection's

    def count(self) -> int:
        """Return how many applications are running."""
        return len(self._inboxes)

    def spawn(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Start a task of the protocol's; it is cancelled when the connection is over."""
        name = f"protocol ({getattr(function, '__name__', function)})"
        self.nursery.start_soon(self._spawn, function, *args, name=name)

    async def _spawn(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        with trio.CancelScope() as scope:
            self._spawned.append(scope)
            await self._connection.guarded(function, *args)

    async def spawn_app(
        self, app: AppWrapper, config: Config, scope: Any, send: Any
    ) -> Callable[[Message], Awaitable[None]]:
        """Start the application for a request, and return what gives it messages. No checkpoint.

        The application has a copy of the scope: whatever a middleware does to it, the protocol
        still knows the request.
        """
        response = send.__self__  # Hypercorn's HTTPStream or WSStream, whose method it is
        start_access_log(response, config, self.log_soon)
        kind = scope["type"]
        counts = scope["http_version"] < "2"
        means_nothing = kind == "http" and scope["method"] in ("GET", "HEAD")
        inbox = Inbox(
            kind, response.stream_id, self, counts=counts, body_means_nothing=means_nothing
        )
        if not self._inboxes:
            self._connection.carries_stream = False  # the response that was one is over
        self._inboxes.append(inbox)
        offers = _Extensions(scope["extensions"])
        if kind == "http":
            offers[DISCONNECT_SCOPE] = inbox.disconnect_scope
            offers[DIRECT_WRITER] = ResponseDirectWriter(self._connection, response, send)
        lent = {**scope, "extensions": offers}
        name = f"request {scope['path'][:_LONGEST_NAME]}"
        self.nursery.start_soon(self._run, app, lent, offers, inbox, send, name=name)
        return inbox.put

    def discard_body(self, stream_id: int) -> None:
        """Keep nothing more of a request's body: its response has begun, and is an event stream.

        Spec: RFC 9110, 9.3.1: a body of GET means nothing. Other methods' may still be read.
        """
        for inbox in self._inboxes:
            if inbox.stream_id == stream_id:
                inbox.discard_body()

    async def disconnect(self) -> None:
        """Tell every application that its client has gone, whatever the protocol told.

        Hypercorn's WebSocket stream does not tell one whose handshake it has refused.

        Cancellation:
          Not a checkpoint.
        """
        for inbox in self._inboxes:
            await inbox.disconnect()

    def end(self) -> None:
        """Cancel what the protocol has spawned: the connection is over."""
        for scope in self._spawned:
            scope.cancel()

    def close(self) -> None:
        """Let go of the connection, whose tasks have ended."""
        del self._connection, self.nursery

    def taken(self, stream_id: int, size: int) -> None:
        """Note that an application has taken a message, so that its client may send more."""
        self._connection.taken(stream_id, size)

    def log_soon(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Start a function that logs; its failure is reported, and ends nothing. Synchronous."""
        self.nursery.start_soon(self._log, function, *args, name="log")

    async def _log(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        with trio.move_on_after(_LOG_TIMEOUT, shield=True):
            try:
                await function(*args)
            except Exception:
                await self._connection.report("A request could not be logged")

    async def _run(self, app: Any, scope: Any, offers: Any, inbox: Inbox, send: Any) -> None:
        """Run the application, and tell the protocol when it is over, however it ended.

        A request that was taken back before its application began needs none: otherwise a client
        could have thousands begin in a moment (CVE-2023-44487).
        """
        try:
            run_sync, run_async = trio.to_thread.run_sync, trio.from_thread.run
            if not inbox.disconnected:
                await app(scope, inbox.receive, send, run_sync, run_async)
        except* Exception:
            await self._connection.report("Error in ASGI Framework")
        finally:
            inbox.close()
            # ASYNC102: cancelled only together with its connection, which is closed then.
            await self._connection.guarded(send, None)  # noqa: ASYNC102
            await finish_access_log(send.__self__)  # noqa: ASYNC102 - not a checkpoint
            self._inboxes.remove(inbox)
            # They refer to the connection, which would wait for the cyclic collector with a scope
            # that somebody keeps. A middleware may have taken them out, or put others in.
            offers.clear()
