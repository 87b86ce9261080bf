from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from bench_hub import search
from bench_schedule import NOTHING, Schedule
from bench_table import ratio_table, table

from bench import FULL, SHORT, _options

SECOND = 10**9


def up_to(limit: float) -> tuple[Callable[[float], bool], list[float]]:
    tried: list[float] = []

    def good(rate: float) -> bool:
        tried.append(rate)
        return rate <= limit

    return good, tried


@pytest.mark.parametrize("limit", [100, 101, 333, 777, 1234, 1599, 1600])
def test_search(limit: float) -> None:
    """The highest good rate is found to a sixteenth, and nothing is measured twice."""
    good, tried = up_to(limit)
    found = search(good, lowest=100, highest=1600)
    assert found <= limit <= found * 17 / 16
    assert len(set(tried)) == len(tried) <= 9


def test_search_ends() -> None:
    """Nothing is found where nothing is good, and nothing above the highest rate is tried."""
    assert search(up_to(99)[0], lowest=100, highest=1600) == 0
    good, tried = up_to(10**6)
    assert search(good, lowest=100, highest=1600) == max(tried) == 1600


def test_schedule() -> None:
    """A publisher that is late has all that is due; the schedule does not drift."""
    schedule = Schedule(100, 2, start=SECOND)
    assert schedule.count(SECOND) == 1
    assert schedule.next(SECOND + 5).endswith(f"x@0 {SECOND} {SECOND + 5}")
    assert schedule.count(SECOND + 5) == 0
    assert schedule.wait(SECOND + 4_000_000) == 0.006
    assert schedule.count(SECOND + 35_000_000) == 3
    assert [schedule.next(SECOND * 2).split()[1] for _ in range(2)] == ["1010000000", "1020000000"]


def test_schedule_ends() -> None:
    """It ends with its last event, or with its time, and has no more events than it should."""
    schedule = Schedule(10, 1, start=0)
    assert schedule.count(SECOND * 5) == 10
    assert schedule.ended(SECOND + 1)
    assert not schedule.ended(SECOND)
    for _ in range(10):
        schedule.next(0)
    assert schedule.ended(1)
    assert schedule.figures(1) == {"published": 10, "ended": True}
    assert NOTHING.count(SECOND) == 0


@dataclass
class Row:
    server: str
    clients: int
    late: float


def test_tables() -> None:
    """A row is divided by the base's with as many clients; by 0 or nothing, by no means."""
    rows = [Row("go", 1, 2.0), Row("go", 2, 0.0), Row("us", 1, 1.0), Row("us", 2, 1.0)]
    rows += [Row("us", 3, 1.0)]
    clients = ("clients", lambda row: str(row.clients))
    names = [("server", lambda row: row.server), clients]
    assert table(rows[:1], names) == "| server | clients |\n| --- | ---: |\n| go | 1 |"
    ratios = ratio_table(rows, base="go", same=[clients], ratios=[("late", lambda row: row.late)])
    assert ratios.splitlines() == [
        "| server | clients | late ÷ go |",
        "| --- | ---: | ---: |",
        "| us | 1 | 0.5 |",
        "| us | 2 |  |",
    ]


def test_options() -> None:
    """What is given counts; the rest is the full form's, or the short one's."""
    assert _options([]).fan_out == FULL["fan_out"]
    assert _options([]).hub_seconds == FULL["hub_seconds"]
    short = _options(["--short", "--fan-out=5x0.5,6x7", "--seconds=1", "--only=hub,most"])
    assert short.fan_out == [(5, 0.5), (6, 7.0)]
    assert (short.seconds, short.hub_seconds, short.only) == (1, 1, ["hub", "most"])
    assert short.joining == SHORT["joining"]


@pytest.mark.parametrize(
    "argument",
    ["--only=hubs", "--servers=go,rust", "--fan-out=500", "--fan-out=ax1", "--clients=x"],
)
def test_wrong_options(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong option is told in a line, with status 2."""
    with pytest.raises(SystemExit) as caught:
        _options([argument])
    assert caught.value.code == 2
    assert "error: argument" in capsys.readouterr().err
