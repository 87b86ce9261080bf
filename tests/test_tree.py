"""The live tree: nodes, records, looks, words, and what Trio does not publish."""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from quart_trio import QuartTrio

from penstock.demo.task_tree import CurrentLine, Figures, add_tree_route, internals, walk, watch
from penstock.demo.task_tree.internals import age, scoped, scoped_nursery
from penstock.demo.task_tree.record import (
    Kind,
    Moment,
    Node,
    Record,
    applied,
    differences,
    masked,
    printable_name,
)
from penstock.demo.task_tree.walk import PHRASES, Walker, phrase_for
from penstock.demo.task_tree.watch import FRAME, Watch, _Activity
from penstock.event import ServerSentEvent
from penstock.testing import FakeClient

NODES = st.builds(
    Node,
    parent=st.none() | st.integers(0, 3),
    kind=st.sampled_from(Kind),
    name=st.sampled_from("ab"),
    waits_for=st.sampled_from(["", "time to pass"]),
    deadline=st.none() | st.integers(0, 2),
    cancelled=st.booleans(),
)
PICTURES = st.dictionaries(st.integers(0, 9), NODES)
TASK: Final = Node(None, Kind.TASK, "a")


@given(PICTURES, PICTURES)
def test_differences_make_one_picture_of_another(before: Any, after: Any) -> None:
    """What differs, applied, gives what there is; and there are none between equals."""
    assert applied(before, differences(before, after)) == after
    assert not differences(after, dict(after))


def told(event: ServerSentEvent | None) -> Any:
    """Return what an event of a record says, less its clock."""
    assert event is not None
    said = json.loads(event.data or "")
    assert said.pop("now") == 5
    return said


def moment(*numbers: int, cancelled: tuple[int, ...] = (), **facts: Any) -> Moment:
    return Moment(dict.fromkeys(numbers, TASK), facts, frozenset(cancelled))


def test_who_was_told_nothing_is_told_everything() -> None:
    """The first event is a snapshot: every node, less what goes without saying, and every fact."""
    record = Record()
    record.add(moment(1, 2, streams=3))
    first = record.event_since(None, now=5)
    assert first is not None
    assert first.event == "snapshot"
    task = {"kind": "task", "name": "a", "parent": None}
    assert told(first) == {
        "nodes": [{"id": 1, **task}, {"id": 2, **task}],
        "facts": {"streams": 3},
    }
    assert record.event_since(first.id, now=5) is None  # and then nothing, until there is more


def test_who_comes_back_is_told_the_difference() -> None:
    """From any moment that is known there is one event to the last, with whom cancellations hit."""
    record = Record()
    record.add(moment(1, 2, 3, streams=3, load=1))
    first = record.event_since(None, now=5)
    record.add(moment(1, 2, cancelled=(3,), streams=3, load=2))
    record.add(moment(1, 4, streams=3, load=2))
    assert first is not None
    change = record.event_since(first.id, now=5)
    assert change is not None
    assert change.event == "change"
    assert told(change) == {
        "put": [{"id": 4, "kind": "task", "name": "a", "parent": None}],
        "gone": [2, 3],
        "cancelled": [3],
        "facts": {"load": 2},
    }


@pytest.mark.parametrize(
    "event_id",
    ["", "x", "-1", "0-1", "{run}-", "{run}-9", "{run}-\u0664", "{run}-1", "{run}-" + "1" * 5000],
)
def test_an_id_that_is_not_known_is_answered_with_everything(event_id: str) -> None:
    """Of another process, of a moment long past or to come, or no id at all: a snapshot."""
    record = Record(remembered=2)
    for number in range(4):
        record.add(moment(number))
    last = record.event_since(None, now=5)
    assert last is not None
    assert last.id is not None
    run = last.id.partition("-")[0]
    event = record.event_since(event_id.format(run=run), now=5)
    assert event is not None
    assert event.event == "snapshot"


def test_a_moment_like_the_one_before_is_none() -> None:
    """Nothing is told while nothing happens."""
    record = Record()
    record.add(moment(1, load=1))
    first = record.event_since(None, now=5)
    record.add(moment(1, load=1))
    assert first is not None
    assert record.event_since(first.id, now=5) is None


