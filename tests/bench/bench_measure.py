"""One measurement: a server on its core, its clients on another, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench_load import loading
from bench_machine import Machine
from bench_servers import Server, serving

__all__ = ["Row", "measure"]


@dataclass(frozen=True)
class Row:
    """What one server did with so many clients.

    Lateness is in milliseconds, of an event after the client's previous one and half a second; CPU
    in seconds per second (a core) or per 1,000 events; memory in bytes.
    """

    server: str
    clients: int
    p50: float
    p99: float
    maximum: float
    events: float  # per second
    size: float  # of an event on the wire, with its chunk's frame, in bytes
    cpu: float
    disturbed: float  # the part of the time for which it was ready to run, and others had the core
    cpu_per_1000: float
    memory: float  # per stream
    accepts: float  # per second
    load_cpu: float
    unanswered: int
    lost: int
    reason: str  # of the first loss

    @property
    def errors(self) -> int:
        """How many clients were without their stream at the end."""
        return self.unanswered + self.lost


def measure(
    server: Server,
    clients: int,
    seconds: float,
    *,
    idle: bool,
    machine: Machine,
) -> Row:
    """Start a server, connect the clients, and measure for so many seconds.

    Args:
      server: what to start.
      clients: how many.
      seconds: of measuring, after all have connected.
      idle: whether the streams send nothing.
      machine: where.

    Raises:
      BenchError: the server or the load client ended, or never began.
    """
    with serving(server, core=machine.core, work=machine.work) as running:
        before = running.rss()
        command = [str(machine.work / "bin" / "load"), f"--port={running.port}"]
        command += [f"--clients={clients}", f"--window={seconds}s"]
        command += ["--path=/idle", "--silent"] if idle else []
        with loading(command) as load:
            connected = load.reach("connected")
            load.reach("measuring")
            used, waited = running.cpu(), running.waited()
            done = load.reach("done")
            used, waited = running.cpu() - used, running.waited() - waited
            grown = running.rss() - before
    return _row(server.name, clients, connected, done, used, waited, grown)


def _row(
    name: str,
    clients: int,
    connected: dict[str, Any],
    done: dict[str, Any],
    used: float,
    waited: float,
    grown: int,
) -> Row:
    seconds, events = done["seconds"], done["events"]
    return Row(
        server=name,
        clients=clients,
        p50=done["p50"],
        p99=done["p99"],
        maximum=done["max"],
        events=events / seconds,
        size=done["bytes"] / events if events else 0,
        cpu=used / seconds,
        disturbed=waited / seconds,
        cpu_per_1000=1000 * used / events if events else 0,
        memory=grown / max(done["kept"], 1),
        accepts=connected["answered"] / connected["seconds"],
        load_cpu=done["cpu"] / seconds,
        unanswered=done["unanswered"],
        lost=done["lost"],
        reason=done["reason"],
    )
