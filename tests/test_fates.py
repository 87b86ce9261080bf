"""The demonstration's fates: what is promised for each, and their limits."""

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

from hurting_fakes import PAGE, answer_to
from penstock.close_reason import CloseReason
from penstock.demo.fates import fates as fates_module
from penstock.demo.fates.client import KEY, Client, Where
from penstock.demo.fates.crowds import Crowds, NoRoom
from penstock.demo.fates.fates import LIMIT, Fates, Run, TooMany
from penstock.demo.fates.routes import add_fate_routes
from penstock.demo.fates.table import FATES, NO_PROMISE, promise_of
from penstock.hypercorn import Settings
from penstock.hypercorn.settings import SETTINGS
from penstock.stream import EventStream
from penstock.testing import FakeClient

WHERE = Where("127.0.0.1", 8080, tls=False)


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
    promise = promise_of(FATES[name], settings)
    assert (list(promise.reasons), promise.within) == (reasons, within)
    assert promise.text.startswith(reasons[0])
    assert promise_of(FATES[name], None) is NO_PROMISE
    app = QuartTrio(__name__)
    add_fate_routes(app)
    for offered, expected in (({SETTINGS: settings}, promise), ({}, NO_PROMISE)):
        _, said = await answer_to(app, "GET", "/fates", extensions=offered)
        (shown,) = (fate["promise"] for fate in said["fates"] if fate["name"] == name)
        assert shown == expected.as_json()


def test_there_is_a_promise_for_each() -> None:
    """No fate is left out above."""
    assert len(FATES) == 7


def test_without_a_time_out_nothing_is_promised_for_who_vanishes() -> None:
    """The system's own patience is not ours to promise."""
    promise = promise_of(FATES["vanishes"], Settings(tcp_user_timeout=None))
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
    promise = promise_of(FATES["stops-reading"], Settings(send_timeout=3))
    assert promise.kept(reason, took) is kept


async def test_a_healthy_client_has_to_hear_all(autojump_clock: trio.testing.MockClock) -> None:
    """Finished is not enough, and in time is needed, too."""
    promise = promise_of(FATES["healthy"], Settings())
    assert promise.kept(CloseReason.FINISHED, 500)
    assert promise.kept(CloseReason.FINISHED, 501) is False
    for heard, kept in ((10, True), (9, False)):
        run = Run(1, FATES["healthy"], promise_of(FATES["healthy"], Settings()))
        run.stream = stream = EventStream(run.producer)

        class Sink:
            async def send(self, chunk: bytes) -> None:
                await trio.lowlevel.checkpoint()

        start = trio.current_time()
        await stream.run(Sink().send)
        assert trio.current_time() - start == pytest.approx(2.5)
        run.stream_closed()
        run.heard = heard
        run.end()
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

    async def meet(run: Run, where: Where) -> None:
        await trio.sleep(run.number)

    monkeypatch.setattr(fates_module, "_meet", meet)
    async with trio.open_nursery() as nursery:
        fates = Fates(lambda: nursery)
        for _ in range(LIMIT):
            fates.start("closes", WHERE, None)
        with pytest.raises(TooMany, match=f"{LIMIT} clients"):
            fates.start("closes", WHERE, None)
        await trio.sleep(1.5)
        assert fates.start("closes", WHERE, None)["id"] == LIMIT + 1
        await trio.sleep(LIMIT)
        assert [row["id"] for row in fates.rows() if row["state"] == "running"] == [LIMIT + 1]
        for _ in range(5):
            fates.start("closes", WHERE, None)
        assert [row["id"] for row in fates.rows()] == list(range(1, LIMIT + 7))
        await trio.sleep(2 * LIMIT)
        assert [row["id"] for row in fates.rows()] == list(range(7, LIMIT + 7))


