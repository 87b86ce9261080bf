"""The load clients: Go programs that print a line of JSON for each phase they reach."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench_servers import BenchError

__all__ = ["LoadClient", "loading"]


class LoadClient:
    """A load client that runs, on the core that this process is on."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def reach(self, phase: str) -> dict[str, Any]:
        """Wait until the client has reached its next phase, and return that one's figures.

        Raises:
          BenchError: the client ended before.
        """
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        text = self._process.stdout.readline()
        if not text:
            raise BenchError(f"the load client ended: {self._process.stderr.read().strip()}")
        line: dict[str, Any] = json.loads(text)
        assert line["phase"] == phase
        return line


@contextmanager
def loading(command: Sequence[str]) -> Iterator[LoadClient]:
    """Run a load client for the length of the block; it holds its connections until the end."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield LoadClient(process)
            process.communicate()
        finally:
            process.kill()
