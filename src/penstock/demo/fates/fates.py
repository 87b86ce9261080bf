"""Clients with a fate, from their start to what became of them."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from typing import Any, Final, final

import h11
import trio

from penstock.close_reason import CloseReason
from penstock.demo.fates.client import Client, Unanswered, Where
from penstock.demo.fates.producers import producer_of
from penstock.demo.fates.table import FATES, HEALTHY_EVENTS, Fate, Promise, promise_of
from penstock.hypercorn import Settings
from penstock.stream.event_stream import EventStream
from penstock.stream.producer import Producer

__all__ = ["LIMIT", "Fates", "Run", "TooMany"]

# Seconds after which a stream that nothing ends is given up: more than twice what is promised.
_PATIENCE: Final = 60.0


@final
class Run:
    """What is known of one client.

    Attributes:
      number: by which it asks for its stream.
      key: a secret that its request for the stream has to carry.
      fate: its own.
      promise: what was promised for it when it was started.
      scope: all that the client does is in it.
      producer: what its stream is fed by.
      stream: its stream, once it has asked for it.
      heard: the number of events it has received, once it has stopped reading.
      error: what came between, in a sentence.
      broken: whether that breaks the promise, and does not only keep one from telling.
    """

    def __init__(self, number: int, fate: Fate, promise: Promise) -> None:
        self.number: int = number
        self.key: str = secrets.token_urlsafe(16)
        self.fate: Fate = fate
        self.promise: Promise = promise
        self.scope: trio.CancelScope = trio.CancelScope()
        self.producer: Producer = producer_of(fate.name, self.hurt)
        self.stream: EventStream | None = None
        self.heard: int | None = None
        self.error: str | None = None
        self.broken: bool = False
        self._since = _unix()
        self._hurt: int | None = None
        self._hurt_at: float | None = None
        self._took: float | None = None
        self._kept: bool | None = None
        self._ended_as: CloseReason | None = None
        self._over = False

    def __repr__(self) -> str:
        return f"<Run {self.number} of {self.fate.title}{', over' if self._over else ''}>"

    @property
    def over(self) -> bool:
        """Whether the client has ended, and its stream with it or for good not."""
        return self._over

    @property
    def patience(self) -> float:
        """Seconds after which its stream is given up, counted from when it was hurt."""
        return max(_PATIENCE, 2 * (self.promise.within or 0) / 1000)

    def hurt(self) -> None:
        """Note the moment from which the promise counts: its client was just hurt."""
        self._hurt, self._hurt_at = _unix(), trio.current_time()

    def stream_closed(self) -> None:
        """Note that nothing works for the client any more."""
        if self._hurt_at is not None:
            self._took = round((trio.current_time() - self._hurt_at) * 1000, 1)

    def end(self) -> None:
        """Note that it is over: compare what became of it with the promise."""
        reason = self._ended_as = self._reason()
        self._over = True
        if self.error is None:
            self._kept = self.promise.kept(reason, self._took)
            if self.fate.name == "healthy" and self._kept:
                self._kept = self.heard == HEALTHY_EVENTS
        elif self.broken and self.promise.reasons and reason is not CloseReason.DRAINING:
            self._kept = False

    def row(self) -> dict[str, Any]:
        """Return all of it, as JSON knows it."""
        return {
            "id": self.number,
            "fate": self.fate.name,
            "title": self.fate.title,
            "state": "ended" if self._over else "running",
            "since": self._since,
            "hurt": self._hurt,
            "reason": self._reason(),
            "took": self._took,
            "sent": 0 if self.stream is None else self.stream.statistics().events_sent,
            "heard": self.heard,
            "promise": self.promise.as_json(),
            "kept": self._kept,
            "error": self.error,
        }

    def _reason(self) -> CloseReason | None:
        if self._over:  # what comes later is not what was judged
            return self._ended_as
        return None if self.stream is None else self.stream.close_reason


def _unix() -> int:
    """Return the Unix time in milliseconds, as a browser's clock has it."""
    return round(time.time() * 1000)


# Clients with a fate at one time, and rows of those that are over.
LIMIT: Final = 20
_KEPT: Final = 20

# Seconds in which a client leaves that leaves by itself: enough to be seen before.
_BEFORE: Final = 1.5

# Seconds until a stream has begun.
_BEGIN: Final = 10.0

