"""One measurement of a hub: a rate of events, so many subscribers, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from bench_hubs import Hub, load_command
from bench_load import loading
from bench_machine import Machine
from bench_servers import serving

__all__ = ["FanOut", "measure_fan_out"]

# Below this part of what is to be delivered, a server is said not to keep up. What is on its way at
# one end of the measuring and not at the other is much less.
KEPT_UP: Final = 0.97

# Above this part of its core, the load client may itself be what is late.
LOAD_LIMIT: Final = 0.95


@dataclass(frozen=True)
class FanOut:
    """What one hub did at a rate, with so many subscribers.

    Lateness is in milliseconds, since the event was published, or was due; CPU in seconds per
    second (a core), or in microseconds per delivered event; memory in bytes.
    """

    server: str
    clients: int
    rate: float
    deliveries: float  # per second
    p50: float
    p99: float
    maximum: float
    p99_due: float
    size: float  # of an event on the wire, with its part of the chunk's frame, in bytes
    cpu: float
    cpu_per_delivery: float
    disturbed: float  # the part of the time for which it was ready to run, and others had the core
    dropped: int  # events that a client did not have, summed over those that are still there
    early: int  # of those, events between the client's answer and its first event
    repeated: int
    lost: int
    unanswered: int
    reason: str  # of the first loss
    memory: float  # per client
    load_cpu: float

    @property
    def saturated(self) -> bool:
        """Whether the server could not deliver what was to be published."""
        short = self.deliveries < KEPT_UP * self.rate * self.clients
        return short or self.dropped > 0 or self.lost > 0

    @property
    def notes(self) -> str:
        """What a reader of the figures must know."""
        notes = ["saturated"] if self.saturated else []
        if self.load_cpu > LOAD_LIMIT:
            notes.append("load client saturated: do not trust it")
        return ", ".join(notes)


def measure_fan_out(
    hub: Hub, clients: int, rate: float, seconds: float, *, machine: Machine
) -> FanOut:
    """Start a hub, have the clients subscribe, and measure for so many seconds of publishing.

    Raises:
      BenchError: the server or the load client ended, or never began.
    """
    with serving(hub.server, core=machine.core, work=machine.work) as running:
        before = running.rss()
        command = load_command(
            hub, running.port, machine, clients=clients, rate=rate, seconds=seconds
        )
        with loading(command) as load:
            load.reach("connected")
            load.reach("measuring")
            used, waited = running.cpu(), running.waited()
            done = load.reach("done")
            used, waited = running.cpu() - used, running.waited() - waited
            grown = running.rss() - before
            checked = load.reach("checked")
    return _row(hub.server.name, clients, rate, done, checked, used, waited, grown)


def _row(
    name: str,
    clients: int,
    rate: float,
    done: dict[str, Any],
    checked: dict[str, Any],
    used: float,
    waited: float,
    grown: int,
) -> FanOut:
    seconds, delivered = done["seconds"], done["delivered"]
    return FanOut(
        server=name,
        clients=clients,
        rate=rate,
        deliveries=delivered / seconds,
        p50=done["p50"],
        p99=done["p99"],
        maximum=done["max"],
        p99_due=done["due_p99"],
        size=done["bytes"] / delivered if delivered else 0,
        cpu=used / seconds,
        cpu_per_delivery=1e6 * used / delivered if delivered else 0,
        disturbed=waited / seconds,
        dropped=checked["missing"] + checked["early"],
        early=checked["early"],
        repeated=checked["repeated"],
        lost=checked["lost"],
        unanswered=checked["unanswered"],
        reason=checked["reason"],
        memory=grown / clients,
        load_cpu=done["cpu"] / seconds,
    )
