"""The crowd: thousands of clients at a time, each with a fate of its own, by chance and by seed.

    python torture_bad.py AUTHORITY PLAIN_PORT TLS_PORT

Told ``run``, it keeps a number of clients there for a number of seconds, sees them off over a few
more, and answers what became of them. No more than `PACE` come in a second: a server that did
nothing but accept would show nothing else. Those that vanished stay so until it is told to ``end``.
"""

from __future__ import annotations

import random
import ssl
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import torture_fates
import torture_fates_h2
import trio
from torture_child import SLACK, parent
from torture_fates import FATES, Fate
from torture_fates_h2 import FATES_H2
from torture_wire import Broken, Visit

# New clients in a second, at most.
PACE: Final = 120.0

# Seconds that a fate may take beyond the client's own stay, whatever the server does.
FATE_LIMIT: Final = 25.0 * SLACK

ALL_FATES: Final = {**FATES, **FATES_H2}
POLITE: Final[Mapping[str, tuple[Fate, float]]] = {
    "polite": (torture_fates.polite, 3),
    "HTTP/2: polite": (torture_fates_h2.polite, 1),
}


class Crowd:
    """A number of clients at a time, for a while."""

    def __init__(self, ports: tuple[int, int], tls: Mapping[str, ssl.SSLContext]) -> None:
        self.ports = ports
        self.tls = tls
        self.vanished: list[trio.socket.SocketType] = []

    async def run(
        self, *, fates: list[str], clients: int, seconds: float, seed: int, limit: float
    ) -> dict[str, Any]:
        """Have clients come, and come again, and say what became of them."""
        known = {**ALL_FATES, **POLITE}
        round_ = Round(self, {name: known[name] for name in fates}, clients, seed, limit)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(round_.fill, nursery)
            await trio.sleep(seconds)
            round_.see_off()
        return round_.told()


class Round:
    """One round of the crowd."""

    def __init__(
        self,
        crowd: Crowd,
        fates: Mapping[str, tuple[Fate, float]],
        clients: int,
        seed: int,
        limit: float,
    ) -> None:
        self.crowd = crowd
        self.fates = fates
        self.limit = limit
        self.rng = random.Random(seed)
        self.slots = trio.CapacityLimiter(clients)
        # Seconds that keep so many there at that pace, with something to spare for short fates.
        self.mean_life = 1.3 * clients / PACE
        self.stays: set[trio.CancelScope] = set()
        self.over = False
        self.most = 0
        self.came: Counter[str] = Counter()
        self.early: Counter[str] = Counter()
        self.broken: dict[str, Counter[str]] = {}
        self.waited: dict[str, list[float]] = {name: [] for name in fates}

    async def fill(self, nursery: trio.Nursery) -> None:
        """Let the next one in, no sooner than the pace allows, when there is room."""
        due = trio.current_time()
        names = list(self.fates)
        weights = [weight for _, weight in self.fates.values()]
        while not self.over:
            # What was missed is not made up for: that would be a burst.
            due = max(due + 1 / PACE, trio.current_time())
            await trio.sleep_until(due)
            borrower = object()
            await self.slots.acquire_on_behalf_of(borrower)
            (name,) = self.rng.choices(names, weights)
            nursery.start_soon(self.live, name, self.rng.random(), borrower)

    def see_off(self) -> None:
        """End the round: all who are there commit their deeds, over a while, not at once."""
        self.over = True
        now, rng = trio.current_time(), random.Random(self.rng.random())
        for scope in self.stays:
            scope.deadline = min(scope.deadline, now + rng.uniform(0, self.mean_life))

    async def live(self, name: str, seed: float, borrower: object) -> None:
        """Live one client's life, and note how it ended."""
        rng = random.Random(seed)
        self.came[name] += 1
        self.most = max(self.most, self.slots.borrowed_tokens)
        life = rng.uniform(0, 0.5 if self.over else 2 * self.mean_life)
        visit = Visit(rng, self.crowd.ports, self.crowd.tls, life, self.limit, self.stays)
        try:
            with trio.move_on_after(life + FATE_LIMIT) as scope:
                await self.fates[name][0](visit)
            if scope.cancelled_caught:
                raise Broken(f"nothing for {FATE_LIMIT:g} s")
        except Broken as error:
            self.broken.setdefault(name, Counter())[str(error)] += 1
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            self.early[name] += 1  # the server had ended it already
        finally:
            self.slots.release_on_behalf_of(borrower)
            self.waited[name] += visit.waited
            self.crowd.vanished += visit.sockets

    def told(self) -> dict[str, Any]:
        """Return what became of them all."""
        return {
            "most": self.most,
            "fates": {
                name: {
                    "came": self.came[name],
                    "early": self.early[name],
                    "broken": self.broken.get(name, {}),
                    "longest": max(self.waited[name], default=None),
                }
                for name in self.fates
            },
        }


async def main(arguments: list[str]) -> None:
    """Do as told, until told to end."""
    authority, plain, secure = arguments
    tls = {}
    for protocol in ("http/1.1", "h2"):
        tls[protocol] = ssl.create_default_context(cafile=authority)
        tls[protocol].set_alpn_protocols([protocol])
    crowd = Crowd((int(plain), int(secure)), tls)
    async with parent() as told:
        while (command := await told.command()) and command.pop("do") == "run":
            told.answer(await crowd.run(**command))


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
