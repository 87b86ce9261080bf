"""The demonstration's scenarios: what is promised for each, their limits, and the crowd's."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from quart_trio import QuartTrio

from demo_requests import PAGE, answer_to
from penstock.close_reason import CloseReason
from penstock.demo.scenarios import add_scenario_routes
from penstock.demo.scenarios import runs as runs_module
from penstock.demo.scenarios.catalog import NO_PROMISE, SCENARIOS, promise_of
from penstock.demo.scenarios.client import KEY, Client, ServerAddress
from penstock.demo.scenarios.crowd import Crowd, CrowdRefused
from penstock.demo.scenarios.runs import MAX_RUNS, ScenarioRun, ScenarioRuns, TooManyRuns
from penstock.hypercorn import Settings
from penstock.hypercorn.settings import SETTINGS
from penstock.stream import EventStream
from penstock.testing import FakeClient

ADDRESS = ServerAddress("127.0.0.1", 8080, tls=False)


# What is promised.


@pytest.mark.parametrize(
    ("name", "reasons", "within"),
    [
        ("healthy", [CloseReason.FINISHED], 500),
        ("closes", [CloseReason.DISCONNECTED], 50),
        ("resets", [CloseReason.DISCONNECTED], 50),
        ("stops-reading", [CloseReason.SLOW], 3500),
        ("byte-a-second", [CloseReason.SLOW], 3500),
        ("vanishes", [CloseReason.DISCONNECTED], 22000),
        ("raises", [CloseReason.FAILED], 500),
    ],
)
async def test_promises_follow_from_the_settings(
    name: str, reasons: list[CloseReason], within: int | None
) -> None:
    """They are those of the server that runs; and of another there are none."""
    settings = Settings(send_timeout=3, tcp_user_timeout=7)
    promise = promise_of(SCENARIOS[name], settings)
    assert (list(promise.reasons), promise.within) == (reasons, within)
    assert promise.text.startswith(reasons[0])
    assert promise_of(SCENARIOS[name], None) is NO_PROMISE
    app = QuartTrio(__name__)
    add_scenario_routes(app)
    for offered, expected in (({SETTINGS: settings}, promise), ({}, NO_PROMISE)):
        _, said = await answer_to(app, "GET", "/scenarios", extensions=offered)
        (shown,) = (
            scenario["promise"] for scenario in said["scenarios"] if scenario["name"] == name
        )
        assert shown == expected.as_json()


def test_there_is_a_promise_for_each() -> None:
    """No scenario is left out above."""
    assert len(SCENARIOS) == 7


def test_without_a_time_out_nothing_is_promised_for_who_vanishes() -> None:
    """The system's own patience is not ours to promise."""
    promise = promise_of(SCENARIOS["vanishes"], Settings(tcp_user_timeout=None))
    assert promise.reasons == ()
    assert promise.kept(CloseReason.DISCONNECTED, 1) is None


@pytest.mark.parametrize(
    ("reason", "took", "kept"),
    [
        (CloseReason.SLOW, 3500, True),
        (CloseReason.SLOW, 3500.1, False),
        (CloseReason.SLOW, None, False),
        (CloseReason.DISCONNECTED, 1, False),
        (None, None, False),
        (CloseReason.DRAINING, 1, None),
    ],
)
def test_a_promise_is_kept_or_not(
    reason: CloseReason | None, took: float | None, kept: bool | None
) -> None:
    """Right reason and in time; a server that stops before that is no breach."""
    promise = promise_of(SCENARIOS["stops-reading"], Settings(send_timeout=3))
    assert promise.kept(reason, took) is kept


