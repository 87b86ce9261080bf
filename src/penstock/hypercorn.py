"""Hypercorn as Penstock serves with it: its public `serve`, and streams that end when it stops.

The application is handed the server's `StreamGroup` in the scope's extensions, which is ASGI's way
for a server to offer a feature. Nothing of Hypercorn's internals is touched.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

import hypercorn.trio
import trio
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework

from penstock.group import STREAM_GROUP, StreamGroup

__all__ = ["serve"]


async def serve(  # noqa: ASYNC128 - Hypercorn calls `started`, through our status
    app: Any,
    config: Config,
    *,
    shutdown_trigger: Callable[[], Awaitable[object]] | None = None,
    group: StreamGroup | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application, as `hypercorn.trio.serve` does, and end its streams at the stop.

    Args:
      app: an ASGI application.
      config: Hypercorn's configuration. ``graceful_timeout`` bounds, in seconds, how long requests
        may go on after the stop.
      shutdown_trigger: when it returns, the server stops: it accepts no more connections, and its
        streams end with `penstock.outcome.CloseReason.DRAINING`.
      group: holds the server's streams; give one to read its `StreamGroup.statistics`.
      task_status: started with the addresses, as ``["http://127.0.0.1:8080"]``, when they accept
        connections. A bind to port 0 is told with its real port.

    Raises:
      OSError: an address cannot be bound; in an exception group, as all that goes wrong here.

    Cancellation:
      Checkpoints throughout. Cancelling it cancels every request, as far as Hypercorn lets go.
    """
    streams = StreamGroup() if group is None else group
    status = _StatusAfterStartUp(task_status)

    async def app_with_streams(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["extensions"][STREAM_GROUP] = streams
        elif scope["type"] == "lifespan":
            send = partial(status.watch, send)
        await app(scope, receive, send)

    async def drain_when_triggered() -> None:
        assert shutdown_trigger is not None
        await shutdown_trigger()
        streams.drain()

    await hypercorn.trio.serve(
        cast(ASGIFramework, app_with_streams),
        config,
        shutdown_trigger=drain_when_triggered if shutdown_trigger else None,
        task_status=status,
        mode="asgi",
    )


class _StatusAfterStartUp:
    """Tells that the server has started, unless its application has failed to.

    Hypercorn 0.18.0 calls ``started`` in that case as well (`worker_serve`), a moment before the
    failure arrives.
    """

    def __init__(self, status: trio.TaskStatus[list[str]]) -> None:
        self._status = status
        self._failed = False

    async def watch(self, send: Callable[[Any], Awaitable[None]], message: Any) -> None:
        """Send the application's message, and note a failure to start."""
        self._failed = self._failed or message["type"] == "lifespan.startup.failed"
        await send(message)

    def started(self, value: list[str] | None = None) -> None:
        """Tell the addresses, if the application has started."""
        if not self._failed:
            self._status.started(value or [])
