"""The fates that a client can have, and what the server promises for each.

The times follow from the settings of the server that is running, as the README's table of the
guarantee has them. Another server promises nothing here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, final

from penstock.close_reason import CloseReason
from penstock.hypercorn import Settings
from penstock.stream.event_stream import DEFAULT_KEEP_ALIVE

__all__ = [
    "FATES",
    "HEALTHY_EVENTS",
    "HEALTHY_PERIOD",
    "NO_PROMISE",
    "Fate",
    "Promise",
    "promise_of",
]

# Events that the producer of a healthy client sends, and the seconds between two.
HEALTHY_EVENTS: Final = 10
HEALTHY_PERIOD: Final = 0.25

# Seconds that the server may take beyond its time-out for a client that does not read, and to send
# the last bytes of a stream whose producer has ended.
_GRACE: Final = 0.5

# Seconds within which a closed connection is noticed; also when the server is busy.
_AT_ONCE: Final = 0.05


@final
@dataclass(frozen=True, slots=True)
class Promise:
    """How a stream is to end."""

    reasons: tuple[CloseReason, ...]
    """The reasons that are right; without any, nothing is promised."""
    within: int | None
    """Milliseconds from the moment it was hurt until nothing works for it any more, or no limit."""
    text: str
    """The same in a sentence."""

    def kept(self, reason: CloseReason | None, took: float | None) -> bool | None:
        """Tell whether a stream has ended as promised; None where that cannot be said.

        Args:
          reason: why it ended; None: it did not.
          took: after how many milliseconds.
        """
        if not self.reasons or reason is CloseReason.DRAINING:  # the server stopped before
            return None
        in_time = self.within is None or (took is not None and took <= self.within)
        return reason in self.reasons and in_time

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        return {"reasons": list(self.reasons), "within": self.within, "text": self.text}


NO_PROMISE: Final = Promise((), None, "no promise: this is not Penstock's server")


@final
@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to a client, or to its producer."""

    name: str
    title: str
    task: str
    """The name of the client's task."""
    promise: Callable[[Settings], Promise]


def promise_of(fate: Fate, settings: Settings | None) -> Promise:
    """Return what a server promises for a fate; None are the settings of another server."""
    return NO_PROMISE if settings is None else fate.promise(settings)


def _healthy(settings: Settings) -> Promise:
    seconds = HEALTHY_EVENTS * HEALTHY_PERIOD
    text = (
        f"finished within {_GRACE:g} s of its end: its producer sends {HEALTHY_EVENTS} events in "
        f"{seconds:g} s and returns, and it hears them all"
    )
    return Promise((CloseReason.FINISHED,), round(_GRACE * 1000), text)


def _at_once(settings: Settings) -> Promise:
    milliseconds = round(_AT_ONCE * 1000)
    text = f"disconnected within {milliseconds} ms: the kernel tells the server at once"
    return Promise((CloseReason.DISCONNECTED,), milliseconds, text)


def _slow(settings: Settings) -> Promise:
    within = settings.send_timeout + _GRACE
    text = f"slow within {within:g} s: send_timeout ({settings.send_timeout:g} s) and {_GRACE:g} s"
    return Promise((CloseReason.SLOW,), round(within * 1000), text)


def _vanished(settings: Settings) -> Promise:
    patience = settings.tcp_user_timeout
    if patience is None:
        return Promise((), None, "no promise: tcp_user_timeout is off, and the system's is minutes")
    within = patience + DEFAULT_KEEP_ALIVE
    text = (
        f"disconnected within {within:g} s: tcp_user_timeout ({patience:g} s) and keep-alive "
        f"({DEFAULT_KEEP_ALIVE:g} s); as two events a second are sent, it takes about the first"
    )
    return Promise((CloseReason.DISCONNECTED,), round(within * 1000), text)


def _raised(settings: Settings) -> Promise:
    text = (
        f"failed within {_GRACE:g} s: that stream ends, with one traceback in the log, and no "
        "other notices"
    )
    return Promise((CloseReason.FAILED,), round(_GRACE * 1000), text)


FATES: Final = {
    fate.name: fate
    for fate in (
        Fate("healthy", "a healthy client", "healthy client", _healthy),
        Fate("closes", "a client that closes", "client that closes", _at_once),
        Fate("resets", "a client that resets", "client that resets", _at_once),
        Fate("stops-reading", "a client that stops reading", "client that stops reading", _slow),
        Fate(
            "byte-a-second",
            "a client that reads a byte a second",
            "client that reads a byte a second",
            _slow,
        ),
        Fate("vanishes", "a client that vanishes", "client that vanishes", _vanished),
        Fate("raises", "a producer that raises", "client of a producer that raises", _raised),
    )
}
