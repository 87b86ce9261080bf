"""What a block may not leave behind: by the context manager, and by pytest's fixture."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trio
import trio.testing

from penstock import EventStream, ServerSentEvent, open_hub
from penstock.testing import no_leaks

Clock = trio.testing.MockClock
Events = trio.abc.SendChannel[ServerSentEvent]


async def waits_for_ever(events: Events | None = None) -> None:
    await trio.sleep_forever()


async def test_a_task_that_is_left_is_named(autojump_clock: Clock) -> None:
    """It is named after its function, with the line of one's own at which it waits."""
    async with trio.open_nursery() as nursery:
        with pytest.raises(AssertionError) as raised:
            async with no_leaks():
                nursery.start_soon(waits_for_ever)
        nursery.cancel_scope.cancel()
    line = waits_for_ever.__code__.co_firstlineno + 1
    assert str(raised.value) == (
        f"left behind:\n  - task '{__name__}.waits_for_ever', waiting at {__file__}:{line} in "
        "waits_for_ever()"
    )
    assert trio.current_time() == 1


async def test_a_task_that_waits_for_a_thread_is_told_apart() -> None:
    """Under a virtual clock, which knows of no threads, that is the reason of a vain wait."""
    done = threading.Event()

    async def works() -> None:
        await trio.to_thread.run_sync(done.wait)

    async with trio.open_nursery() as nursery:
        try:
            with pytest.raises(AssertionError, match=r"waiting at .* in works\(\) for a thread$"):
                async with no_leaks():
                    nursery.start_soon(works)
        finally:
            done.set()


async def test_what_lingers_has_a_second(autojump_clock: Clock) -> None:
    """It may go by itself; what was there before may stay."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits_for_ever)
        async with open_hub() as hub, hub.subscribe(["a"]), EventStream(waits_for_ever).open():
            async with no_leaks():
                nursery.start_soon(trio.sleep, 0.5)
            assert 0.5 <= trio.current_time() < 0.8
        nursery.cancel_scope.cancel()


async def test_a_stream_that_is_left_is_named(autojump_clock: Clock) -> None:
    """With its name, whoever holds it; its producer is a task, and named, too."""
    stream = EventStream(waits_for_ever, name="/prices")
    block = stream.open()
    with pytest.raises(AssertionError) as raised:
        async with no_leaks():
            await block.__aenter__()
    with trio.CancelScope() as scope:
        scope.cancel()
        await trio.lowlevel.checkpoint()
    await block.__aexit__(None, None, None)
    stream_line, task_line = str(raised.value).splitlines()[1:]
    assert stream_line == "  - <EventStream '/prices' open, 0 events sent>"
    assert task_line.startswith("  - task 'producer of /prices', waiting at ")


async def test_a_hub_and_a_subscription_that_are_left_are_named(autojump_clock: Clock) -> None:
    """The hub's own tasks, such as a producer on demand that lingers, are the hub's."""
    async with open_hub() as hub:
        hub.add_producer("a", waits_for_ever, keep_running_for=5000)
        async with no_leaks():
            async with hub.subscribe(["a"]):
                await trio.testing.wait_all_tasks_blocked()
        block = hub.subscribe(["a", "b"])
        with pytest.raises(AssertionError) as raised:
            async with no_leaks():
                await block.__aenter__()
        assert str(raised.value) == (
            "left behind:\n  - <Subscription to ['a', 'b'], open, 0 waiting>"
        )
        await block.__aexit__(None, None, None)
    opening = open_hub()
    with pytest.raises(AssertionError, match="<Hub open, 0 subscriptions>"):
        async with no_leaks():
            await opening.__aenter__()
    await opening.__aexit__(None, None, None)


async def test_what_the_block_raises_is_what_is_told() -> None:
    """Nothing is checked then: it would be the consequence."""
    async with trio.open_nursery() as nursery:
        with pytest.raises(KeyError):  # noqa: PT012 - it is the block that raises
            async with no_leaks():
                nursery.start_soon(waits_for_ever)
                raise KeyError
        nursery.cancel_scope.cancel()


# Fixtures

MODULE = """
import pytest, trio, trio.testing
from penstock import open_hub
from penstock.testing import FakeClient, no_leaks as no_leaks_block

async def sleeper():
    await trio.sleep(3600)
"""

TRIO_TESTS = """
@pytest.mark.trio
async def test_clean(no_leaks, virtual_clock):
    await sleeper()
    assert trio.current_time() == 3600

@pytest.mark.trio
async def test_both_clocks(no_leaks, autojump_clock, nursery):
    await sleeper()

@pytest.mark.trio
async def test_leaks(no_leaks, virtual_clock, nursery):
    nursery.start_soon(sleeper)

@pytest.mark.trio
async def test_is_not_checked(virtual_clock, nursery):
    nursery.start_soon(sleeper)

@pytest.mark.trio
@pytest.mark.parametrize("number", [1, 2])
async def test_raises(no_leaks, number):
    assert number == 1

