"""The walk through Trio's tasks that makes a picture of them.

Rules: it changes nothing, never blocks, and keeps no reference to a task beyond the walk after its
end. Its cost is bounded: of a large nursery only the oldest and newest tasks are drawn, and the
others counted; what a task waits for is determined again only after the task has run.

What a blocked task waits for is derived from the functions that it is in. Of those in `PHRASES`
the outermost decides: ``Ticker.tick`` says more than the ``sleep_forever`` in which it ends.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count
from types import CodeType
from typing import Any, Final, NamedTuple, TypeAlias, final

import trio

from penstock.demo.task_tree.internals import Scoped, age, scoped, scoped_nursery
from penstock.demo.task_tree.record import Kind, Node, Picture, printable_name

__all__ = ["DRAWN", "PHRASES", "Walker", "phrase_for"]

# Tasks that are drawn of one nursery: half the oldest, half the newest.
DRAWN: Final = 24

_Task: TypeAlias = trio.lowlevel.Task

# By the module and the qualified name of the function; a test checks that each exists.
PHRASES: Final[dict[tuple[str, str], str]] = {
    ("penstock.stream.ticker", "Ticker.tick"): "its next turn",
    ("penstock.hub.cursor", "Cursor.wait"): "an event of the hub",
    ("penstock.hub.committer", "Committer.run"): "a publication to commit",
    ("penstock.hub.dispatcher", "Dispatcher.run"): "a publication to deliver",
    (
        "penstock.hypercorn.connection.receive_queue",
        "ReceiveQueue.receive",
    ): "what the client sends",
    ("penstock.hypercorn.wire.incoming", "IncomingBytes.receive"): "bytes from the client",
    ("penstock.hypercorn.wire.incoming", "IncomingBytes.watch"): "the client to disconnect",
    ("penstock.hypercorn.wire.turns", "Turn.next"): "its turn",
    ("penstock.hypercorn.server.listeners", "Listener.accept"): "a client to connect",
    ("penstock.hypercorn.wire.outgoing", "OutgoingBytes._write_pending"): "room in its socket",
    ("penstock.hypercorn.protocol.send_buffers", "SendBuffer.push"): "room in the client's window",
    ("trio._channel", "MemoryReceiveChannel.receive"): "an event in its channel",
    ("trio._channel", "MemorySendChannel.send"): "room in its channel",
    ("trio._core._run", "NurseryManager.__aexit__"): "the tasks in its nursery",
    ("trio._core._run", "cancel_shielded_checkpoint"): "its turn to run",
    ("trio._core._run", "checkpoint"): "its turn to run",
    ("trio._highlevel_socket", "SocketListener.accept"): "a client to connect",
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

# The file of the functions in which every wait ends.
_TRAPS: Final = trio.lowlevel.wait_task_rescheduled.__code__.co_filename

_NAMES: Final = frozenset(name for _, name in PHRASES)


class _Siblings(NamedTuple):
    """The tasks of a nursery, and those of them that are drawn."""

    tasks: frozenset[_Task]
    drawn: Sequence[_Task]


@final
class Walker:
    """Makes pictures of a Trio run; a node has the same number in consecutive pictures.

    Args:
      drawn: the number of tasks that are drawn of one nursery, 2 or more.

    Attributes:
      cancelled: the numbers of the nodes that went between the last two pictures after a
        cancellation had reached them.
    """

    def __init__(self, *, drawn: int = DRAWN) -> None:
        self._half = drawn // 2
        self._fresh = count(1)
        # Of the last picture only, so that ended tasks are released.
        self._numbers: dict[Any, int] = {}
        self._waits: dict[_Task, str] = {}
        self._siblings: dict[trio.Nursery, _Siblings] = {}
        self.cancelled: frozenset[int] = frozenset()
        # Unix time minus Trio's. Taken once, or deadlines would seem to move.
        self._offset = time.time() - trio.current_time()

    @property
    def drawn(self) -> Collection[_Task]:
        """The tasks that are in the last picture."""
        return self._waits.keys()

    def forget(self) -> None:
        """Forget everything but the numbers in the last picture."""
        self._waits, self._siblings = {}, {}

    def walk(self, ran: Collection[_Task] | None = None, exited: Collection[_Task] = ()) -> Picture:
        """Return a picture of the present tree. Synchronous.

        Args:
          ran: the tasks that have run since the last walk; None: unknown, so all may have.
          exited: the tasks that have ended since then after a cancellation had reached them.
        """
        numbers: dict[Any, int] = {}
        waits: dict[_Task, str] = {}
        siblings: dict[trio.Nursery, _Siblings] = {}
        picture: dict[int, Node] = {}
        root = trio.lowlevel.current_root_task()
        assert root is not None  # it runs in a task
        todo: list[tuple[_Task, int | None]] = [(root, None)]
        for task, parent in todo:  # which grows during the iteration
            number = numbers[task] = self._number(task)
            known = None if ran is None or task in ran else self._waits.get(task)
            waits[task] = _waits_for(task) if known is None else known
            picture[number] = self._node(parent, Kind.TASK, _name(task), scoped(task), waits[task])
            for nursery in task.child_nurseries:
                within = numbers[nursery] = self._number(nursery)
                picture[within] = self._node(number, Kind.NURSERY, "", scoped_nursery(nursery))
                children = siblings[nursery] = self._children(nursery)
                todo.extend((child, within) for child in children.drawn)
                if more := len(children.tasks) - len(children.drawn):
                    others = numbers[within] = self._number(within)
                    picture[others] = Node(within, Kind.MORE, str(more))
        self.cancelled = frozenset(self._cancelled_of(exited, numbers))
        self._numbers, self._waits, self._siblings = numbers, waits, siblings
        return picture

    def _cancelled_of(self, exited: Collection[_Task], now: Mapping[Any, int]) -> Iterator[int]:
        for gone, number in self._numbers.items():
            if gone in now:
                continue
            if gone in exited or (
                isinstance(gone, trio.Nursery)
                and (gone.cancel_scope.cancel_called or gone.parent_task in exited)
            ):
                yield number

    def draws(self, task: _Task) -> bool:
        """Return whether a task was in the last picture."""
        return task in self._numbers

    def _number(self, of: Any) -> int:
        number = self._numbers.get(of)
        return next(self._fresh) if number is None else number

    def _node(
        self, parent: int | None, kind: Kind, name: str, scopes: Scoped, waits_for: str = ""
    ) -> Node:
        at = scopes.deadline  # -inf for a moment in a task that Trio has just cancelled
        deadline = round((at + self._offset) * 1000) if math.isfinite(at) else None
        return Node(parent, kind, name, waits_for, deadline, scopes.cancelled, scopes.shielded)

    def _children(self, nursery: trio.Nursery) -> _Siblings:
        tasks = nursery.child_tasks
        known = self._siblings.get(nursery)
        if known is not None and known.tasks == tasks:
            return known
        drawn = sorted(tasks, key=age)
        if len(drawn) > 2 * self._half:
            drawn = drawn[: self._half] + drawn[-self._half :]
        return _Siblings(tasks, drawn)


def phrase_for(frames: Sequence[Any]) -> str:
    """Return what a task waits for that is in these frames, the outermost first."""
    for frame in frames:
        code: CodeType = frame.f_code
        if code.co_qualname in _NAMES:
            phrase = PHRASES.get((frame.f_globals["__name__"], code.co_qualname))
            if phrase is not None:
                return phrase
    # The innermost function that is not Trio's way into its scheduler: no phrase, but a name.
    for frame in reversed(frames):
        if frame.f_code.co_filename != _TRAPS:
            return str(frame.f_code.co_qualname)
    return ""


def _waits_for(task: _Task) -> str:
    if task is trio.lowlevel.current_task():
        return ""
    return phrase_for([frame for frame, _ in task.iter_await_frames()])


def _name(task: _Task) -> str:
    """Return a task's name as it was given, or its function's without the module."""
    name = printable_name(task.name)
    if " " in name or "." not in name:
        return name
    return name.replace(".<locals>", "").rsplit(".", 1)[-1].lstrip("_")