class Watchers:
    """A watch, whose looks are counted, and those who watch."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.looks = 0
        self.facts: dict[str, Any] = {}
        self.watch = Watch(self.look)

    def look(self, _: object) -> Mapping[str, Any]:
        self.looks += 1
        return {**self.facts}

    @contextmanager
    def watcher(
        self, event_id: str | None = None, *, buffer: float = math.inf
    ) -> Iterator[Callable[[], list[ServerSentEvent]]]:
        """Watch while the block runs; gives a function that returns what has been told since."""
        send, receive = trio.open_memory_channel[ServerSentEvent](buffer)
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await self.watch.producer("me", event_id)(send)

        def heard() -> list[ServerSentEvent]:
            waiting = receive.statistics()
            count = waiting.current_buffer_used + waiting.tasks_waiting_send
            return [receive.receive_nowait() for _ in range(count)]

        self.nursery.start_soon(run)
        try:
            yield heard
        finally:
            scope.cancel()


@asynccontextmanager
async def watchers() -> AsyncIterator[Watchers]:
    async with trio.open_nursery() as nursery:
        yield Watchers(nursery)
        nursery.cancel_scope.cancel()


async def test_there_is_one_look_for_all_who_watch(autojump_clock: trio.testing.MockClock) -> None:
    """Ten a second, however many watch and whenever they came; and none when they have gone."""
    async with watchers() as crowd:
        with crowd.watcher():
            await trio.sleep(0.33)
            with crowd.watcher():
                await trio.sleep(0.33)
                with crowd.watcher():
                    before = crowd.looks
                    await trio.sleep(10)
                    assert 99 <= crowd.looks - before <= 101
        await trio.testing.wait_all_tasks_blocked()
        before = crowd.looks
        await trio.sleep(10)
        assert crowd.looks == before


async def test_nothing_is_instrumented_while_nobody_watches(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An instrument is there from the first watcher to the last, one for all."""
    there: list[object] = []
    add, remove = trio.lowlevel.add_instrument, trio.lowlevel.remove_instrument

    def adding(instrument: trio.abc.Instrument) -> None:
        there.append(instrument)
        add(instrument)

    def removing(instrument: trio.abc.Instrument) -> None:
        there.remove(instrument)
        remove(instrument)

    monkeypatch.setattr(trio.lowlevel, "add_instrument", adding)
    monkeypatch.setattr(trio.lowlevel, "remove_instrument", removing)
    async with watchers() as crowd:
        assert not there
        with crowd.watcher(), crowd.watcher():
            await trio.sleep(1)
            assert len(there) == 1
        await trio.testing.wait_all_tasks_blocked()
        assert not there


