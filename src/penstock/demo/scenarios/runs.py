"""Runs of scenarios: clients of the server itself, each from its start to its outcome."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from typing import Any, Final, final

import h11
import trio

from penstock.close_reason import CloseReason
from penstock.demo.scenarios.catalog import SCENARIOS, Promise, Scenario, promise_of
from penstock.demo.scenarios.client import Client, ServerAddress, UnexpectedResponse
from penstock.hypercorn import Settings
from penstock.stream.event_stream import EventStream
from penstock.stream.producer import Producer

__all__ = ["MAX_RUNS", "ScenarioRun", "ScenarioRuns", "TooManyRuns"]

# Runs at a time, and finished ones that are remembered.
MAX_RUNS: Final = 20
_MAX_FINISHED: Final = 20

# Seconds until a stream has to begin.
_BEGIN: Final = 10.0

# Seconds after which a stream that does not end is given up, unless twice the promise is longer.
_GIVE_UP: Final = 60.0

_logger = logging.getLogger(__name__)


class TooManyRuns(Exception):
    """As many scenarios are running as may run; the message gives the limit."""


@final
class ScenarioRun:
    """One client, and what is known about it.

    Attributes:
      number: by which the client asks for its stream.
      key: a secret that this request has to carry.
      scenario: what happens to it.
      promise: what was promised for it at its start.
      scope: encloses all that the client does.
      producer: the producer of its stream.
      stream: its stream, once it was requested.
      received: the number of events it received, if it read its stream to the end.
      error: what interfered, in a sentence.
      broken: whether the error breaks the promise, rather than only preventing a verdict.
    """

    def __init__(self, number: int, scenario: Scenario, promise: Promise) -> None:
        self.number: int = number
        self.key: str = secrets.token_urlsafe(16)
        self.scenario: Scenario = scenario
        self.promise: Promise = promise
        self.scope: trio.CancelScope = trio.CancelScope()
        self.producer: Producer = scenario.producer(self.trigger)
        self.stream: EventStream | None = None
        self.received: int | None = None
        self.error: str | None = None
        self.broken: bool = False
        self._started = _unix_time()
        self._triggered: int | None = None
        self._triggered_at: float | None = None
        self._took: float | None = None
        self._kept: bool | None = None
        self._ended_as: CloseReason | None = None
        self._finished = False

    def __repr__(self) -> str:
        state = ", finished" if self._finished else ""
        return f"<ScenarioRun {self.number} of {self.scenario.title}{state}>"

    @property
    def finished(self) -> bool:
        """Whether the client has ended, and so has its stream, if there was one."""
        return self._finished

    @property
    def give_up_after(self) -> float:
        """Seconds after which its stream is given up."""
        return max(_GIVE_UP, 2 * (self.promise.within or 0) / 1000)

    def trigger(self) -> None:
        """Note that what the scenario is about happens now: the promise counts from here."""
        self._triggered, self._triggered_at = _unix_time(), trio.current_time()

    def stream_closed(self) -> None:
        """Note that nothing works for the client any more."""
        if self._triggered_at is not None:
            self._took = round((trio.current_time() - self._triggered_at) * 1000, 1)

    def finish(self) -> None:
        """Note that it is over, and compare its outcome with the promise."""
        reason = self._ended_as = self._reason()
        self._finished = True
        if self.error is None:
            self._kept = self.promise.kept(reason, self._took)
            if self._kept and self.scenario.events is not None:
                self._kept = self.received == self.scenario.events
        elif self.broken and self.promise.reasons and reason is not CloseReason.DRAINING:
            self._kept = False

    def row(self) -> dict[str, Any]:
        """Return all of it, as a JSON object."""
        return {
            "id": self.number,
            "scenario": self.scenario.name,
            "title": self.scenario.title,
            "state": "ended" if self._finished else "running",
            "started": self._started,
            "triggered": self._triggered,
            "reason": self._reason(),
            "took": self._took,
            "sent": 0 if self.stream is None else self.stream.statistics().events_sent,
            "received": self.received,
            "promise": self.promise.as_json(),
            "kept": self._kept,
            "error": self.error,
        }

    def _reason(self) -> CloseReason | None:
        if self._finished:  # what comes later was not judged
            return self._ended_as
        return None if self.stream is None else self.stream.close_reason


def _unix_time() -> int:
    """Return the Unix time in milliseconds, as a browser's clock has it."""
    return round(time.time() * 1000)