async def test_a_stream_is_claimed_once_and_by_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the client's key, which nobody is told, it is 404; HEAD takes nothing."""

    async def meet(run: Run, where: Where) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(fates_module, "_meet", meet)
    app = QuartTrio(__name__)
    fates, _ = add_fate_routes(app)
    async with trio.open_nursery() as app.nursery:
        status, row = await answer_to(app, "POST", "/fates/closes")
        assert (status, row["id"], row["state"], row["reason"]) == (201, 1, "running", None)
        assert (await answer_to(app, "GET", "/fates/2"))[0] == 404
        for guess in ({}, {KEY: ""}, {KEY: "é".encode().decode("latin-1")}, {KEY: "x" * 22}):
            assert (await answer_to(app, "GET", "/fates/1", headers={**PAGE, **guess}))[0] == 404
        key = {KEY: fates._runs[0].key}
        assert key[KEY] not in json.dumps(fates.rows())
        await FakeClient(app, "/fates/1", method="HEAD", headers=key).run()
        client = FakeClient(app, "/fates/1", headers=key)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            await client.received(b"data: 1\n\n")
            assert client.status == 200
            again = await answer_to(app, "GET", "/fates/1", headers={**PAGE, **key})
            assert again[0] == 404
            assert fates.rows()[0]["sent"] == 1
            client.disconnect()
        assert fates.rows()[0]["reason"] == "disconnected"
        fates.stop()
    (row,) = fates.rows()
    assert (row["state"], row["error"], row["kept"]) == ("ended", "the server stopped", None)


async def test_the_applications_end_is_theirs(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """It waits for no client, whatever that waits for."""

    async def meet(run: Run, where: Where) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(fates_module, "_meet", meet)
    app = QuartTrio(__name__)
    fates, _ = add_fate_routes(app)
    async with app.test_app():
        fates.start("closes", WHERE, None)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
    assert trio.current_time() - start < 1  # Quart would give it five seconds
    (row,) = fates.rows()
    assert (row["state"], row["error"]) == ("ended", "the server stopped")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionRefusedError(111, "refused"), "the connection failed: [Errno 111] refused"),
        (trio.BrokenResourceError("gone"), "the connection failed: gone"),
        (trio.TooSlowError(), "no stream within 10 s"),
        (KeyError("x"), "a fault of the demonstration: KeyError('x')"),
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

    async def meet(run: Run, where: Where) -> None:
        await trio.lowlevel.checkpoint()
        raise ExceptionGroup("in a nursery", [error]) if grouped else error

    monkeypatch.setattr(fates_module, "_meet", meet)
    async with trio.open_nursery() as nursery:
        fates = Fates(lambda: nursery)
        fates.start("closes", WHERE, Settings())
    (row,) = fates.rows()
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
    run = Run(1, FATES[name], promise_of(FATES[name], Settings()))
    run.error, run.broken = "something came between", broken
    run.end()
    assert run.row()["kept"] is kept


class Connected:
    """A client that has its stream, and meets no end by itself."""

    def __init__(self, run: Run, stream: Any) -> None:
        self.run, self.stream = run, stream

    async def ask(self, path: str, key: str) -> None:
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
        fates = Fates(lambda: nursery)

        @asynccontextmanager
        async def connected(*_: Any, **__: Any) -> AsyncIterator[Connected]:
            run = fates.claim(1, fates._runs[0].key)
            assert run is not None
            yield Connected(run, Lingering())

        monkeypatch.setattr(Client, "connected", connected)
        fates.start("closes", WHERE, Settings())
    (row,) = fates.rows()
    assert (row["reason"], row["kept"]) == ("disconnected", False)
    assert row["error"] == "its stream has not ended in 60 s"


async def test_a_crowd_that_cannot_start_reaches_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, nothing else ends, and the next one is not refused."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    nurseries: list[trio.Nursery] = []
    crowds = Crowds(nurseries.pop)
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            nurseries.append(nursery)
            crowds.start(1, WHERE, None)
        assert crowds.state()["wanted"] == 0
        assert crowds.state()["error"].startswith("the clients' program did not start: [Errno 2]")


@pytest.mark.parametrize("name", ["max_connections", "max_connections_per_address"])
async def test_a_crowd_for_which_there_is_no_room(name: str) -> None:
    """It does not come, and the sentence names the limit."""
    limits: dict[str, Any] = {name: 99}
    settings = Settings(**limits)
    async with trio.open_nursery() as nursery:
        crowds = Crowds(lambda: nursery)
        with pytest.raises(NoRoom, match=rf"99 connections \({name}\)"):
            crowds.start(100, WHERE, settings)
        with pytest.raises(NoRoom, match="files open"):
            crowds.start(2**30, WHERE, settings)
    assert crowds.state() == {"count": 1000, "wanted": 0, "open": 0, "error": None}