# Clients that do not read, and so leave everything to the server's buffers.
_STALLED: Final = frozenset({"stops-reading", "byte-a-second"})

_logger = logging.getLogger(__name__)


class TooMany(Exception):
    """There are as many as may be; the message says so."""


@final
class Fates:
    """Clients that run beside the application, each in a task of its own.

    Args:
      nursery: returns the application's nursery, in which they run; asked at each start.
    """

    def __init__(self, nursery: Callable[[], trio.Nursery]) -> None:
        self._nursery = nursery
        self._runs: list[Run] = []
        self._number = 0

    def __repr__(self) -> str:
        running = sum(not run.over for run in self._runs)
        return f"<Fates {running} running, {self._number} started>"

    def start(self, name: str, where: Where, settings: Settings | None) -> dict[str, Any]:
        """Start a client, and return its row. Synchronous.

        Args:
          name: of `FATES`.
          where: the server that it comes to.
          settings: what that server promises; None: nothing.

        Raises:
          TooMany: as many as may be are running.
        """
        if sum(not run.over for run in self._runs) >= LIMIT:
            raise TooMany(f"{LIMIT} clients with a fate are running: wait until one has ended")
        fate = FATES[name]
        self._number += 1
        run = Run(self._number, fate, promise_of(fate, settings))
        self._nursery().start_soon(self._live, run, where, name=fate.task)
        self._runs.append(run)
        return run.row()

    def claim(self, number: int, key: str) -> Run | None:
        """Return the client with this number if the key is its own; each claims its stream once."""
        for run in self._runs:
            if run.number == number and run.stream is None and not run.over:
                return run if secrets.compare_digest(run.key.encode(), key.encode()) else None
        return None

    def rows(self) -> list[dict[str, Any]]:
        """Return what is known of each that is running and of the last that are over, by age."""
        return [run.row() for run in self._runs]

    def stop(self) -> None:
        """Cancel all: the application ends. Synchronous; the nursery waits for them."""
        for run in self._runs:
            run.scope.cancel()

    async def _live(self, run: Run, where: Where) -> None:
        """Be the client: whatever goes wrong is told in its row, and goes no further."""
        try:
            with run.scope:
                await _meet(run, where)
            if run.scope.cancelled_caught:
                run.error = "the server stopped"
        except* (Unanswered, trio.TooSlowError) as errors:
            run.error = str(errors.exceptions[0]) or f"no stream within {_BEGIN:g} s"
        except* (OSError, trio.BrokenResourceError, h11.RemoteProtocolError) as errors:
            run.error = f"the connection failed: {errors.exceptions[0]}"
            run.broken = run.fate.name == "healthy" and run.stream is not None
        except* Exception as errors:
            _logger.error("%s: a fault of the demonstration", run.fate.task, exc_info=errors)
            run.error = f"a fault of the demonstration: {errors.exceptions[0]!r}"
        finally:
            run.end()
            for old in [each for each in self._runs if each.over][:-_KEPT]:
                self._runs.remove(old)


async def _meet(run: Run, where: Where) -> None:
    """Connect, meet the fate, and wait for the stream's end on the server."""
    async with Client.connected(where, small=run.fate.name in _STALLED) as client:
        with trio.fail_after(_BEGIN):
            await client.ask(f"/fates/{run.number}", run.key)
        stream = run.stream
        if stream is None:
            raise Unanswered("something else than this demonstration answered")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_suffer, run, client, name=f"fate of {run.fate.task}")
            with trio.move_on_after(run.patience) as waiting:
                await stream.wait_closed()
                run.stream_closed()
            if waiting.cancelled_caught:
                run.error = f"its stream has not ended in {run.patience:g} s"
                run.broken = True
            if waiting.cancelled_caught or run.fate.name in _STALLED:
                nursery.cancel_scope.cancel()


async def _suffer(run: Run, client: Client) -> None:
    """Do what the client does once its stream has begun."""
    match run.fate.name:
        case "healthy" | "raises":
            await client.read_to_the_end()
            run.heard = client.heard
        case "stops-reading":
            run.hurt()
        case "byte-a-second":
            run.hurt()
            await client.sip()
        case "vanishes":
            await client.read_for(_BEFORE)
            client.vanish()  # which a kernel may refuse, and then nothing was done to it
            run.hurt()
        case leaving:
            await client.read_for(_BEFORE)
            run.hurt()
            {"closes": client.close, "resets": client.reset}[leaving]()
