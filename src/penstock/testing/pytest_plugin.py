"""Fixtures for pytest, which are available where Penstock and pytest are installed.

They work with any plugin that runs async tests, such as pytest-trio and AnyIO's, and without a
plugin, with `trio.testing.trio_test`. ``pytest --fixtures`` lists them.

Rule: a fixture that is not used costs nothing. pytest imports this module at each start, so it only
imports pytest; the fixtures import Trio and the rest.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import trio.testing

__all__ = ["no_leaks", "virtual_clock"]

# Set for a test that uses this `no_leaks`: a project may have another fixture of that name.
_CHECKED = pytest.StashKey[bool]()


@pytest.fixture
def virtual_clock() -> trio.testing.MockClock:
    """A virtual clock that jumps to the next deadline: an hour takes no time.

    It is pytest-trio's autojump_clock, for use without pytest-trio: trio.testing.trio_test runs a
    test with the clock among its arguments. Do not use it with sockets or threads.
    """
    import trio.testing

    return trio.testing.MockClock(autojump_threshold=0)


@pytest.fixture
def no_leaks(request: pytest.FixtureRequest) -> None:
    """Fail an async test that leaves a task, stream, hub or subscription behind.

    The test function runs in the block of penstock.testing.no_leaks: what it starts in a nursery of
    its fixtures counts, and what the fixtures themselves have open does not.
    """
    if not inspect.iscoroutinefunction(request.function):
        pytest.fail(
            "the fixture no_leaks only checks async tests that a plugin runs; in this one, write "
            "`async with penstock.testing.no_leaks(): ...` in the async function",
            pytrace=False,
        )
    request.node.stash[_CHECKED] = True


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before the plugins that run `item.obj`
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Run a test that uses `no_leaks` in its block."""
    if not isinstance(item, pytest.Function) or not item.stash.get(_CHECKED, False):
        return (yield)
    test = item.obj
    item.obj = _in_block(test)
    try:
        return (yield)
    finally:
        item.obj = test


def _in_block(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def checked(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        from penstock.testing import no_leaks

        async with no_leaks():
            await test(*args, **kwargs)

    return checked
