"""The applications that run for one connection's requests: Hypercorn's `TaskGroup`, made ours.

Replaces `hypercorn/trio/task_group.py` of Hypercorn 0.18.0. There, a disconnect waits for room in a
bounded channel; here it is always told, and the connection learns how much nobody has taken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, final

import trio
from hypercorn.config import Config
from hypercorn.typing import AppWrapper

from penstock.hypercorn.inbox import Inbox, Message
from penstock.hypercorn.write_through import ResponseWriteThrough
from penstock.transport import DISCONNECT_SCOPE, WRITE_THROUGH

if TYPE_CHECKING:
    from penstock.hypercorn.connection import Connection

__all__ = ["Requests"]


@final
class Requests:
    """The tasks that a connection's protocol starts, in the connection's nursery."""

    __slots__ = ("_connection", "nursery", "open", "untaken")

    def __init__(self, connection: Connection) -> None:
        self.open: int = 0
        self.untaken: int = 0
        self._connection = connection
        self.nursery: trio.Nursery  # the connection's

    def spawn(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Start a task of the protocol's."""
        self.nursery.start_soon(self._connection.guarded, function, *args, name="HTTP/2 sender")

    async def spawn_app(
        self, app: AppWrapper, config: Config, scope: Any, send: Any
    ) -> Callable[[Message], Awaitable[None]]:
        """Start the application for a request, and return what gives it messages. No checkpoint."""
        response = send.__self__  # Hypercorn's HTTPStream or WSStream, whose method it is
        inbox = Inbox(partial(self._taken, response))
        if scope["type"] == "http":
            scope["extensions"][DISCONNECT_SCOPE] = inbox.disconnect_scope
            scope["extensions"][WRITE_THROUGH] = ResponseWriteThrough(self._connection, response)
        self.open += 1
        name = f"request {scope['path']}"
        self.nursery.start_soon(self._run, app, config, scope, inbox, send, name=name)
        return partial(self._put, inbox)

    def close(self) -> None:
        """Let go of the connection, whose tasks have ended."""
        del self._connection, self.nursery

    async def _put(self, inbox: Inbox, message: Message) -> None:
        self.untaken += _size(message)
        await inbox.put(message)

    async def _run(self, app: Any, config: Config, scope: Any, inbox: Inbox, send: Any) -> None:
        """Run the application, and tell the protocol when it is over, however it ended."""
        try:
            run_sync, run_async = trio.to_thread.run_sync, trio.from_thread.run
            await app(scope, inbox.receive, send, run_sync, run_async)
        except* Exception:
            await config.log.exception("Error in ASGI Framework")
        finally:
            self.open -= 1
            self.untaken -= sum(map(_size, inbox.rest()))
            # ASYNC102: cancelled only together with its connection, which is closed then.
            await self._connection.guarded(send, None)  # noqa: ASYNC102
            inbox.close()
            if scope["type"] == "http":
                # The offers refer to the connection, and Hypercorn's stream to the scope.
                del scope["extensions"][DISCONNECT_SCOPE], scope["extensions"][WRITE_THROUGH]

    def _taken(self, response: Any, message: Message) -> None:
        """Note that an application has taken a message, so that its client may send more."""
        size = _size(message)
        self.untaken -= size
        if size:
            self._connection.taken(response.stream_id, size)


def _size(message: Message) -> int:
    return len(message.get("body") or message.get("bytes") or message.get("text") or b"")
