"""The scenarios: what each does to a client or its producer, and what the server promises for it.

To add a scenario, add an entry to `SCENARIOS`. Promises follow from the settings of the running
server, as in the README's table of the guarantee; for another server nothing is promised.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, final

import trio

from penstock.close_reason import CloseReason
from penstock.demo.scenarios.client import Client
from penstock.event import ServerSentEvent
from penstock.hypercorn import Settings
from penstock.stream.event_stream import DEFAULT_KEEP_ALIVE
from penstock.stream.producer import Producer
from penstock.stream.ticker import Ticker

__all__ = ["NO_PROMISE", "SCENARIOS", "Promise", "Scenario", "promise_of"]

Events = trio.abc.SendChannel[ServerSentEvent]
Trigger = Callable[[], None]

# Events that the producer of a healthy client sends, and the seconds between two.
_HEALTHY_EVENTS: Final = 10
_HEALTHY_PERIOD: Final = 0.25

# Seconds between two events of the other small producer, as of `/sse`.
_PERIOD: Final = 0.5

# Seconds for which a stream is shown before its client leaves, or its producer raises.
_BEFORE_LEAVING: Final = 1.5
_BEFORE_RAISING: Final = 1.0

# For clients that do not read: more than any kernel buffers for one client (4 MB by Linux's
# default), so that another server's buffers fill, too; and finite, should a server buffer anything.
_BIG: Final = ServerSentEvent("x" * 2**16)
_BIG_EVENTS: Final = 128

# Seconds that the server may take beyond its time-out for a client that does not read, and to send
# the last bytes of a stream whose producer has ended.
_GRACE: Final = 0.5

# Seconds within which a closed connection is noticed, on a busy server, too.
_AT_ONCE: Final = 0.05


@final
@dataclass(frozen=True, slots=True)
class Promise:
    """How a stream has to end."""

    reasons: tuple[CloseReason, ...]
    """The reasons that keep the promise; empty if nothing is promised."""
    within: int | None
    """Milliseconds from the trigger until nothing works for the client any more, or no limit."""
    text: str
    """The same in a sentence."""

    def kept(self, reason: CloseReason | None, took: float | None) -> bool | None:
        """Return whether a stream ended as promised, or None where that cannot be judged.

        Args:
          reason: why it ended; None: it has not ended.
          took: the milliseconds that it took.
        """
        if not self.reasons or reason is CloseReason.DRAINING:  # the server stopped first
            return None
        in_time = self.within is None or (took is not None and took <= self.within)
        return reason in self.reasons and in_time

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"reasons": list(self.reasons), "within": self.within, "text": self.text}


NO_PROMISE: Final = Promise((), None, "no promise: this is not Penstock's server")


@final
@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens to a client, or to its producer."""

    name: str
    """Its name in URLs."""
    title: str
    """Its name on the page."""
    promise: Callable[[Settings], Promise]
    """What a server with these settings promises."""
    producer: Callable[[Trigger], Producer]
    """Makes the stream's producer, which calls the trigger if it causes the end."""
    act: Callable[[Client, Trigger], Awaitable[None]]
    """What the client does once its stream has begun, with a call of the trigger if it ends it."""
    stops_reading: bool = False
    """Whether the client leaves the events to the server's buffers."""
    events: int | None = None
    """How many events the client has to receive for the promise to be kept; None: any number."""

    @property
    def task(self) -> str:
        """The name of the client's task."""
        about_client = "client" in self.title
        return self.title.removeprefix("a ") if about_client else f"client of {self.title}"


def promise_of(scenario: Scenario, settings: Settings | None) -> Promise:
    """Return what a server promises for a scenario; None stands for another server's settings."""
    return NO_PROMISE if settings is None else scenario.promise(settings)


# The promises.


def _promise_finished(settings: Settings) -> Promise:
    seconds = _HEALTHY_EVENTS * _HEALTHY_PERIOD
    text = (
        f"finished within {_GRACE:g} s of its end: its producer sends {_HEALTHY_EVENTS} events in "
        f"{seconds:g} s and returns, and the client receives all of them"
    )
    return Promise((CloseReason.FINISHED,), round(_GRACE * 1000), text)