async def test_a_watcher_that_is_slow_misses_frames_only(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It is told at once what became of the facts meanwhile, in one event."""
    async with watchers() as crowd:
        with crowd.watcher(buffer=0) as heard:
            await trio.sleep(1)
            assert [event.event for event in heard()] == ["you"]
            for number in range(50):
                crowd.facts["number"] = number
                await trio.sleep(FRAME)
            assert [event.event for event in heard()] == ["snapshot"]
            await trio.sleep(FRAME)
            (change,) = heard()
            assert json.loads(change.data or "")["facts"] == {"number": 49}


async def test_who_went_because_of_a_cancellation_is_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Of two branches that go, the one that was cancelled is told so, its nursery included."""

    async def branch() -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(trio.sleep, 5, name="a leaf")
            await trio.sleep(1)

    async with watchers() as crowd, trio.open_nursery() as nursery:
        nursery.start_soon(branch, name="ends well")
        with crowd.watcher() as heard:
            async with trio.open_nursery() as doomed:
                doomed.start_soon(branch, name="is cancelled")
                await trio.sleep(1)
                snapshot = json.loads(heard()[1].data or "")
                names = {node["id"]: node["name"] for node in snapshot["nodes"]}
                doomed.cancel_scope.cancel()
            await trio.sleep(9)
            changes = [json.loads(event.data or "") for event in heard()]
            gone = [names[number] for change in changes for number in change["gone"]]
            hit = [names[number] for change in changes for number in change["cancelled"]]
            assert sorted(gone) == ["", "", "", "a leaf", "a leaf", "ends well", "is cancelled"]
            assert sorted(hit) == ["", "", "a leaf", "is cancelled"]


async def test_a_crowd_is_counted(autojump_clock: trio.testing.MockClock) -> None:
    """Of a nursery with many, the oldest and newest are drawn; a node says how many more."""
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(trio.sleep_forever, name=f"task {number}")
        await trio.testing.wait_all_tasks_blocked()
        walker = Walker(drawn=6)
        for _ in range(2):
            picture = walker.walk()
            names = [node.name for node in picture.values() if node.name.startswith("task ")]
            assert names == ["task 0", "task 1", "task 2", "task 97", "task 98", "task 99"]
            (more,) = [node for node in picture.values() if node.kind is Kind.MORE]
            assert more.name == "94"
            assert [*picture] == [*walker.walk()]  # and everybody keeps their number
        nursery.cancel_scope.cancel()


async def test_what_scopes_say_is_drawn(autojump_clock: trio.testing.MockClock) -> None:
    """The nearest deadline of a task's own scopes, its shield, and cancellations that reach it."""

    async def shielded() -> None:
        with trio.move_on_after(50, shield=True), trio.move_on_after(60):
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + 70
        nursery.start_soon(shielded, name="the task")
        await trio.testing.wait_all_tasks_blocked()
        (task,) = nursery.child_tasks
        said = scoped(task)
        assert (said.deadline, said.cancelled, said.shielded) == (50, False, True)
        assert (scoped_nursery(nursery).deadline, scoped_nursery(nursery).cancelled) == (70, False)
        nursery.cancel_scope.cancel()
        assert scoped_nursery(nursery).cancelled
        assert not scoped(task).cancelled  # its shield keeps it away
        picture = Walker().walk()
        (node,) = [node for node in picture.values() if node.name == "the task"]
        assert node.shielded
        assert node.waits_for == "its cancellation"


async def test_a_deadline_that_is_long_past_is_none(autojump_clock: trio.testing.MockClock) -> None:
    """As that of Trio's own checkpoints is, for a moment, in a task that is cancelled."""

    async def over() -> None:
        with trio.CancelScope(deadline=-math.inf):
            with trio.move_on_after(5, shield=True):  # so that it is there to be looked at
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(over, name="over")
        await trio.testing.wait_all_tasks_blocked()
        (node,) = [node for node in Walker().walk().values() if node.name == "over"]
        assert node.deadline is None


async def test_what_is_noted_while_nobody_asks_is_bounded() -> None:
    """A watcher whose client reads nothing does not have who comes and goes remembered."""
    activity = _Activity(lambda task: False)
    trio.lowlevel.add_instrument(activity)
    try:
        for _ in range(100):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.checkpoint)
                nursery.start_soon(trio.sleep_forever)
                nursery.cancel_scope.cancel()
    finally:
        trio.lowlevel.remove_instrument(activity)
    ran, exited = activity.take()
    assert len(ran) < 10
    assert not exited


class Hidden:
    """Something of Trio's without its private attributes."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(self.real, name)
        return Hidden(found) if name in ("parent_nursery", "parent_task") and found else found

    def __eq__(self, other: object) -> bool:
        return self.real is getattr(other, "real", other)

    def __hash__(self) -> int:
        return hash(self.real)


async def test_a_tree_without_anything_private(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Of a Trio that keeps nothing where it was, the tree is drawn without those details."""
    real: Any = {name: getattr(internals, name) for name in ("scoped", "age", "exited_cancelled")}
    hidden = {name: lambda task, f=function: f(Hidden(task)) for name, function in real.items()}
    monkeypatch.setattr(walk, "scoped", hidden["scoped"])
    monkeypatch.setattr(walk, "age", hidden["age"])
    scoped_nursery: Any = internals.scoped_nursery
    monkeypatch.setattr(walk, "scoped_nursery", lambda nursery: scoped_nursery(Hidden(nursery)))
    monkeypatch.setattr(watch, "exited_cancelled", hidden["exited_cancelled"])
    async with watchers() as watching:
        with watching.watcher() as heard:
            scope = trio.CancelScope()

            async def deadline() -> None:
                with scope, trio.move_on_after(50):
                    async with trio.open_nursery() as nursery:  # noqa: ASYNC112 - it is drawn
                        nursery.start_soon(trio.sleep_forever, name="inside")

            watching.nursery.start_soon(deadline, name="the task")
            await trio.sleep(3 * FRAME)
            nodes: dict[str, Any] = {}
            for event in heard()[1:]:
                said = json.loads(event.data or "")
                nodes |= {node["name"]: node for node in said.get("nodes", said.get("put"))}
            assert {"the task", "inside"} <= nodes.keys()
            assert "deadline" not in nodes["the task"]
            assert nodes["inside"]["waits_for"] == "its cancellation"
            scope.cancel()
            await trio.sleep(3 * FRAME)
            gone = {number for event in heard() for number in json.loads(event.data or "")["gone"]}
            assert {nodes["the task"]["id"], nodes["inside"]["id"]} <= gone


