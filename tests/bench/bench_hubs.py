"""The hubs that are compared: what is published once comes to all of their subscribers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from bench_machine import Machine
from bench_nchan import nchan
from bench_servers import Server, go, penstock, uvicorn

__all__ = ["HUBS", "JOINED", "Hub", "load_command"]

# sse-starlette's hub that yields all that waits at once, as the Go hub writes it.
JOINED: Final = "sse-starlette-joined"

READY: Final = "/statistics"


@dataclass(frozen=True)
class Hub:
    """One of the hubs compared.

    Args:
      server: which serves it.
      subscribe: the path of its stream.
      publish: the path that the load client publishes to, or None: then the server itself does.
    """

    server: Server
    subscribe: str = "/subscribe"
    publish: str | None = None


HUBS: Final = {
    hub.server.name: hub
    for hub in (
        Hub(Server("go", partial(go, "hub"), ready=READY)),
        Hub(Server("sse-starlette", partial(uvicorn, "hub_starlette:app"), ready=READY)),
        Hub(Server(JOINED, partial(uvicorn, "hub_starlette:app"), ready=READY), "/joined"),
        Hub(Server("nchan", nchan, ready=READY), publish="/publish"),
        Hub(Server("penstock", partial(penstock, "hub_penstock:app"), ready=READY)),
    )
}


def load_command(
    hub: Hub, port: int, machine: Machine, *, clients: int, rate: float, seconds: float
) -> Sequence[str]:
    """Return the command that runs the load client."""
    command = [str(machine.work / "bin" / "fanout"), f"--port={port}", f"--path={hub.subscribe}"]
    command += [f"--clients={clients}", f"--rate={rate:g}", f"--window={seconds}s"]
    return command if hub.publish is None else [*command, f"--publish={hub.publish}"]