async def test_a_healthy_client_has_to_hear_all(autojump_clock: trio.testing.MockClock) -> None:
    """Finished is not enough, and in time is needed, too."""
    promise = promise_of(SCENARIOS["healthy"], Settings())
    assert promise.kept(CloseReason.FINISHED, 500)
    assert promise.kept(CloseReason.FINISHED, 501) is False
    for received, kept in ((10, True), (9, False)):
        run = ScenarioRun(1, SCENARIOS["healthy"], promise_of(SCENARIOS["healthy"], Settings()))
        run.stream = stream = EventStream(run.producer)

        class Sink:
            async def send(self, chunk: bytes) -> None:
                await trio.lowlevel.checkpoint()

        start = trio.current_time()
        await stream.run(Sink().send)
        assert trio.current_time() - start == pytest.approx(2.5)
        run.stream_closed()
        run.received = received
        run.finish()
        row = run.row()
        assert (row["state"], row["reason"], row["sent"], row["took"], row["kept"]) == (
            *("ended", "finished", 10, 0, kept),
        )
        json.dumps(row)


# Limits.


async def test_only_so_many_at_once(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """One more is refused; the rows of those that are over are forgotten, the oldest first."""

    async def play(run: ScenarioRun, address: ServerAddress) -> None:
        await trio.sleep(run.number)

    monkeypatch.setattr(runs_module, "_play", play)
    async with trio.open_nursery() as nursery:
        runs = ScenarioRuns(lambda: nursery)
        for _ in range(MAX_RUNS):
            runs.start("closes", ADDRESS, None)
        with pytest.raises(TooManyRuns, match=f"{MAX_RUNS} scenarios"):
            runs.start("closes", ADDRESS, None)
        await trio.sleep(1.5)
        assert runs.start("closes", ADDRESS, None)["id"] == MAX_RUNS + 1
        await trio.sleep(MAX_RUNS)
        assert [row["id"] for row in runs.rows() if row["state"] == "running"] == [MAX_RUNS + 1]
        for _ in range(5):
            runs.start("closes", ADDRESS, None)
        assert [row["id"] for row in runs.rows()] == list(range(1, MAX_RUNS + 7))
        await trio.sleep(2 * MAX_RUNS)
        assert [row["id"] for row in runs.rows()] == list(range(7, MAX_RUNS + 7))


async def test_a_stream_is_claimed_once_and_by_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the client's key, which nobody is told, it is 404; HEAD takes nothing."""

    async def play(run: ScenarioRun, address: ServerAddress) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(runs_module, "_play", play)
    app = QuartTrio(__name__)
    runs, _ = add_scenario_routes(app)
    async with trio.open_nursery() as app.nursery:
        status, row = await answer_to(app, "POST", "/scenarios/closes")
        assert (status, row["id"], row["state"], row["reason"]) == (201, 1, "running", None)
        assert (await answer_to(app, "GET", "/scenarios/2"))[0] == 404
        for guess in ({}, {KEY: ""}, {KEY: "é".encode().decode("latin-1")}, {KEY: "x" * 22}):
            guessed = await answer_to(app, "GET", "/scenarios/1", headers={**PAGE, **guess})
            assert guessed[0] == 404
        key = {KEY: runs._runs[0].key}
        assert key[KEY] not in json.dumps(runs.rows())
        await FakeClient(app, "/scenarios/1", method="HEAD", headers=key).run()
        client = FakeClient(app, "/scenarios/1", headers=key)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            await client.received(b"data: 1\n\n")
            assert client.status == 200
            again = await answer_to(app, "GET", "/scenarios/1", headers={**PAGE, **key})
            assert again[0] == 404
            assert runs.rows()[0]["sent"] == 1
            client.disconnect()
        assert runs.rows()[0]["reason"] == "disconnected"
        runs.stop()
    (row,) = runs.rows()
    assert (row["state"], row["error"], row["kept"]) == ("ended", "the server stopped", None)


async def test_the_applications_end_is_theirs(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """It waits for no client, whatever that waits for."""

    async def play(run: ScenarioRun, address: ServerAddress) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(runs_module, "_play", play)
    app = QuartTrio(__name__)
    runs, _ = add_scenario_routes(app)
    async with app.test_app():
        runs.start("closes", ADDRESS, None)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
    assert trio.current_time() - start < 1  # Quart would give it five seconds
    (row,) = runs.rows()
    assert (row["state"], row["error"]) == ("ended", "the server stopped")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionRefusedError(111, "refused"), "the connection failed: [Errno 111] refused"),
        (trio.BrokenResourceError("gone"), "the connection failed: gone"),
        (trio.TooSlowError(), "no stream within 10 s"),
        (KeyError("x"), "a bug in the demonstration: KeyError('x')"),
    ],
)
@pytest.mark.parametrize("grouped", [False, True])
async def test_nothing_reaches_the_application(
    error: Exception,
    said: str,
    grouped: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What goes wrong with a client is in its row; only what nobody expected is in the log."""

    async def play(run: ScenarioRun, address: ServerAddress) -> None:
        await trio.lowlevel.checkpoint()
        raise ExceptionGroup("in a nursery", [error]) if grouped else error

    monkeypatch.setattr(runs_module, "_play", play)
    async with trio.open_nursery() as nursery:
        runs = ScenarioRuns(lambda: nursery)
        runs.start("closes", ADDRESS, Settings())
    (row,) = runs.rows()
    assert (row["state"], row["error"], row["kept"]) == ("ended", said, None)
    assert bool(caplog.records) == isinstance(error, KeyError)


@pytest.mark.parametrize(
    ("name", "broken", "kept"),
    [("healthy", True, False), ("healthy", False, None), ("closes", True, False)],
)
async def test_what_came_between_may_break_the_promise(
    name: str, broken: bool, kept: bool | None
) -> None:
    """A client that was to hear all, and one that was left, are not judged alike."""
    run = ScenarioRun(1, SCENARIOS[name], promise_of(SCENARIOS[name], Settings()))
    run.error, run.broken = "something came between", broken
    run.finish()
    assert run.row()["kept"] is kept


class Connected:
    """A client that has its stream, which does not end."""

    ended = False

    def __init__(self, run: ScenarioRun, stream: Any) -> None:
        self.run, self.stream = run, stream

    async def request(self, path: str, key: str) -> None:
        self.run.stream = self.stream

    async def read_for(self, seconds: float) -> None:
        await trio.sleep(seconds)

    def close(self) -> None:
        pass

    reset = close


class Lingering:
    """A stream whose client is gone, and for which something still works."""

    close_reason = CloseReason.DISCONNECTED

    def statistics(self) -> Any:
        return SimpleNamespace(events_sent=1)

    async def wait_closed(self) -> None:
        await trio.sleep_forever()


async def test_what_works_on_for_who_is_gone_breaks_the_promise(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """The stream knows why it is to end; that it has not is what the demonstration is to show."""
    async with trio.open_nursery() as nursery:
        runs = ScenarioRuns(lambda: nursery)

        @asynccontextmanager
        async def connect(*_: Any, **__: Any) -> AsyncIterator[Connected]:
            run = runs.claim(1, runs._runs[0].key)
            assert run is not None
            yield Connected(run, Lingering())

        monkeypatch.setattr(Client, "connect", connect)
        runs.start("closes", ADDRESS, Settings())
    (row,) = runs.rows()
    assert (row["reason"], row["kept"]) == ("disconnected", False)
    assert row["error"] == "its stream has not ended within 60 s"


async def test_a_crowd_that_cannot_start_reaches_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, nothing else ends, and the next one is not refused."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    nurseries: list[trio.Nursery] = []
    crowd = Crowd(nurseries.pop)
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            nurseries.append(nursery)
            crowd.start(1, ADDRESS, None)
        assert crowd.state()["wanted"] == 0
        assert crowd.state()["error"].startswith(
            "the program with the clients did not start: [Errno 2]"
        )


@pytest.mark.parametrize("name", ["max_connections", "max_connections_per_address"])
async def test_a_crowd_beyond_a_limit(name: str) -> None:
    """It is refused, and the sentence names the limit."""
    limits: dict[str, Any] = {name: 99}
    settings = Settings(**limits)
    async with trio.open_nursery() as nursery:
        crowd = Crowd(lambda: nursery)
        with pytest.raises(CrowdRefused, match=rf"99 connections \({name}\)"):
            crowd.start(100, ADDRESS, settings)
        with pytest.raises(CrowdRefused, match="files open"):
            crowd.start(2**30, ADDRESS, settings)
    assert crowd.state() == {"count": 1000, "wanted": 0, "open": 0, "error": None}
