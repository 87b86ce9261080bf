"""The tasks of one connection's requests: the applications, and the protocol's helper tasks.

Replaces `hypercorn/trio/task_group.py` of Hypercorn 0.18.0. There, a disconnect waits for room in a
bounded channel; here it always reaches the application, and the connection learns how many bytes no
application has received.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, final

import trio
from hypercorn.config import Config
from hypercorn.protocol.events import Response
from hypercorn.typing import AppWrapper

from penstock.hypercorn.connection.direct_writer import ResponseDirectWriter, WritableConnection
from penstock.hypercorn.connection.receive_queue import Message, ReceiveQueue
from penstock.hypercorn.protocol.request_log import finish_access_log, start_access_log
from penstock.stream.transport import DIRECT_WRITER, DISCONNECT_SCOPE

__all__ = ["RequestTasks"]


# Seconds that a logger may wait for something, such as the address of statsd.
_LOG_TIMEOUT: Final = 5.0

# Maximum characters of a path in a task's name, which lives as long as the task.
_LONGEST_NAME: Final = 200


class _Connection(WritableConnection, Protocol):
    """What the tasks need from their connection."""

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Record that an application has received this many bytes."""
        ...

    async def run_guarded(self, function: Callable[..., Awaitable[None]], *args: Any) -> bool:
        """Run a step of the connection; an exception is logged and ends the connection."""
        ...

    async def log_exception(self, message: str, *args: Any) -> None:
        """Log the exception that is being handled."""
        ...


@final
class _Extensions(dict[str, Any]):
    """A request's ``scope["extensions"]``; a deep copy holds the same objects.

    A middleware may deep-copy the scope before it changes it, as Hypercorn's `ProxyFixMiddleware`
    does. A connection cannot be copied, and nothing would drain a copy of a stream group.
    """

    def __deepcopy__(self, memo: object) -> _Extensions:
        return _Extensions(self)


@final
class RequestTasks:
    """Starts a connection's tasks in its nursery, and keeps the queues of its applications."""

    __slots__ = ("_connection", "_queues", "_spawned", "nursery", "unconsumed")

    def __init__(self, connection: _Connection) -> None:
        self.unconsumed: int = 0  # size of the messages that no application has received
        self._connection = connection
        self._queues: list[ReceiveQueue] = []
        self._spawned: list[trio.CancelScope] = []
        self.nursery: trio.Nursery  # the connection's

    def count(self) -> int:
        """Return how many applications are running."""
        return len(self._queues)

    def spawn(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Start a task of the protocol; it is cancelled when the connection ends."""
        name = f"protocol ({getattr(function, '__name__', function)})"
        self.nursery.start_soon(self._spawn, function, *args, name=name)

    async def _spawn(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        with trio.CancelScope() as scope:
            self._spawned.append(scope)
            await self._connection.run_guarded(function, *args)

    async def spawn_app(
        self, app: AppWrapper, config: Config, scope: Any, send: Any
    ) -> Callable[[Message], Awaitable[None]]:
        """Start a request's application, and return the function that queues messages for it.

        The application gets a copy of the scope: the protocol still knows the request, whatever a
        middleware does to it.

        Cancellation:
          Not a checkpoint.
        """
        response = send.__self__  # `send` is a method of Hypercorn's HTTPStream or WSStream
        start_access_log(response, config, self.log_soon)
        kind = scope["type"]
        discardable = kind == "http" and scope["method"] in ("GET", "HEAD")
        queue = ReceiveQueue(
            kind,
            response.stream_id,
            self,
            limits_reading=scope["http_version"] < "2",
            body_is_discardable=discardable,
        )
        if not self._queues:
            self._connection.carries_stream = False  # an earlier stream is over
        self._queues.append(queue)
        extensions = _Extensions(scope["extensions"])
        if kind == "http":
            extensions[DISCONNECT_SCOPE] = queue.disconnect_scope
            extensions[DIRECT_WRITER] = ResponseDirectWriter(self._connection, response, send)
        app_scope = {**scope, "extensions": extensions}
        name = f"request {scope['path'][:_LONGEST_NAME]}"
        self.nursery.start_soon(self._run, app, app_scope, extensions, queue, send, name=name)
        return queue.put

    def response_begins(self, response: Response) -> None:
        """Discard a request's body, past and future, if its response is an event stream.

        Spec: RFC 9110, 9.3.1: a body of GET has no meaning. Other methods' bodies are kept.
        """
        if not any(
            name.lower() == b"content-type" and value.startswith(b"text/event-stream")
            for name, value in response.headers
        ):
            return
        for queue in self._queues:
            if queue.stream_id == response.stream_id:
                queue.discard_body()

    async def disconnect(self) -> None:
        """Notify every application that its client is gone, whatever the protocol did.

        Hypercorn's WebSocket stream does not notify an application that refused the handshake.

        Cancellation:
          Not a checkpoint.
        """
        for queue in self._queues:
            await queue.disconnect()

    def end(self) -> None:
        """Cancel the protocol's tasks: the connection is over."""
        for scope in self._spawned:
            scope.cancel()

    def close(self) -> None:
        """Drop the references to the connection, once its tasks have ended."""
        del self._connection, self.nursery

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Record that an application has received a message, so that its client may send more."""
        self._connection.acknowledge(stream_id, size)

    def log_soon(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Start a function that logs; if it fails, that is logged, too. Synchronous."""
        self.nursery.start_soon(self._log, function, *args, name="log")

    async def _log(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        with trio.move_on_after(_LOG_TIMEOUT, shield=True):
            try:
                await function(*args)
            except Exception:
                await self._connection.log_exception("Logging a request failed")

    async def _run(
        self, app: Any, scope: Any, extensions: Any, queue: ReceiveQueue, send: Any
    ) -> None:
        """Run the application, then tell the protocol that it has ended, in whatever way.

        A request that was reset before its application began gets none: otherwise a client could
        start thousands in a moment (CVE-2023-44487).
        """
        try:
            run_sync, run_async = trio.to_thread.run_sync, trio.from_thread.run
            if not queue.disconnected:
                await app(scope, queue.receive, send, run_sync, run_async)
        except* Exception:
            await self._connection.log_exception("Error in ASGI Framework")
        finally:
            queue.close()
            # ASYNC102: cancelled only together with its connection, which is then closed.
            await self._connection.run_guarded(send, None)  # noqa: ASYNC102
            await finish_access_log(send.__self__)  # noqa: ASYNC102 - not a checkpoint
            self._queues.remove(queue)
            # They refer to the connection: a scope kept elsewhere would keep it alive until
            # the cyclic collector runs. A middleware may have removed or replaced them.
            extensions.clear()
