"""Pictures of the tree over time, their differences, and the events that describe them.

A picture maps numbers to nodes. A node keeps its number for life, and no other ever has it. Parents
have smaller numbers than their children, and siblings are in the order of their numbers.

The events describe a state: to a watcher that has seen one moment, one event describes all changes
since. So a slow watcher misses frames and nothing else; one that reconnects with the id of its last
event gets the difference, or everything if that moment is no longer known.

Names can contain what a client sent: megabytes of path, characters that reverse the text after
them, addresses. Rule: a name is short and printable, and shows addresses to this machine only.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2s
from typing import Any, Final, NamedTuple, TypeAlias, final

from penstock.event import ServerSentEvent

__all__ = [
    "Differences",
    "Kind",
    "Moment",
    "Node",
    "Picture",
    "Record",
    "applied",
    "differences",
    "masked",
    "printable_name",
]


# Characters of a name: more than any name of Penstock's own has, with an address at its end.
_LONGEST: Final = 200
_LONGEST_ADDRESS: Final = 64

_ADDRESS: Final = re.compile(
    r"(?<![\w.:])\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?(?![\w.])"
    r"|\[[0-9A-Fa-f:.]+(?:%\w+)?\](?::\d{1,5})?"
)

# Random, so that aliases cannot be reversed by trying all addresses.
_ALIAS_KEY: Final = secrets.token_bytes(16)

# Moments that are remembered for watchers that reconnect: ten seconds of frames.
_REMEMBERED: Final = 100


def printable_name(name: str) -> str:
    """Return a name short and printable; an address at its end is kept."""
    if len(name) > _LONGEST:
        tail = name[-_LONGEST_ADDRESS:]
        _, space, address = tail.rpartition(" ")
        end = f" {address}" if space and _ADDRESS.fullmatch(address) else ""
        name = f"{name[: _LONGEST - len(end) - 1]}…{end}"
    if name.isprintable():
        return name
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in name)


def masked(name: str) -> str:
    """Return a name with an alias for each address, always the same for the same one."""
    return _ADDRESS.sub(lambda found: _alias_of(found[0]), name)


def _alias_of(address: str) -> str:
    return f"#{blake2s(address.encode(), key=_ALIAS_KEY, digest_size=4).hexdigest()}"


class Kind(StrEnum):
    """What a node stands for."""

    TASK = "task"
    NURSERY = "nursery"
    MORE = "more"
    """The tasks of a nursery that are not drawn, as one node whose name is their number."""


class Node(NamedTuple):
    """A task, a nursery, or the tasks of a nursery that are not drawn."""

    parent: int | None
    """The number of a task's nursery, or of the task that opened a nursery."""
    kind: Kind
    name: str
    waits_for: str = ""
    """What a task is blocked on, in words; empty while it is running."""
    deadline: int | None = None
    """The nearest deadline of its cancel scopes, in milliseconds of Unix time."""
    cancelled: bool = False
    """Whether a cancellation reaches it, so that its next checkpoint raises."""
    shielded: bool = False
    """Whether a cancel scope of its own shields it from cancellations outside."""


Picture: TypeAlias = Mapping[int, Node]


class Differences(NamedTuple):
    """What turns one picture into another."""

    put: dict[int, Node]
    """Nodes that are new or have changed."""
    gone: list[int]
    """Numbers of nodes that have gone."""

    def __bool__(self) -> bool:
        return bool(self.put or self.gone)


def differences(before: Picture, after: Picture) -> Differences:
    """Return what turns one picture into the other."""
    put = {number: node for number, node in after.items() if before.get(number) != node}
    return Differences(put, [number for number in before if number not in after])


def applied(before: Picture, changes: Differences) -> dict[int, Node]:
    """Apply differences to a picture, as the page does."""
    after: dict[int, Any] = {**before, **changes.put}
    for number in changes.gone:
        del after[number]
    return after


class Moment(NamedTuple):
    """All that is shown at one moment."""

    picture: Picture
    """The tree."""
    facts: Mapping[str, Any]
    """Everything else, as a JSON object."""
    cancelled: frozenset[int]
    """The nodes that have gone since the previous moment after a cancellation reached them."""


@final
class Record:
    """The last moments of a process, each with an id.

    Args:
      remembered: the number of moments, 1 or more.
    """

    def __init__(self, *, remembered: int = _REMEMBERED) -> None:
        # Ids of another process are unknown to this one.
        self._run = secrets.token_hex(4)
        self._remembered = remembered
        self._moments: dict[int, Moment] = {}  # the oldest first
        self._last = 0
        # The last moment as JSON, by the moment that a watcher has seen, and whether it is masked.
        self._encoded: dict[tuple[int | None, bool], str] = {}

    def add(self, moment: Moment) -> None:
        """Add a moment, unless nothing has changed since the last."""
        last = self._moments.get(self._last)
        if last is not None and last[:2] == moment[:2]:
            return
        self._last += 1
        self._moments[self._last] = moment
        self._encoded.clear()
        while len(self._moments) > self._remembered:
            del self._moments[next(iter(self._moments))]

    def event_since(
        self, event_id: str | None, *, now: int, mask: bool = False
    ) -> ServerSentEvent | None:
        """Return the event that brings a watcher up to date, or None if it is.

        Args:
          event_id: the id of the last event that the watcher received; None: it has received none.
          now: milliseconds of Unix time, by which the page sets its clock.
          mask: whether to replace addresses by aliases.
        """
        seen = self._number(event_id)
        if seen == self._last:
            return None
        encoded = self._encoded.get((seen, mask))
        if encoded is None:
            encoded = self._encoded[seen, mask] = json.dumps(
                self._all(mask) if seen is None else self._changes(seen, mask),
                ensure_ascii=False,
                separators=(",", ":"),
            )
        return ServerSentEvent(
            f'{{"now":{now},{encoded[1:]}',
            event="snapshot" if seen is None else "change",
            id=f"{self._run}-{self._last}",
        )

    def _number(self, event_id: str | None) -> int | None:
        """Return the number of the moment that an event described, if it is remembered."""
        run, _, digits = (event_id or "").rpartition("-")
        if run != self._run or not (digits.isascii() and digits.isdecimal()):
            return None
        if len(digits) > 20:  # more than possible, and Python refuses to parse too many
            return None
        number = int(digits)
        return number if number in self._moments else None

    def _all(self, mask: bool) -> dict[str, Any]:
        moment = self._moments[self._last]
        return {"nodes": _as_json(moment.picture, mask), "facts": moment.facts}

    def _changes(self, seen: int, mask: bool) -> dict[str, Any]:
        before, after = self._moments[seen], self._moments[self._last]
        put, gone = differences(before.picture, after.picture)
        since = (self._moments[number].cancelled for number in range(seen + 1, self._last + 1))
        cancelled = frozenset().union(*since)
        known = before.facts
        return {
            "put": _as_json(put, mask),
            "gone": gone,
            "cancelled": [number for number in gone if number in cancelled],
            "facts": {
                name: value
                for name, value in after.facts.items()
                if name not in known or known[name] != value
            },
        }


def _as_json(nodes: Mapping[int, Node], mask: bool) -> list[dict[str, Any]]:
    """Return nodes as JSON objects; fields with default values are omitted."""
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
