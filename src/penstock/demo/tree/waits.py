"""What a blocked task waits for, in words.

Read off the functions that it is in the middle of: the outermost of those that have a phrase here
decides, since ``Ticker.tick`` says more than the ``sleep_forever`` in which it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import CodeType
from typing import Any, Final

import trio

__all__ = ["PHRASES", "words_for"]

# By the module and the qualified name of the function; a test looks that each of them is there.
PHRASES: Final[dict[tuple[str, str], str]] = {
    ("penstock.stream.ticker", "Ticker.tick"): "its next turn",
    ("penstock.hub.cursor", "Cursor.wait"): "an event of the hub",
    ("penstock.hub.committer", "Committer.run"): "something to commit",
    ("penstock.hub.dispatcher", "Dispatcher.run"): "something to deliver",
    (
        "penstock.hypercorn.connection.receive_queue",
        "ReceiveQueue.receive",
    ): "what the client sends",
    ("penstock.hypercorn.wire.incoming", "IncomingBytes.receive"): "bytes of the client",
    ("penstock.hypercorn.wire.incoming", "IncomingBytes.watch"): "the client to go",
    ("penstock.hypercorn.wire.turns", "Turn.next"): "its turn",
    ("penstock.hypercorn.server.listeners", "Listener.accept"): "a client to come",
    ("penstock.hypercorn.wire.outgoing", "OutgoingBytes._write_pending"): "room in its socket",
    ("penstock.hypercorn.protocol.send_buffers", "SendBuffer.push"): "room in the client's window",
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
