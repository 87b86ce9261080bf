"""The live tree beside `trio.lowlevel`: what the events of random runs draw."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any, Final

import pytest
import trio
from hypothesis import settings

from penstock.demo.task_tree.watch import FRAME, Watch
from penstock.event import ServerSentEvent

SEQUENCES: Final = 200 if settings.default is settings.get_profile("thorough") else 60
STEPS: Final = 25

# A task or a nursery of either side: its name, and what is in it.
Shape = tuple[str, tuple[Any, ...]]


class Actor:
    """A task that opens and leaves nurseries and scopes, and starts others, as it is told."""

    def __init__(self, name: str, actors: dict[str, Actor]) -> None:
        self.name = name
        self.actors = actors
        self.orders, self.inbox = trio.open_memory_channel[str](100)
        self.nurseries: list[trio.Nursery] = []
        self.children = 0

    async def run(self) -> None:
        """Do as told until told to end."""
        self.actors[self.name] = self
        try:
            await self.obey()
        finally:
            del self.actors[self.name]

    async def obey(self) -> None:
        """Do as told until told to leave what was opened last."""
        async for order in self.inbox:
            if order == "leave":
                return
            if order == "nursery":
                async with trio.open_nursery() as nursery:
                    self.nurseries.append(nursery)
                    try:
                        await self.obey()
                    finally:
                        self.nurseries.remove(nursery)
            elif order == "scope":
                with trio.move_on_after(1_000_000):
                    await self.obey()
            elif order == "start" and self.nurseries:
                self.children += 1
                child = Actor(f"{self.name}.{self.children}", self.actors)
                self.nurseries[-1].start_soon(child.run, name=f"actor {child.name}")
            elif order == "cancel" and self.nurseries:
                random.choice(self.nurseries).cancel_scope.cancel()


def shape_of_task(task: trio.lowlevel.Task) -> Shape:
    """Return what is there, as Trio's public tree says."""
    return task.name, tuple(
        ("nursery", tuple(sorted(map(shape_of_task, nursery.child_tasks))))
        for nursery in task.child_nurseries
    )


class Drawing:
    """What a page draws of the events it is told: done here anew, and not with Penstock's code."""

    def __init__(self) -> None:
        self.nodes: dict[int, dict[str, Any]] = {}
        self.told = 0

    def hear(self, event: ServerSentEvent) -> None:
        """Take in one event."""
        if event.event not in ("snapshot", "change"):
            return
        self.told += 1
        data = json.loads(event.data or "")
        if event.event == "snapshot":
            self.nodes.clear()
        for node in data.get("nodes", data.get("put")):
            self.nodes[node["id"]] = node
        for number in data.get("gone", ()):
            del self.nodes[number]

    def of(self, parent: int | None) -> Iterator[int]:
        """Return what is in a node, or outside of all, in the order in which it is drawn."""
        return (
            number for number in sorted(self.nodes) if self.nodes[number].get("parent") == parent
        )

    def shape(self, number: int) -> Shape:
        """Return a task as it is drawn."""
        return self.nodes[number]["name"], tuple(
            ("nursery", tuple(sorted(map(self.shape, self.of(each))))) for each in self.of(number)
        )


@pytest.mark.parametrize("seed", range(SEQUENCES))
async def test_the_tree_is_what_trio_says(seed: int, autojump_clock: object) -> None:
    """After each step of a random run, what the events have drawn is the tree of tasks there is."""
    dice = random.Random(seed)
    random.seed(seed)
    actors: dict[str, Actor] = {}
    drawing = Drawing()
    send, receive = trio.open_memory_channel[ServerSentEvent](1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Watch(lambda _: {}).producer("", None), send)
        async with trio.open_nursery() as stage:
            for number in range(2):
                stage.start_soon(Actor(f"{number}", actors).run, name=f"actor {number}")
            for step in range(STEPS):
                await trio.sleep(2 * FRAME)
                while receive.statistics().current_buffer_used:
                    drawing.hear(receive.receive_nowait())
                root = trio.lowlevel.current_root_task()
                assert root is not None
                drawn = [drawing.shape(number) for number in drawing.of(None)]
                assert drawn == [as_drawn(shape_of_task(root))], f"step {step}"
                for name in dice.sample(sorted(actors), min(2, len(actors))):
                    what = ("nursery", "start", "start", "start", "scope", "leave", "cancel")
                    actors[name].orders.send_nowait(dice.choice(what))
            stage.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    assert drawing.told > 5


def as_drawn(shape: Shape) -> Shape:
    """Return a shape with the names as they are drawn: a function's without its modules."""
    name, inside = shape
    if " " not in name:
        name = name.replace(".<locals>", "").rpartition(".")[2].lstrip("_")
    return name, tuple(as_drawn(each) for each in inside)
