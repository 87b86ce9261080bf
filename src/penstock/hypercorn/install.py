"""Hypercorn's own ways to serve, guarded: its command line and `hypercorn.trio.serve`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import hypercorn.trio
import hypercorn.trio.run
import trio
from hypercorn.config import Config, Sockets
from hypercorn.typing import AppWrapper

from penstock.errors import InvalidSettings
from penstock.hypercorn.server.lifespan import LifespanFailed
from penstock.hypercorn.server.server import Server

__all__ = ["install"]


def install() -> None:
    """Replace Hypercorn's Trio worker by the guarded worker, in this process.

    For ``hypercorn -k trio MODULE:APP``, these two lines in the application's module are enough:

        from penstock.hypercorn import install
        install()

    Hypercorn imports the module in each worker before it serves. `hypercorn.trio.serve` is guarded,
    too. The function is idempotent.

    Settings come from Hypercorn's configuration: the table ``[penstock]`` of a TOML file; see
    `Settings`.
    """
    hypercorn.trio.run.worker_serve = _worker_serve
    hypercorn.trio.worker_serve = _worker_serve  # type: ignore[attr-defined]  # imported there


async def _worker_serve(  # noqa: ASYNC114, ASYNC128 - the server starts it
    app: AppWrapper,
    config: Config,
    *,
    sockets: Sockets | None = None,
    shutdown_trigger: Callable[..., Awaitable[None]] | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Replace `hypercorn.trio.run.worker_serve` of Hypercorn 0.18.0."""
    try:
        server = Server(app, config)
    except InvalidSettings as error:
        if sockets is None:
            raise
        raise SystemExit(f"penstock: {error}") from None  # from the command line: one line
    # Hypercorn's master passes both to its workers; its command line without a master passes
    # sockets only.
    worker = sockets is not None and shutdown_trigger is not None
    try:
        await server.serve(
            shutdown_trigger=shutdown_trigger,
            sockets=sockets,
            worker=worker,
            tune_process=sockets is not None,  # Hypercorn's command line, and not `trio.serve`
            task_status=task_status,
        )
    except LifespanFailed as error:
        if sockets is None:
            raise
        raise SystemExit(f"penstock: {error.describe(config.application_path)}") from None
