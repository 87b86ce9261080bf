"""The machine that is measured on: its cores, its limits, and a folder to work in."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench_servers import BenchError

__all__ = ["BASES", "Machine", "prepare"]

# The servers that the others' figures are divided by.
BASES: Final = ("go", "sse-starlette")

# Descriptors that a server needs beside its connections.
SPARE_FILES: Final = 100


@dataclass(frozen=True)
class Machine:
    """Where measuring takes place.

    Args:
      work: where the Go programs are, and the servers' logs go.
      core: the servers'; the load client has the one that this process is on.
    """

    work: Path
    core: int


def prepare(clients: int, work: Path) -> Machine:
    """Allow for so many clients' files, and take the load client's core.

    Raises:
      BenchError: the machine is too small.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < clients + SPARE_FILES:
        raise BenchError(f"{clients} clients need more open files than the {hard} allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchError("two cores are needed, one for the server and one for the clients")
    os.sched_setaffinity(0, {cores[1]})
    return Machine(work, cores[0])
