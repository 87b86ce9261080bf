"""Which absences of the event loop are pauses; with sockets: `tests/interop/test_pauses.py`."""

from __future__ import annotations

import pytest
import trio

from penstock.hypercorn.wire import pauses


class Loop:
    """A loop whose turns take as long as a test says, by a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.moved: list[float] = []
        monkeypatch.setattr(pauses, "perf_counter", lambda: self.now)
        monkeypatch.setattr(trio.lowlevel, "add_instrument", self.watch)
        monkeypatch.setattr(trio.lowlevel, "remove_instrument", lambda instrument: None)

    def watch(self, instrument: trio.abc.Instrument) -> None:
        self.instrument = instrument

    def turn(self, away: float, waited: float = 0.0) -> None:
        self.now += away + waited
        self.instrument.after_io_wait(waited)


def test_a_pause_moves_deadlines_by_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it was; what was waited for on purpose is none."""
    loop = Loop(monkeypatch)
    with pauses.detect_pauses(loop.moved.append):
        loop.turn(away=0.01, waited=60)
        loop.turn(away=3600)
        loop.turn(away=0.2)
    assert loop.moved == [pytest.approx(3600)]


def test_a_loop_that_is_always_slow_is_not_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients are judged by it in the end: of two minutes, no more than a quarter is not theirs."""
    loop = Loop(monkeypatch)
    with pauses.detect_pauses(loop.moved.append):
        for _ in range(120):
            loop.turn(away=0.9)
            for _ in range(10):
                loop.turn(away=0.01)
    assert 8 < len(loop.moved) < 40
    assert sum(loop.moved) < 30
    with pauses.detect_pauses(loop.moved.append):
        loop.turn(away=60)
    assert loop.moved[-1] == pytest.approx(60)