async def test_ages_and_cancellations_without_anything_private() -> None:
    """Tasks are in the order in which they were seen, and cancelled as their nurseries are."""
    async with trio.open_nursery() as outer, trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(trio.sleep_forever)
        one, other = (Hidden(task) for task in nursery.child_tasks)
        ages = [internals.age(each) for each in (one, other, one)]  # type: ignore[arg-type]
        assert ages[0] == ages[2] < ages[1]
        hidden: Any = one
        assert not internals.scoped(hidden).cancelled
        nursery.cancel_scope.shield = True
        outer.cancel_scope.cancel()
        assert not internals.scoped(hidden).cancelled
        assert not internals.exited_cancelled(hidden)
        nursery.cancel_scope.shield = False
        assert internals.scoped(hidden) == (math.inf, True, False)
        assert internals.exited_cancelled(hidden)
        assert internals.scoped_nursery(hidden.parent_nursery).cancelled


# Names.

ADDRESSES = ("192.0.2.7:50001", "[2001:db8::7]:50001", "[fe80::1%eth0]:1")


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_masked(address: str) -> None:
    """Elsewhere an alias stands for it: always the same, and of another address another."""
    for name in ("connection", "producer of /sse", f"request /{address}"):
        said = masked(f"{name} {address}")
        assert said.endswith(f" {masked(address)}")
        assert "192.0.2" not in said
        assert "db8:" not in said  # an alias is of hexadecimal digits, too
        assert "fe80:" not in said
    assert len({masked(each) for each in ADDRESSES}) == 3
    assert re.fullmatch("#[0-9a-f]{8}", masked(address))


@pytest.mark.parametrize("name", ["writer", "request /1.2/3.4.5", "0.31", "producer of a:1", ""])
def test_what_is_no_address_stays(name: str) -> None:
    """Version numbers and paths are no addresses."""
    assert masked(name) == name


def test_a_name_is_short_and_printable() -> None:
    """Paths of megabytes are cut, with the address behind them, and cannot turn the text round."""
    long = printable_name(f"producer of /{'x' * 2**21} 192.0.2.7:50001")
    assert len(long) == 200
    assert long.endswith("…" + " 192.0.2.7:50001")
    assert len(printable_name("request /" + "x" * 2**21)) == 200
    assert len(printable_name("request /" + "\u202e" * 300)) < 2000
    assert printable_name("request /\u202ecod.exe\n\ud800") == r"request /\u202ecod.exe\n\ud800"
    assert printable_name("producer of /é x") == "producer of /é x"


async def test_addresses_are_for_this_machine_only(autojump_clock: trio.testing.MockClock) -> None:
    """A visitor from elsewhere sees no address, in no event; its own branch it can still tell."""
    app = QuartTrio("tree_test")
    add_tree_route(app, sleeps, dict)
    here = ("127.0.0.1", 50000)
    away = ("192.0.2.9", 50001)
    local = {"host": "127.0.0.1:8080"}
    seen: dict[str, str] = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever, name="connection 192.0.2.9:50001")
        for label, client, headers in (
            ("here", here, local),
            ("away", away, {}),
            ("proxied", here, {**local, "x-forwarded-for": "192.0.2.9"}),
        ):
            asking = FakeClient(app, "/tree", client=client, headers=headers)
            nursery.start_soon(asking.run)
            await asking.received(b"event: snapshot")
            nursery.start_soon(trio.sleep_forever, name=f"producer of /x 198.51.100.1:{len(seen)}")
            await asking.received(b"event: change")
            seen[label] = asking.body.decode()
            asking.disconnect()
        nursery.cancel_scope.cancel()
    assert "connection 192.0.2.9:50001" in seen["here"]
    assert "198.51.100.1:0" in seen["here"]
    for label in ("away", "proxied"):
        assert not re.search(r"\d+\.\d+\.\d+\.\d+", seen[label])
    you = re.search("event: you\ndata: (#.{8})\n", seen["away"])
    assert you
    assert f'"connection {you[1]}"' in seen["away"]


