"""Pictures of the tree, moment after moment, their differences, and the events made of them.

A picture is a dict: numbers to nodes. A node's number is its own for as long as it lives, and never
another's; parents have smaller numbers than their children, and siblings are in order of theirs.

The events are a state's: whoever has seen one moment is told in one event what is otherwise now,
however long ago that was. So a slow watcher misses frames and nothing else, and one that comes back
with the id of its last event is told the difference, if that moment is still known, and everything
again if it is not.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias, final

from penstock.demo.tree.names import masked
from penstock.event import ServerSentEvent

__all__ = ["Differences", "Kind", "Moment", "Node", "Picture", "Record", "applied", "differences"]


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


# Moments that are known for those who come back: ten seconds of frames.
_KEPT: Final = 100


class Moment(NamedTuple):
    """What there was to see at one moment."""

    picture: Picture
    """The tree."""
    facts: Mapping[str, Any]
    """What else there is to tell, by name, as JSON knows it."""
    cancelled: frozenset[int]
    """Of those that went since the moment before, whom a cancellation had reached."""


@final
class Record:
    """The last moments of a run, each with an id.

    Args:
      kept: how many moments are known, 1 or more.
    """

    def __init__(self, *, kept: int = _KEPT) -> None:
        # Ids of a process that is no more mean nothing to this one.
        self._run = secrets.token_hex(4)
        self._kept = kept
        self._moments: dict[int, Moment] = {}  # the oldest first
        self._last = 0
        # The last moment as JSON, by the moment that the watcher has seen, and for whom it is.
        self._said: dict[tuple[int | None, bool], str] = {}

    def add(self, moment: Moment) -> None:
        """Note a moment, unless nothing is otherwise than in the one before."""
        last = self._moments.get(self._last)
        if last is not None and last[:2] == moment[:2]:
            return
        self._last += 1
        self._moments[self._last] = moment
        self._said.clear()
        while len(self._moments) > self._kept:
            del self._moments[next(iter(self._moments))]

    def event_since(
        self, event_id: str | None, *, now: int, mask: bool = False
    ) -> ServerSentEvent | None:
        """Return the event that brings a watcher to the last moment, or None when it is there.

        Args:
          event_id: the id of the last event that it was told; None if it was told nothing.
          now: milliseconds of Unix time, by which it can set its clock.
          mask: whether aliases stand for addresses.
        """
        seen = self._number(event_id)
        if seen == self._last:
            return None
        said = self._said.get((seen, mask))
        if said is None:
            said = self._said[seen, mask] = json.dumps(
                self._all(mask) if seen is None else self._changes(seen, mask),
                ensure_ascii=False,
                separators=(",", ":"),
            )
        return ServerSentEvent(
            f'{{"now":{now},{said[1:]}',
            event="snapshot" if seen is None else "change",
            id=f"{self._run}-{self._last}",
        )

    def _number(self, event_id: str | None) -> int | None:
        """Return the moment that an event told of, if it is known."""
        run, _, digits = (event_id or "").rpartition("-")
        if run != self._run or not (digits.isascii() and digits.isdecimal()):
            return None
        if len(digits) > 20:  # more than there can be, and Python refuses to read too many
            return None
        number = int(digits)
        return number if number in self._moments else None

    def _all(self, mask: bool) -> dict[str, Any]:
        moment = self._moments[self._last]
        return {"nodes": _told(moment.picture, mask), "facts": moment.facts}

    def _changes(self, seen: int, mask: bool) -> dict[str, Any]:
        before, after = self._moments[seen], self._moments[self._last]
        put, gone = differences(before.picture, after.picture)
        since = (self._moments[number].cancelled for number in range(seen + 1, self._last + 1))
        cancelled = frozenset().union(*since)
        known = before.facts
        return {
            "put": _told(put, mask),
            "gone": gone,
            "cancelled": [number for number in gone if number in cancelled],
            "facts": {
                name: value
                for name, value in after.facts.items()
                if name not in known or known[name] != value
            },
        }


def _told(nodes: Mapping[int, Node], mask: bool) -> list[dict[str, Any]]:
    """Return nodes as JSON has them; fields with default values are omitted."""
    return [
        {
            "id": number,
            **{
                name: value
                for name, value in _shown(node, mask)._asdict().items()
                if value != Node._field_defaults.get(name, ...)
            },
        }
        for number, node in nodes.items()
    ]


def _shown(node: Node, mask: bool) -> Node:
    return node._replace(name=masked(node.name)) if mask else node
