"""What a picture of the tree is made of, and the difference between two pictures.

A picture is a dict: numbers to nodes. A node's number is its own for as long as it lives, and never
another's; parents have smaller numbers than their children, and siblings are in order of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

__all__ = ["Differences", "Kind", "Node", "Picture", "applied", "differences"]


class Kind(StrEnum):
    """What a node stands for."""

    TASK = "task"
    NURSERY = "nursery"
    MORE = "more"
    """Tasks that are not drawn, one node for all of a nursery; its name is how many they are."""


class Node(NamedTuple):
    """A task, a nursery, or tasks that are not drawn."""

    parent: int | None
    """The number of the nursery that a task is in, or of the task that opened a nursery."""
    kind: Kind
    name: str
    waits_for: str = ""
    """What a task is blocked on, in words; empty while it runs."""
    deadline: int | None = None
    """Milliseconds of Unix time at which the nearest deadline of its cancel scopes is."""
    cancelled: bool = False
    """Whether a cancellation reaches it, so that its next checkpoint raises."""
    shielded: bool = False
    """Whether a cancel scope of its own keeps cancellations of the outside away."""


Picture: TypeAlias = Mapping[int, Node]


class Differences(NamedTuple):
    """What has to be done to a picture, to have another."""

    put: dict[int, Node]
    """Nodes that are new, or look otherwise."""
    gone: list[int]
    """Numbers of those that are no more."""

    def __bool__(self) -> bool:
        return bool(self.put or self.gone)


def differences(before: Picture, after: Picture) -> Differences:
    """Return what turns one picture into the other."""
    put = {number: node for number, node in after.items() if before.get(number) != node}
    return Differences(put, [number for number in before if number not in after])


def applied(before: Picture, changes: Differences) -> dict[int, Node]:
    """Return the picture that differences make of one; what the page does, too."""
    after: dict[int, Any] = {**before, **changes.put}
    for number in changes.gone:
        del after[number]
    return after
