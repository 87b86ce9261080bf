"""Ticker under virtual time: turns come when they should, whoever sleeps, whoever is cancelled."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from penstock.stream.ticker import Ticker


async def ticks(period: float, count: int, seen: list[float]) -> None:
    ticker = Ticker(period)
    for _ in range(count):
        await ticker.tick()
        seen.append(trio.current_time())


async def test_one_ticker_keeps_its_schedule(autojump_clock: trio.testing.MockClock) -> None:
    """Alone, it ticks at exactly its times."""
    seen: list[float] = []
    await ticks(0.5, 4, seen)
    assert seen == [0.5, 1.0, 1.5, 2.0]


async def test_turns_that_were_missed_are_left_out(autojump_clock: trio.testing.MockClock) -> None:
    """A user who was busy for three periods goes on with the next one due."""
    ticker = Ticker(1)
    await trio.sleep(3.5)
    await ticker.tick()
    assert trio.current_time() == 4


@pytest.mark.parametrize("period", [0, -1, float("nan"), float("inf")])
async def test_a_period_is_a_number_above_zero(period: float) -> None:
    """Anything else would never tick, or always."""
    with pytest.raises(ValueError, match="period must be a number of seconds above 0"):
        Ticker(period)


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_each_gets_its_turns_whoever_is_cancelled(seed: int, tasks: int) -> None:
    """No turn is early, none later than 2 ms, also while those who sleep for all are cancelled."""
    chance = random.Random(seed)
    late: list[float] = []

    async def user() -> None:
        start, period = trio.current_time(), chance.choice([0.01, 0.03, 0.25, 1.0])
        ticker = Ticker(period)
        with trio.move_on_after(chance.uniform(0, 3)):
            for turn in range(1, 20):
                await ticker.tick()
                late.append(trio.current_time() - (start + turn * period))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(user)
                await trio.sleep(chance.uniform(0, 0.1))

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert all(-1e-9 <= each <= 0.0021 for each in late)


async def test_nothing_is_left_when_the_last_has_gone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The one who sleeps for all can be cancelled, and the others tick on; then no task is left."""
    before = trio.lowlevel.current_statistics().tasks_living
    seen: list[float] = []
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.7):
            async with trio.open_nursery() as first:
                first.start_soon(ticks, 0.5, 10, [])
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(ticks, 0.5, 3, seen)
    assert seen == [0.5, 1.0, 1.5]
    assert trio.lowlevel.current_statistics().tasks_living == before