@final
class ScenarioRuns:
    """The runs of one application, each in a task of its own.

    Args:
      nursery: returns the application's nursery, in which they run; called at each start.
    """

    def __init__(self, nursery: Callable[[], trio.Nursery]) -> None:
        self._nursery = nursery
        self._runs: list[ScenarioRun] = []
        self._number = 0

    def __repr__(self) -> str:
        running = sum(not run.finished for run in self._runs)
        return f"<ScenarioRuns {running} running, {self._number} started>"

    def start(self, name: str, address: ServerAddress, settings: Settings | None) -> dict[str, Any]:
        """Start a scenario, and return its row. Synchronous.

        Args:
          name: a key of `SCENARIOS`.
          address: the server to connect to.
          settings: that server's, from which its promise follows; None: it promises nothing.

        Raises:
          TooManyRuns: `MAX_RUNS` are running.
        """
        if sum(not run.finished for run in self._runs) >= MAX_RUNS:
            raise TooManyRuns(f"{MAX_RUNS} scenarios are running: wait until one has ended")
        scenario = SCENARIOS[name]
        self._number += 1
        run = ScenarioRun(self._number, scenario, promise_of(scenario, settings))
        self._nursery().start_soon(self._run, run, address, name=scenario.task)
        self._runs.append(run)
        return run.row()

    def claim(self, number: int, key: str) -> ScenarioRun | None:
        """Return the run with this number if the key is its own; its stream is claimed once."""
        for run in self._runs:
            if run.number == number and run.stream is None and not run.finished:
                return run if secrets.compare_digest(run.key.encode(), key.encode()) else None
        return None

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of all running and of the last finished runs, the oldest first."""
        return [run.row() for run in self._runs]

    def stop(self) -> None:
        """Cancel all: the application ends. Synchronous; the nursery waits for them."""
        for run in self._runs:
            run.scope.cancel()

    async def _run(self, run: ScenarioRun, address: ServerAddress) -> None:
        """Be the client. Errors are shown in its row, and propagate no further."""
        try:
            with run.scope:
                await _play(run, address)
            if run.scope.cancelled_caught:
                run.error = "the server stopped"
        except* (UnexpectedResponse, trio.TooSlowError) as errors:
            run.error = str(errors.exceptions[0]) or f"no stream within {_BEGIN:g} s"
        except* (OSError, trio.BrokenResourceError, h11.RemoteProtocolError) as errors:
            run.error = f"the connection failed: {errors.exceptions[0]}"
            run.broken = run.scenario.events is not None and run.stream is not None
        except* Exception as errors:
            _logger.error("Bug in the scenario of %s", run.scenario.task, exc_info=errors)
            run.error = f"a bug in the demonstration: {errors.exceptions[0]!r}"
        finally:
            run.finish()
            for old in [each for each in self._runs if each.finished][:-_MAX_FINISHED]:
                self._runs.remove(old)


async def _play(run: ScenarioRun, address: ServerAddress) -> None:
    """Connect, act, and wait for the stream's end on the server."""
    scenario = run.scenario
    async with Client.connect(address, small_buffer=scenario.stops_reading) as client:
        with trio.fail_after(_BEGIN):
            await client.request(f"/scenarios/{run.number}", run.key)
        stream = run.stream
        if stream is None:
            raise UnexpectedResponse("something other than this demonstration answered")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_act, run, client, name=f"behaviour of {scenario.task}")
            with trio.move_on_after(run.give_up_after) as waiting:
                await stream.wait_closed()
                run.stream_closed()
            if waiting.cancelled_caught:
                run.error = f"its stream has not ended within {run.give_up_after:g} s"
                run.broken = True
            if waiting.cancelled_caught or scenario.stops_reading:
                nursery.cancel_scope.cancel()


async def _act(run: ScenarioRun, client: Client) -> None:
    await run.scenario.act(client, run.trigger)
    if client.ended:
        run.received = client.received
