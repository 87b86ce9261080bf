"""Fixtures for pytest, which are there where Penstock and pytest are.

They know of no plugin that runs async tests: pytest-trio and AnyIO's run them, and without any
`trio.testing.trio_test` does. ``pytest --fixtures`` lists them.

Rule: whoever does not use one pays nothing. pytest imports this module at each start, so it imports
nothing but pytest; Trio and the rest are imported by what is used.
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

# Of a test that takes this `no_leaks`: a project may have a fixture of its own that is called so.
_CHECKED = pytest.StashKey[bool]()


@pytest.fixture
def virtual_clock() -> trio.testing.MockClock:
    """A clock of Trio's that jumps to whatever is waited for: an hour takes no time.

    It is pytest-trio's autojump_clock, for those without pytest-trio: trio.testing.trio_test runs a
    test on the clock that is among its arguments. It never goes with sockets or threads.
    """
    import trio.testing

    return trio.testing.MockClock(autojump_threshold=0)


@pytest.fixture
def no_leaks(request: pytest.FixtureRequest) -> None:
    """Fail an async test that leaves a task, stream, hub or subscription behind.

    The test's function is run in the block of penstock.testing.no_leaks: what it starts in a
    nursery of its fixtures' counts, and what its fixtures have open themselves does not.
    """
    if not inspect.iscoroutinefunction(request.function):
        pytest.fail(
            "the fixture no_leaks checks async tests that a plugin runs; in this one, write "
            "`async with penstock.testing.no_leaks(): ...` in what Trio runs",
            pytrace=False,
        )
    request.node.stash[_CHECKED] = True


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before those who run what they find in `item.obj`
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Have a test that takes `no_leaks` checked from within."""
    if not isinstance(item, pytest.Function) or not item.stash.get(_CHECKED, False):
        return (yield)
    test = item.obj
    item.obj = _checked(test)
    try:
        return (yield)
    finally:
        item.obj = test


def _checked(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def checked(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        from penstock.testing import no_leaks

        async with no_leaks():
            await test(*args, **kwargs)

    return checked
