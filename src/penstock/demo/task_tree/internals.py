"""Private attributes of Trio's tasks: cancel scopes and age. Read only.

Trio's tasks, their nurseries and the scopes of those are public. The scopes that
`trio.move_on_after` and its like open, which have the interesting deadlines, are not (they are a
chain that begins at ``Task._cancel_status``), nor is the order in which tasks were started
(``Task._counter``).

Rule: where a version of Trio lacks an attribute, the detail is left out, or derived from what is
public. That is never an error.
"""

from __future__ import annotations

import math
from itertools import count
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import trio

__all__ = ["Scoped", "age", "exited_cancelled", "scoped", "scoped_nursery"]


class Scoped(NamedTuple):
    """The effect of cancel scopes on what is in them."""

    deadline: float
    """The nearest deadline, on Trio's clock; infinity if there is none."""
    cancelled: bool
    """Whether a cancellation reaches it, from these scopes or from outside."""
    shielded: bool
    """Whether one of them is a shield."""


_NONE: Final = Scoped(math.inf, False, False)

# The order in which tasks were first seen, for a version of Trio that does not number them.
_first_seen: WeakKeyDictionary[trio.lowlevel.Task, int] = WeakKeyDictionary()
_order: Final = count()


def scoped(task: trio.lowlevel.Task) -> Scoped:
    """Return the effect of the scopes that a task opened itself, without its nurseries' scopes."""
    try:
        return _own_scopes(task)
    except AttributeError:
        return Scoped(math.inf, _is_reached(task.parent_nursery), False)


def _own_scopes(task: trio.lowlevel.Task) -> Scoped:
    inside: Any = task
    status = inside._cancel_status
    if status is None:  # it has ended
        return _NONE
    outside: Any = task.parent_nursery
    base = None if outside is None else outside._cancel_status
    cancelled = status.effectively_cancelled
    nurseries: Any = task.child_nurseries
    deadline, shielded = math.inf, False
    own = {id(nursery._cancel_status) for nursery in nurseries} if nurseries else ()
    while status is not None and status is not base:
        if id(status) not in own:
            scope = status._scope
            deadline = min(deadline, scope.deadline)
            shielded = shielded or scope.shield
        status = status._parent
    return Scoped(deadline, cancelled, shielded)


def scoped_nursery(nursery: trio.Nursery) -> Scoped:
    """Return the effect of a nursery's own scope."""
    scope = nursery.cancel_scope
    return Scoped(scope.deadline, _is_cancelled(nursery), scope.shield)


def age(task: trio.lowlevel.Task) -> int:
    """Return a number that is smaller for tasks that were started, or at least seen, earlier."""
    inside: Any = task
    try:
        number: int = inside._counter
    except AttributeError:
        if task not in _first_seen:
            _first_seen[task] = next(_order)
        number = _first_seen[task]
    return number


def exited_cancelled(task: trio.lowlevel.Task) -> bool:
    """Return whether a cancellation has reached the nursery of a task that is ending."""
    return task.parent_nursery is not None and _is_cancelled(task.parent_nursery)


def _is_cancelled(nursery: trio.Nursery) -> bool:
    inside: Any = nursery
    try:
        return bool(inside._cancel_status.effectively_cancelled)
    except AttributeError:
        return _is_reached(nursery)


def _is_reached(nursery: trio.Nursery | None) -> bool:
    """Return whether a cancellation of a nursery around it reaches a nursery.

    Scopes between two nurseries, as of `trio.move_on_after`, are not public, and are ignored.
    """
    while nursery is not None:
        opener = nursery.parent_task
        # A task's nurseries are nested, the outermost first.
        inside = opener.child_nurseries
        inside = inside[: inside.index(nursery) + 1] if nursery in inside else [nursery]
        for each in reversed(inside):
            if each.cancel_scope.cancel_called:
                return True
            if each.cancel_scope.shield:
                return False
        nursery = opener.parent_nursery
    return False
