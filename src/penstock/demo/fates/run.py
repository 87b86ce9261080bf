"""One client with its fate, from its start to what became of it."""

from __future__ import annotations

import secrets
import time
from typing import Any, Final, final

import trio

from penstock.close_reason import CloseReason
from penstock.demo.fates.producers import producer_of
from penstock.demo.fates.table import HEALTHY_EVENTS, Fate, Promise
from penstock.stream.event_stream import EventStream
from penstock.stream.producer import Producer

__all__ = ["Run"]

# Seconds after which a stream that nothing ends is given up: more than twice what is promised.
_PATIENCE: Final = 60.0


@final
class Run:
    """What is known of one client.

    Attributes:
      number: by which it asks for its stream.
      key: without which nobody gets that stream; nobody is told it.
      fate: its own.
      promise: what was promised for it when it was started.
      scope: all that the client does is in it.
      producer: what its stream is fed by.
      stream: its stream, once it has asked for it.
      heard: how many events it has heard, once it listens no more.
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
        """Note that now that is done of which the promise tells what follows."""
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