def _promise_at_once(settings: Settings) -> Promise:
    milliseconds = round(_AT_ONCE * 1000)
    text = f"disconnected within {milliseconds} ms: the kernel tells the server at once"
    return Promise((CloseReason.DISCONNECTED,), milliseconds, text)


def _promise_slow(settings: Settings) -> Promise:
    within = settings.send_timeout + _GRACE
    text = f"slow within {within:g} s: send_timeout ({settings.send_timeout:g} s) plus {_GRACE:g} s"
    return Promise((CloseReason.SLOW,), round(within * 1000), text)


def _promise_vanished(settings: Settings) -> Promise:
    timeout = settings.tcp_user_timeout
    if timeout is None:
        return Promise((), None, "no promise: tcp_user_timeout is off; the system's takes minutes")
    within = timeout + DEFAULT_KEEP_ALIVE
    text = (
        f"disconnected within {within:g} s: tcp_user_timeout ({timeout:g} s) plus keep-alive "
        f"({DEFAULT_KEEP_ALIVE:g} s); with two events a second, about the former"
    )
    return Promise((CloseReason.DISCONNECTED,), round(within * 1000), text)


def _promise_failed(settings: Settings) -> Promise:
    text = (
        f"failed within {_GRACE:g} s: that stream ends, with one traceback in the log, and no "
        "other stream is affected"
    )
    return Promise((CloseReason.FAILED,), round(_GRACE * 1000), text)


# The producers.


def _finishing(trigger: Trigger) -> Producer:
    async def produce(events: Events) -> None:
        ticker = Ticker(_HEALTHY_PERIOD)
        for number in range(1, _HEALTHY_EVENTS + 1):
            await ticker.tick()
            await events.send(ServerSentEvent(str(number)))
        trigger()

    return produce


def _raising(trigger: Trigger) -> Producer:
    async def produce(events: Events) -> None:
        await events.send(ServerSentEvent("the last"))
        await trio.sleep(_BEFORE_RAISING)
        trigger()
        raise LookupError("raised on purpose, by the demonstration's producer that raises")

    return produce


def _small_events(trigger: Trigger) -> Producer:
    async def produce(events: Events) -> None:
        ticker, number = Ticker(_PERIOD), 0
        while True:
            number += 1
            await events.send(ServerSentEvent(str(number)))
            await ticker.tick()

    return produce


def _big_events(trigger: Trigger) -> Producer:
    async def produce(events: Events) -> None:
        for _ in range(_BIG_EVENTS):
            await events.send(_BIG)
        await trio.sleep_forever()

    return produce


# The clients.


async def _read_to_the_end(client: Client, trigger: Trigger) -> None:
    await client.read_to_the_end()


async def _close(client: Client, trigger: Trigger) -> None:
    await client.read_for(_BEFORE_LEAVING)
    trigger()
    client.close()


async def _reset(client: Client, trigger: Trigger) -> None:
    await client.read_for(_BEFORE_LEAVING)
    trigger()
    client.reset()


async def _stop_reading(client: Client, trigger: Trigger) -> None:
    trigger()


async def _read_slowly(client: Client, trigger: Trigger) -> None:
    trigger()
    await client.read_a_byte_a_second()


async def _vanish(client: Client, trigger: Trigger) -> None:
    await client.read_for(_BEFORE_LEAVING)
    client.vanish()  # if the kernel refuses, nothing has happened to the client
    trigger()


SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "healthy",
            "a healthy client",
            _promise_finished,
            _finishing,
            _read_to_the_end,
            events=_HEALTHY_EVENTS,
        ),
        Scenario("closes", "a client that closes", _promise_at_once, _small_events, _close),
        Scenario("resets", "a client that resets", _promise_at_once, _small_events, _reset),
        Scenario(
            "stops-reading",
            "a client that stops reading",
            _promise_slow,
            _big_events,
            _stop_reading,
            stops_reading=True,
        ),
        Scenario(
            "byte-a-second",
            "a client that reads a byte a second",
            _promise_slow,
            _big_events,
            _read_slowly,
            stops_reading=True,
        ),
        Scenario("vanishes", "a client that vanishes", _promise_vanished, _small_events, _vanish),
        Scenario("raises", "a producer that raises", _promise_failed, _raising, _read_to_the_end),
    )
}
