"""What a row is: what is done, what was promised for it, and what came of it.

A row is data. Its function is given a `Site`, a server in the state the row asks for, does what the
row says from the outside, and returns an `Outcome`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from faults_clients import PATIENCE, Connection, Http1, Http2
from faults_servers import Running, Settings, Way
from processes import wait_until

C = TypeVar("C", bound=Connection)

# Seconds after which a server that should have acted is said not to have. More than any promise
# that is measured, and less than anybody would like to wait.
BOUND: Final = 4.0

EVERY_WAY: Final = (Way.SERVE, Way.INSTALL_SERVE, Way.INSTALL_CLI)

PLAIN: Final = Settings()
TLS: Final = Settings(tls=True)
H2C: Final = Settings(http2=True)

# The two protocols that one HTTP/1.1 client speaks, and the ways that have to pass with each.
BOTH: Final = (("HTTP/1.1", PLAIN, EVERY_WAY), ("TLS", TLS, (Way.SERVE,)))


class Skipped(Exception):
    """What the row needs is not here; the message names it."""


@dataclass(frozen=True)
class Outcome:
    """What was measured."""

    kept: bool
    text: str
    late: bool = False
    """It came, only not in time."""


class Stock(StrEnum):
    """What the stock server is known to do."""

    FAILS = "fails"
    """It breaks the promise: the row bites. That it keeps it would be a fault of the row."""
    KEEPS = "keeps"
    """It keeps the promise, or nothing is said of it: the row only guards Penstock."""
    ABSENT = "-"
    """There is nothing to measure."""


class Site:
    """A server, and the clients that one row has there; they are gone when its block is left.

    With a ``patience``, what is promised may take so many seconds: that it happens is judged, and
    not when.
    """

    _keys = count(1)

    def __init__(self, running: Running, patience: float = 0) -> None:
        self.running = running
        self.patience = patience
        self._clients = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._clients.close()

    @property
    def way(self) -> Way:
        """How the server was started."""
        return self.running.way

    @property
    def settings(self) -> Settings:
        """What the server was started with."""
        return self.running.settings

    def within(self, seconds: float | None, limit: float, bound: float = BOUND) -> Outcome:
        """Judge a time, None if it had not come after ``bound`` seconds."""
        limit, bound = max(limit, self.patience), max(bound, self.patience)
        if seconds is None:
            return Outcome(False, f"> {bound:g} s")
        figure = f"{seconds * 1000:.1f} ms" if seconds < 0.2 else f"{seconds:.2f} s"
        return Outcome(seconds <= limit, figure, late=seconds > limit)

    def ends(self, client: Connection, limit: float, bound: float) -> Outcome:
        """Wait for the server to close a connection, and judge when it did."""
        return self.within(client.ends(max(bound, self.patience)), limit, bound)

    def key(self) -> str:
        """Return a name for a stream that no other has."""
        return f"k{next(self._keys)}"

    def http1(self, receive_buffer: int | None = None) -> Http1:
        """Connect with HTTP/1.1."""
        return self._keep(Http1(self.running, receive_buffer=receive_buffer))

    def http2(self, window: int | None = None, receive_buffer: int | None = None) -> Http2:
        """Connect with HTTP/2."""
        return self._keep(Http2(self.running, window=window, receive_buffer=receive_buffer))

    def _keep(self, client: C) -> C:
        self._clients.callback(client.close)
        return client

    def stream(self, path: str, key: str, *, more: bytes = b"", query: str = "") -> Http1:
        """Open an HTTP/1.1 stream, and wait for its first bytes and for its producer."""
        client = self.http1()
        client.get(f"/{path}/{key}{query}", more=more)
        client.read_until(b":\n")
        self.noted(key, "started")
        return client

    def noted(self, key: str, what: str, within: float = PATIENCE) -> dict[str, Any]:
        """Wait for a line that a producer notes."""

        def find() -> dict[str, Any] | None:
            said = (note for note in self.running.notes() if (note["key"], note["what"]) == want)
            return next(said, None)

        want = (key, what)
        return wait_until(find, within=within)

    def released(self, key: str, since: float, bound: float = BOUND) -> float | None:
        """Return the seconds from a moment until nothing works for a client any more.

        Then its producer's `finally` has run, and the application's call has returned. None: not
        within the bound.
        """
        bound = max(bound, self.patience)
        try:
            note = self.noted(key, "returned", max(0.0, since + bound - time.monotonic()))
            self.noted(key, "finally", 0.0)
        except AssertionError:
            return None
        return max(0.0, float(note["at"]) - since)

    def stopped(self, number: int, bound: float) -> tuple[int | None, float | None]:
        """Send the server a signal; return its status and the seconds it took, None if too many."""
        bound = max(bound, self.patience)
        start = time.monotonic()
        self.running.server.process.send_signal(number)
        while time.monotonic() - start < bound:
            status = self.running.server.process.poll()
            if status is not None:
                return status, time.monotonic() - start
            time.sleep(0.005)
        return None, None


Measure = Callable[[Site], Outcome]


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    number: str
    """As in the list of known faults; what is in no list begins with a G, for the guarantee."""
    what: str
    protocol: str
    measure: Measure
    promised: str
    stock: Stock = Stock.FAILS
    settings: Settings = field(default_factory=Settings)
    ways: tuple[Way, ...] = (Way.SERVE,)
    alone: bool = False
    """Needs a server of its own: it stops it, or weighs it."""
    around: Callable[[Settings], AbstractContextManager[Settings]] = nullcontext
    """What has to be there before the server."""
    starts: bool = True
    """Whether the server is to listen at all."""
    long: bool = False
    """Waits for more than five seconds."""
    quick: bool = False
    """Its figure is near its bound, or tiny, so nothing else is measured on Penstock meanwhile."""

    def __str__(self) -> str:
        return f"{self.number} {self.what} ({self.protocol})"
