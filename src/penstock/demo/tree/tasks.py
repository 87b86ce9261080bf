"""What is known of Trio's tasks: their names as visitors see them, and what they wait for.

What Trio does not publish of its tasks is read here only, and never changed.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Sequence
from hashlib import blake2s
from itertools import count
from types import CodeType
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import trio

__all__ = [
    "PHRASES",
    "Scoped",
    "age",
    "alias_of",
    "exited_cancelled",
    "fit",
    "masked",
    "scoped",
    "scoped_nursery",
    "words_for",
]


class Scoped(NamedTuple):
    """What cancel scopes say of what is in them."""

    deadline: float
    """The nearest, on Trio's clock; infinity without one."""
    cancelled: bool
    """Whether a cancellation reaches it, from these or from outside."""
    shielded: bool
    """Whether one of them is a shield."""


_NONE: Final = Scoped(math.inf, False, False)

# The order in which tasks were first looked at, for a Trio that does not number them.
_first_seen: WeakKeyDictionary[trio.lowlevel.Task, int] = WeakKeyDictionary()
_order: Final = count()


def scoped(task: trio.lowlevel.Task) -> Scoped:
    """Return what the scopes say that a task opened itself, except for those of its nurseries."""
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
    """Return what a nursery's own scope says."""
    scope = nursery.cancel_scope
    return Scoped(scope.deadline, _is_cancelled(nursery), scope.shield)


def age(task: trio.lowlevel.Task) -> int:
    """Return a number that is smaller for tasks that were started, or at least seen, before."""
    inside: Any = task
    try:
        number: int = inside._counter
    except AttributeError:
        if task not in _first_seen:
            _first_seen[task] = next(_order)
        number = _first_seen[task]
    return number


def exited_cancelled(task: trio.lowlevel.Task) -> bool:
    """Return whether a task that ends now was in a nursery that a cancellation had reached."""
    return task.parent_nursery is not None and _is_cancelled(task.parent_nursery)


def _is_cancelled(nursery: trio.Nursery) -> bool:
    inside: Any = nursery
    try:
        return bool(inside._cancel_status.effectively_cancelled)
    except AttributeError:
        return _is_reached(nursery)


def _is_reached(nursery: trio.Nursery | None) -> bool:
    """Tell whether a cancellation reaches a nursery, as far as nurseries are concerned.

    A scope between two nurseries, as of `trio.move_on_after`, is not public, and not looked at.
    """
    while nursery is not None:
        opener = nursery.parent_task
        # Of one task's nurseries, which it opened one in the other, the outermost is the first.
        inside = opener.child_nurseries
        inside = inside[: inside.index(nursery) + 1] if nursery in inside else [nursery]
        for each in reversed(inside):
            if each.cancel_scope.cancel_called:
                return True
            if each.cancel_scope.shield:
                return False
        nursery = opener.parent_nursery
    return False


# Characters. Longer than any name of Penstock's own, with an address behind it.
_LONGEST: Final = 200
_LONGEST_ADDRESS: Final = 64

_ADDRESS: Final = re.compile(
    r"(?<![\w.:])\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?(?![\w.])"
    r"|\[[0-9A-Fa-f:.]+(?:%\w+)?\](?::\d{1,5})?"
)

# Aliases of one process mean nothing to another, and cannot be computed by trying all addresses.
_KEY: Final = secrets.token_bytes(16)


def fit(name: str) -> str:
    """Return a name short and printable; the address at the end of a long one stays."""
    if len(name) > _LONGEST:
        tail = name[-_LONGEST_ADDRESS:]
        _, space, address = tail.rpartition(" ")
        end = f" {address}" if space and _ADDRESS.fullmatch(address) else ""
        name = f"{name[: _LONGEST - len(end) - 1]}…{end}"
    if name.isprintable():
        return name
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in name)


