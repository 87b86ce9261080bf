"""What Trio 0.35 knows of its tasks and does not publish; read here only, and never changed.

Trio publishes the scopes of nurseries, and no others. Those that `trio.move_on_after` and its like
open, with the deadlines one wants to see, are in a chain that begins at ``Task._cancel_status``:
each has a scope, and a parent that is outside it. Tasks are numbered in the order in which they
were started, by ``Task._counter``. Tests fail when either has become something else.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import trio

__all__ = ["Scoped", "age", "exited_cancelled", "scoped", "scoped_nursery"]


class Scoped(NamedTuple):
    """What cancel scopes say of what is in them."""

    deadline: float
    """The nearest, on Trio's clock; infinity without one."""
    cancelled: bool
    """Whether a cancellation reaches it, from these or from outside."""
    shielded: bool
    """Whether one of them is a shield."""


_NONE: Final = Scoped(math.inf, False, False)


def scoped(task: trio.lowlevel.Task) -> Scoped:
    """Return what the scopes say that a task opened itself, except for those of its nurseries."""
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
    """Return what a nursery's own scope says."""
    inside: Any = nursery
    scope = nursery.cancel_scope
    return Scoped(scope.deadline, inside._cancel_status.effectively_cancelled, scope.shield)


def age(task: trio.lowlevel.Task) -> int:
    """Return a number that is smaller for tasks that were started before."""
    inside: Any = task
    number: int = inside._counter
    return number


def exited_cancelled(task: trio.lowlevel.Task) -> bool:
    """Return whether a task that ends now was in a nursery that a cancellation had reached."""
    nursery: Any = task.parent_nursery
    return nursery is not None and bool(nursery._cancel_status.effectively_cancelled)