async def sleeps(events: trio.abc.SendChannel[ServerSentEvent]) -> None:
    await trio.sleep_forever()


async def test_what_trio_does_not_publish_is_still_there() -> None:
    """The attributes that `penstock.demo.task_tree.internals` reads, in the installed Trio."""
    older, newer = [], []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        older = [*nursery.child_tasks]
        nursery.start_soon(trio.sleep_forever)
        newer = [task for task in nursery.child_tasks if task not in older]
        assert age(older[0]) < age(newer[0])
        mine: Any = trio.lowlevel.current_task()
        status = mine._cancel_status
        assert status._scope is nursery.cancel_scope
        assert status.effectively_cancelled is False
        while status is not None and status is not mine.parent_nursery._cancel_status:
            status = status._parent
        assert status is not None
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("module", "name"), sorted(PHRASES))
def test_each_phrase_is_for_a_function_that_exists(module: str, name: str) -> None:
    """A function that was renamed is drawn with its name; Penstock's own are all there."""
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        if module.startswith("trio."):
            pytest.skip(f"Trio {trio.__version__} has no {module}.{name}")
        raise
    assert found.__code__.co_qualname == name


async def test_the_outermost_phrase_decides(autojump_clock: trio.testing.MockClock) -> None:
    """A wait inside a wait is called by what it is for; one without a phrase, by its function."""

    async def of_nobody() -> None:
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)

    async with trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[None](0)
        for function, words in (
            (receive.receive, "an event in its channel"),
            (trio.Event().wait, "an Event"),
            (of_nobody, "test_the_outermost_phrase_decides.<locals>.of_nobody"),
            (trio.sleep_forever, "its cancellation"),
        ):
            nursery.start_soon(function, name=words)
        await trio.testing.wait_all_tasks_blocked()
        for task in nursery.child_tasks:
            assert phrase_for([frame for frame, _ in task.iter_await_frames()]) == task.name
        nursery.cancel_scope.cancel()
        await send.aclose()
        await receive.aclose()


async def test_figures_are_of_the_last_second(autojump_clock: trio.testing.MockClock) -> None:
    """Lateness and cost are those of one second; between two lines nothing changes."""
    figures = Figures()
    assert "cost" not in figures.take(0, 0)
    await trio.sleep(0.5)
    said = figures.take(0.030, 0.004)
    await trio.sleep(0.5)
    later = figures.take(0.001, 0.006)
    assert (said["late"], later["late"], later["cost"]) == (0, 30, 1)
    await trio.sleep(1)
    assert figures.take(0.002, 0)["late"] == 2
    await trio.sleep(100)  # in which nobody watches
    assert "cost" not in figures.take(0, 0)


async def test_the_current_line_is_the_newest_tasks(autojump_clock: trio.testing.MockClock) -> None:
    """Its line is the one at which the newest task waits, and its turns grow when that has run."""

    async def pupil() -> None:
        await trio.sleep(1)
        await trio.sleep(5)
        await trio.sleep_forever()

    current = CurrentLine("pupil ", pupil)
    assert current.find([], []) is None
    async with trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(pupil, name=f"pupil {number}")
            await trio.sleep(2)
        tasks = nursery.child_tasks
        old, new = sorted(tasks, key=age)
        said = current.find(tasks, [old])
        assert said is not None
        assert said["line"] == 2
        assert current.find(tasks, [old]) == said
        await trio.sleep(5)
        later = current.find(tasks, [new])
        assert later is not None
        assert (later["line"], later["turns"]) == (3, said["turns"] + 1)
        nursery.cancel_scope.cancel()
