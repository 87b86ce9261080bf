"""The torture's processes, and how they talk: lines of JSON, a command down, an answer up.

What all of them agree on is here, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import trio

# Seconds between the events of a well-behaved client's stream.
PERIOD: Final = 0.1

# The server's deadline for a send, and for bytes that nobody acknowledges: short enough for a test.
SEND_TIMEOUT: Final = 2.0
USER_TIMEOUT: Final = 3.0

# Seconds that one process waits for another, where nothing else is said.
PATIENCE: Final = 60.0

# What deadlines are multiplied by, in every process, on a machine that has other things to do.
SLACK: Final = float(os.environ.get("TORTURE_SLACK", "1"))


class Died(Exception):
    """A process ended that should not have, or did not answer."""


class Child:
    """A process that is told what to do."""

    def __init__(self, name: str, process: trio.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self._log = log
        self._rest = b""

    async def ask(self, do: str, *, within: float = PATIENCE, **options: Any) -> Any:
        """Send a command, and return its answer.

        Raises:
          Died: the process has ended, or says nothing in time.
        """
        assert self.process.stdin is not None
        line = json.dumps({"do": do, **options}).encode() + b"\n"
        with trio.move_on_after(within):
            try:
                await self.process.stdin.send_all(line)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise Died(await self.last_words()) from None
            return await self.answer()
        raise Died(f"{self.name} did not answer {do!r} within {within:g} s")

    async def answer(self) -> Any:
        """Return the next answer."""
        assert self.process.stdout is not None
        while b"\n" not in self._rest:
            data = await self.process.stdout.receive_some()
            if not data:
                raise Died(await self.last_words())
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    async def last_words(self) -> str:
        """Say how the process ended, and the last line of its log."""
        with trio.move_on_after(5):
            await self.process.wait()
        return f"{self.name} ended, status {self.process.returncode}: {self.last_line()}"

    def last_line(self) -> str:
        """Return the last line of the log that says something: after a traceback, the error."""
        lines = [line.strip(" |+-") for line in self.log().splitlines()]
        return next((line for line in reversed(lines) if line), "no word in its log")

    def log(self) -> str:
        """Return all that the process has written to stderr."""
        return self._log.read_text(errors="replace")

    async def end(self, *, within: float = PATIENCE) -> int | None:
        """Wait for the process to end by itself, and return its status; None: it did not."""
        with trio.move_on_after(within):
            await self.process.wait()
        return self.process.returncode


@asynccontextmanager
async def child(
    name: str,
    *arguments: str,
    folder: Path,
    cpu: int | None,
    nice: int = 0,
    env: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Child]:
    """Run one of the torture's programs for the length of the block, on one processor."""
    log = folder / f"{name}.log"
    program = str(Path(__file__).with_name(f"torture_{name}.py"))

    def settle_down() -> None:
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
        os.nice(nice)

    with log.open("wb") as stderr:
        process = await trio.lowlevel.open_process(
            [sys.executable, program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, **env},
            preexec_fn=settle_down,
        )
    try:
        yield Child(name, process, log)
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                await pipe.aclose()


class Parent:
    """In a child: who tells it what to do."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._rest = b""

    async def command(self) -> dict[str, Any] | None:
        """Return the next command, or None when the parent is gone."""
        while b"\n" not in self._rest:
            data = await self._stream.receive_some()
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        command: dict[str, Any] = json.loads(line)
        return command

    def answer(self, said: object) -> None:
        """Send an answer."""
        print(json.dumps(said), flush=True)


@asynccontextmanager
async def parent() -> AsyncIterator[Parent]:
    """Listen to the parent for the length of the block."""
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stream:
        yield Parent(stream)
