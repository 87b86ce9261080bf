"""Restarting: the demonstration asks for it, and the command that serves it starts itself again.

The process keeps its number, and with it whoever waits for it: a shell, a supervisor, a test. What
it had in memory is lost; its files, its environment and its directory stay.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from typing import final

import trio

__all__ = ["Restart"]

_logger = logging.getLogger(__name__)


@final
class Restart:
    """A request of the application to the command that serves it.

    Args:
      why_not: why the command cannot be started again, in a sentence; None: it can.

    Attributes:
      why_not: as given; the command may also set it later.
      requested: set when the application asks for the restart.
    """

    def __init__(self, *, why_not: str | None = None) -> None:
        self.why_not: str | None = why_not
        self.requested: trio.Event = trio.Event()

    @property
    def due(self) -> bool:
        """Whether it was requested, and nothing is against it."""
        return self.requested.is_set() and self.why_not is None

    def request(self) -> None:
        """Have the server stop, and start again if it can. Synchronous and idempotent."""
        self.requested.set()

    def execute(self) -> None:
        """Replace this process by the same command if a restart is due; else do nothing.

        Call it when nothing is running any more: `atexit` functions do not run. It does not return
        if a restart is due.

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