def alias_of(address: str) -> str:
    """Return what stands for an address: the same for each time, and telling nothing of it."""
    return f"#{blake2s(address.encode(), key=_KEY, digest_size=4).hexdigest()}"


def masked(name: str) -> str:
    """Return a name with aliases in place of addresses."""
    return _ADDRESS.sub(lambda found: alias_of(found[0]), name)


# By the module and the qualified name of the function; a test looks that each of them is there.
PHRASES: Final[dict[tuple[str, str], str]] = {
    ("penstock.stream.ticker", "Ticker.tick"): "its next turn",
    ("penstock.hub.cursor", "Cursor.wait"): "an event of the hub",
    ("penstock.hub.committer", "Committer.run"): "something to commit",
    ("penstock.hub.dispatcher", "Dispatcher.run"): "something to deliver",
    ("penstock.hypercorn.connection.inbox", "Inbox.receive"): "what the client sends",
    ("penstock.hypercorn.wire.incoming", "Incoming.receive"): "bytes of the client",
    ("penstock.hypercorn.wire.incoming", "Incoming.watch"): "the client to go",
    ("penstock.hypercorn.wire.turns", "Turn.next"): "its turn",
    ("penstock.hypercorn.server.listeners", "Listener.accept"): "a client to come",
    ("penstock.hypercorn.wire.outgoing", "Outgoing._write_waiting"): "room in its socket",
    ("penstock.hypercorn.protocol.window", "Window.push"): "room in the client's window",
    ("trio._channel", "MemoryReceiveChannel.receive"): "an event in its channel",
    ("trio._channel", "MemorySendChannel.send"): "room in its channel",
    ("trio._core._run", "NurseryManager.__aexit__"): "the tasks in its nursery",
    ("trio._core._run", "cancel_shielded_checkpoint"): "its turn to run",
    ("trio._core._run", "checkpoint"): "its turn to run",
    ("trio._highlevel_socket", "SocketListener.accept"): "a client to come",
    ("trio._highlevel_socket", "SocketStream.receive_some"): "bytes in its socket",
    ("trio._highlevel_socket", "SocketStream.send_all"): "room in its socket",
    ("trio._signals", "SignalReceiver.__anext__"): "a signal",
    ("trio._ssl", "SSLStream.receive_some"): "bytes in its socket",
    ("trio._ssl", "SSLStream.send_all"): "room in its socket",
    ("trio._threads", "to_thread_run_sync"): "a thread",
    ("trio._timeouts", "sleep"): "time to pass",
    ("trio._timeouts", "sleep_until"): "a moment",
    ("trio._timeouts", "sleep_forever"): "its cancellation",
    ("trio._subprocess", "Process.wait"): "a process to end",
    ("trio._sync", "CapacityLimiter.acquire_on_behalf_of"): "its turn",
    ("trio._sync", "Event.wait"): "an Event",
    ("trio._sync", "_LockImpl.acquire"): "a Lock",
    ("trio._sync", "Semaphore.acquire"): "a Semaphore",
    ("trio._core._io_epoll", "EpollIOManager.wait_readable"): "bytes in its socket",
    ("trio._core._io_epoll", "EpollIOManager.wait_writable"): "room in its socket",
}

# Where every wait ends.
_TRAPS: Final = trio.lowlevel.wait_task_rescheduled.__code__.co_filename

_NAMES: Final = frozenset(name for _, name in PHRASES)


def words_for(frames: Sequence[Any]) -> str:
    """Return what a task waits for that is in these functions' frames, the outermost first."""
    for frame in frames:
        code: CodeType = frame.f_code
        if code.co_qualname in _NAMES:
            phrase = PHRASES.get((frame.f_globals["__name__"], code.co_qualname))
            if phrase is not None:
                return phrase
    # The last that is not Trio's own way to its scheduler: nobody's phrase, but a name.
    for frame in reversed(frames):
        if frame.f_code.co_filename != _TRAPS:
            return str(frame.f_code.co_qualname)
    return ""