class TestMethod:
    @pytest.mark.trio
    async def test_method_leaks(self, no_leaks, virtual_clock, nursery):
        nursery.start_soon(sleeper)

@pytest.mark.trio
async def test_skips(no_leaks):
    pytest.skip("for a reason")
"""

# One that is called `no_leaks`, too, has nothing to do with Penstock's.
OWN = """
class TestOwn:
    @pytest.fixture
    def no_leaks(self):
        return "of this project"

    def test_own(self, no_leaks):
        assert no_leaks == "of this project"
"""

CONFTEST = """
def pytest_runtest_teardown(item):  # it may be run again, as by those who rerun what failed
    if item.cls is None and "no_leaks" in item.fixturenames:
        assert item.obj is getattr(item.module, item.originalname)
"""

BARE_TESTS = """
@trio.testing.trio_test
async def test_clean(virtual_clock):
    async with no_leaks_block():
        await sleeper()
    assert trio.current_time() == 3600

@trio.testing.trio_test
async def test_leaks(virtual_clock):
    async with trio.open_nursery() as nursery:
        async with no_leaks_block():
            nursery.start_soon(sleeper)

def test_sync(no_leaks):
    pass
"""

ANYIO_TESTS = """
@pytest.fixture
def anyio_backend(virtual_clock):
    return "trio", {"clock": virtual_clock}

@pytest.mark.anyio
async def test_clean(no_leaks):
    await sleeper()
    assert trio.current_time() == 3600

@pytest.mark.anyio
async def test_leaks(no_leaks):
    trio.lowlevel.spawn_system_task(sleeper)
"""


def outcomes(tests: str, folder: Path, *options: str) -> tuple[dict[str, str], str]:
    """Run tests in another process; return the result of each, and the output."""
    (folder / "pytest.ini").touch()  # so that no project above it counts
    (folder / "test_it.py").write_text(MODULE + tests)
    quiet = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-W", "error", "-rA", "-q")
    command = [sys.executable, "-m", "pytest", *quiet, *options, "test_it.py"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    said = ran.stdout + ran.stderr
    rows = re.findall(r"(?m)^(PASSED|FAILED|ERROR|SKIPPED) \S*?(?:test_it.py::(\S+)|$)", said)
    return {name.rpartition("::")[2]: outcome for outcome, name in rows if name}, said


def test_the_fixtures_go_with_pytest_trio(tmp_path: Path) -> None:
    """An async test that takes `no_leaks` is checked, no other is; one may have one's own."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    found, said = outcomes(TRIO_TESTS + OWN, tmp_path)
    assert found == {
        "test_clean": "PASSED",
        "test_both_clocks": "PASSED",
        "test_leaks": "FAILED",
        "test_is_not_checked": "PASSED",
        "test_raises[1]": "PASSED",
        "test_raises[2]": "FAILED",
        "test_method_leaks": "FAILED",
        "test_own": "PASSED",
    }, said
    assert "1 skipped" in said
    assert "pytest_runtest_teardown" not in said
    assert re.search(r"AssertionError: left behind:\n.*- task 'test_it.sleeper', waiting at", said)


def test_the_fixtures_go_without_any_plugin(tmp_path: Path) -> None:
    """With Trio's own decorator, the block is written in the test."""
    found, said = outcomes(BARE_TESTS, tmp_path, "-p", "no:trio", "-p", "no:anyio")
    assert found == {"test_clean": "PASSED", "test_leaks": "FAILED", "test_sync": "ERROR"}, said
    assert "write `async with penstock.testing.no_leaks(): ...`" in said
    assert "left behind" in said


def test_the_fixtures_go_with_anyio(tmp_path: Path) -> None:
    """With its runner, the clock is an option of its fixture; system tasks are found, too."""
    found, said = outcomes(ANYIO_TESTS, tmp_path, "-p", "no:trio")
    assert found == {"test_clean": "PASSED", "test_leaks": "FAILED"}, said
    assert "left behind" in said


def test_the_plugin_costs_nothing() -> None:
    """Neither Trio nor any of Penstock's modules is imported before a fixture is used."""
    code = (
        "import json, sys, pytest; before = set(sys.modules)\n"
        "import penstock.testing.pytest_plugin\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(ran.stdout) == [
        "penstock",
        "penstock.testing",
        "penstock.testing.pytest_plugin",
    ]


def test_the_plugin_is_found_by_pytest() -> None:
    """Its fixtures are listed, and have names that no other plugin's have."""
    command = [sys.executable, "-m", "pytest", "--fixtures", "-q", "-p", "no:cacheprovider"]
    ran = subprocess.run([*command, __file__], capture_output=True, text=True, timeout=60)
    listed = re.findall(r"(?m)^(\w+).* -- ", ran.stdout)
    assert {"no_leaks", "virtual_clock"} <= set(listed)
    assert len(listed) == len(set(listed))
