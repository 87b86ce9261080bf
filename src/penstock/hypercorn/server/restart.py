"""A server process that ends in good order, and starts its own command again in its place.

The number of the process stays, and with it who waits for it: a shell, a supervisor, a test. What
it had in memory is lost; its files, its environment and its directory are what they were.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final, final

import trio

__all__ = ["RESTART", "Restart"]

# The entry of an ASGI scope's "extensions" in which a server offers its `Restart`.
RESTART: Final = "penstock.hypercorn.server.restart"

_logger = logging.getLogger(__name__)


@final
class Restart:
    """What an application may ask for, and the server does when it has ended.

    Args:
      why_not: why it cannot be done here, in a sentence; None: it can.

    Attributes:
      why_not: as given; the server may find out later that it cannot be done, or not any more.
      asked: set when it was asked for.
    """

    def __init__(self, *, why_not: str | None = None) -> None:
        self.why_not: str | None = why_not
        self.asked: trio.Event = trio.Event()

    def offered_to(self, app: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        """Return an ASGI application with the offer in the scope of each of its requests."""

        async def offering(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                scope["extensions"][RESTART] = self
            await app(scope, receive, send)

        return offering

    @property
    def due(self) -> bool:
        """Whether it was asked for, and nothing is against it."""
        return self.asked.is_set() and self.why_not is None

    def ask(self) -> None:
        """Have the server stop, and start again if it can. Synchronous; once is enough."""
        self.asked.set()

    def take_place(self) -> None:
        """Start the command again in this process, if that is due; else do nothing.

        Called when nothing is running any more. It does not return then: of this program nothing is
        left, and `atexit` functions do not run. A signal before and after it ends the process.

        Raises:
          SystemExit: the command cannot be started again; the log says why.
        """
        if not self.due:
            return
        command = [sys.executable, *sys.orig_argv[1:]]
        _logger.info("Starting again: %s", shlex.join(command))
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            os.execv(sys.executable, command)
        except OSError as error:
            _logger.error("Cannot start again: %s: %s", sys.executable, error.strerror)
            raise SystemExit(1) from None
