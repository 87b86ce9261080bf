"""The switch for a crowd: a program of clients beside the server, and how many are there."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, final

import trio

from penstock.demo.fates.client import Where
from penstock.hypercorn import Settings
from penstock.hypercorn.server.process import file_descriptor_limit

__all__ = ["CROWD", "Crowds", "NoRoom"]

# Clients of a crowd, unless fewer are asked for.
CROWD: Final = 1000

# Seconds over which they come.
_OVER: Final = 3.0

# File descriptors for all others.
_RESERVED: Final = 256

_logger = logging.getLogger(__name__)

# Run as a file: as a module of this package, it would import the demonstration.
_PROGRAM: Final = str(Path(__file__).with_name("crowd.py"))


class NoRoom(Exception):
    """A crowd cannot come; the message says why, and what would help."""


@final
class Crowds:
    """At most one crowd at a time, in a process of its own.

    Args:
      nursery: returns the application's nursery, in which the process is watched.
    """

    def __init__(self, nursery: Callable[[], trio.Nursery]) -> None:
        self._nursery = nursery
        self._scope: trio.CancelScope | None = None
        self._wanted = 0
        self._open = 0
        self._error: str | None = None

    def __repr__(self) -> str:
        return f"<Crowds {self._open} of {self._wanted} open>"

    def state(self) -> dict[str, Any]:
        """Return how many are wanted and how many are there, or why not, as JSON knows it."""
        return {
            "count": CROWD,
            "wanted": self._wanted,
            "open": self._open,
            "error": self._error,
        }

    def start(self, count: int, where: Where, settings: Settings | None) -> None:
        """Have a crowd come. Synchronous.

        Args:
          count: how many.
          where: the server that they come to.
          settings: its own, if they are known.

        Raises:
          NoRoom: there is a crowd, or not enough of something for another.
        """
        if self._scope is not None:
            raise NoRoom("there is a crowd already: switch it off, and wait until it has gone")
        if (why := _why_no_room(count, settings)) is not None:
            raise NoRoom(why)
        scope = trio.CancelScope()
        self._nursery().start_soon(self._run, scope, count, where, name=f"crowd of {count}")
        self._scope, self._wanted, self._error = scope, count, None

    def stop(self) -> None:
        """Have it go. Synchronous: its process is ended soon after."""
        self._wanted = 0
        if self._scope is not None:
            self._scope.cancel()

    async def _run(self, scope: trio.CancelScope, count: int, where: Where) -> None:
        command = [sys.executable, _PROGRAM, f"{where.url}/sse", str(count), str(_OVER)]
        try:
            with scope:
                async with trio.open_nursery() as nursery:
                    # Ctrl-C is the server's: in a session of its own, the program hears nothing.
                    options = {
                        "stdin": subprocess.PIPE,
                        "stdout": subprocess.PIPE,
                        "check": False,
                        "start_new_session": True,
                    }
                    process = await nursery.start(partial(trio.run_process, command, **options))
                    async with process.stdin, process.stdout:
                        await self._listen(process.stdout)
        # The nursery is the application's, in which its hub runs, too: nothing may reach it.
        except* OSError as errors:
            self._error = f"the clients' program did not start: {_first_of(errors)}"
        except* Exception as errors:
            _logger.error("the crowd: a fault of the demonstration", exc_info=errors)
            self._error = f"a fault of the demonstration: {_first_of(errors)!r}"
        finally:
            self._scope, self._wanted, self._open = None, 0, 0

    async def _listen(self, lines: trio.abc.ReceiveStream) -> None:
        """Take what the program says, until it ends."""
        rest = b""
        async for data in lines:
            *whole, rest = (rest + data).split(b"\n")
            if whole:
                said = whole[-1].decode()
                if said.isdecimal():
                    self._open = int(said)
                else:
                    self._error = said


def _first_of(errors: BaseException) -> BaseException:
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    return errors


def _why_no_room(count: int, settings: Settings | None) -> str | None:
    limit = file_descriptor_limit()
    if limit < count + _RESERVED:
        return (
            f"this process may have {limit} files open, and {count} clients need more: "
            "raise the limit, as with `ulimit -n 4096`, before it is started"
        )
    if settings is None:
        return None
    for name in ("max_connections", "max_connections_per_address"):
        most = getattr(settings, name)
        if most is not None and most < count:
            return f"the server takes {most} connections ({name}), and {count} clients need more"
    return None
