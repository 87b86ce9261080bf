"""The log of `penstock serve`, on standard error: nothing in it is forged, and it never waits.

Records that repeat are logged once; the others are counted, and then said in one line.
"""

from __future__ import annotations

import copy
import io
import logging
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from types import TracebackType
from typing import Any, Final, final

from penstock.printable import printable

__all__ = [
    "LogFormatter",
    "Repetitions",
    "StandardError",
    "logging_to_standard_error",
    "without_traceback",
]

# Seconds in which the same record counts as repeated.
_WINDOW: Final = 10.0

# Of warnings and errors of ours without a traceback, each with other figures, so many in a window.
_MOST: Final = 20

# Kinds of records that are remembered; with more, the oldest is said at once.
_KINDS: Final = 256

# Loggers of which a client can cause a warning; an application's own warnings are its business.
_SERVERS: Final = ("penstock.", "hypercorn.")

# What stands between the socket and the application, beside the standard library.
_STACK: Final = sys.stdlib_module_names | {
    *(
        "h11",
        "h2",
        "hpack",
        "hyperframe",
        "hypercorn",
        "outcome",
        "penstock",
        "priority",
        "quart",
    ),
    *("quart_trio", "trio", "werkzeug", "wsproto"),
}

# Quart's functions that reach the application; what it raises for a bad request comes before.
_DISPATCH: Final = frozenset({"full_dispatch_request", "full_dispatch_websocket"})


@dataclass
class _Kind:
    since: float
    last: logging.LogRecord | None = None  # without its error, whose frames hold a request
    seen: int = 0
    left_out: int = 0


@final
class Repetitions:
    """What was logged in the last seconds, by kind."""

    def __init__(self) -> None:
        self._kinds: dict[Any, _Kind] = {}

    def admit(self, record: logging.LogRecord, now: float) -> bool:
        """Tell whether to log a record; count it if not."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            key, most = (record.name, _kind_of(error)), 1
        elif record.levelno >= logging.WARNING and record.name.startswith(_SERVERS):
            key, most = (record.name, record.msg), _MOST
        else:
            return True
        kind = self._kinds.setdefault(key, _Kind(now))
        kind.seen += 1
        if kind.seen <= most:
            return True
        named = f": {_named(_leaf(error))}" if error is not None else ""
        kind.last = _changed(record, f"{record.getMessage()}{named}")
        kind.left_out += 1
        return False

    @property
    def due(self) -> float | None:
        """When the next summary is due; None if nothing was logged of late."""
        return next((kind.since + _WINDOW for kind in self._kinds.values()), None)

    def summaries(self, now: float, *, ending: bool = False) -> list[logging.LogRecord]:
        """Return what was left out and is due to be said, and forget it."""
        summaries = []
        for key, kind in list(self._kinds.items()):
            if not (ending or now >= kind.since + _WINDOW or len(self._kinds) > _KINDS):
                break
            del self._kinds[key]
            if kind.last is not None:
                times = "once" if kind.left_out == 1 else f"{kind.left_out} times"
                seconds = max(1, round(now - kind.since))
                said = f"… repeated {times} in the last {seconds} s: {kind.last.msg}"
                summary = _changed(kind.last, said)
                summary.created = time.time()
                summaries.append(summary)
        return summaries


def without_traceback(record: logging.LogRecord) -> logging.LogRecord:
    """Return a record in one line if its error comes from a client's request, else as it is.

    It does if no code of the application's has run, nor was it ours that raised.
    """
    error = record.exc_info[1] if record.exc_info else None
    if error is None or not _before_application(error):
        return record
    leaf = _leaf(error)
    last = traceback.extract_tb(leaf.__traceback__)[-1]
    where = f"{'/'.join(PurePath(last.filename).parts[-2:])}:{last.lineno}"
    return _changed(record, f"{record.getMessage()}: {_named(leaf)} ({where})")


def _changed(record: logging.LogRecord, message: str) -> logging.LogRecord:
    changed = copy.copy(record)
    changed.msg, changed.args = message, None
    changed.exc_info = changed.exc_text = changed.stack_info = None
    return changed


def _named(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip()


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _kind_of(error: BaseException | None, depth: int = 0) -> Any:
    """Return what two errors have in common that come from the same place, whatever they say."""
    if error is None or depth == 10:
        return None
    parts = error.exceptions[:10] if isinstance(error, BaseExceptionGroup) else ()
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return (
        type(error),
        tuple(_places(error.__traceback__)),
        tuple(_kind_of(part, depth + 1) for part in parts),
        _kind_of(cause, depth + 1),
    )


def _places(where: TracebackType | None) -> list[tuple[str, int]]:
    places: list[tuple[str, int]] = []
    while where is not None and len(places) < 100:
        places.append((where.tb_frame.f_code.co_filename, where.tb_lineno))
        where = where.tb_next
    return places


def _before_application(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_before_application(each) for each in error.exceptions)
    where, package = error.__traceback__, ""
    while where is not None:
        package = str(where.tb_frame.f_globals.get("__name__")).partition(".")[0]
        if package not in _STACK or where.tb_frame.f_code.co_name in _DISPATCH:
            return False
        where = where.tb_next
    return package not in ("", "penstock")


# Bytes that wait for a reader; of more, nothing is kept. An hour of streams that end each second.
_MOST_WAITING: Final = 2**20

# Bytes to write at once: what a pipe that can be written to takes without blocking.
_PIECE: Final = select.PIPE_BUF

# Seconds without progress after which what waits at the end is given up.
_PATIENCE: Final = 1.0


@final
class LogFormatter(logging.Formatter):
    """A record in one line, with the lines of a traceback indented below it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines."""
        text, record.exc_text = record.exc_text, None  # which another formatter may have left
        try:
            return super().format(record)
        finally:
            record.exc_text = text

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base's name
        """Return the record's first line."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the base's name
        """Return a traceback."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - the base's name
        """Return a stack."""
        return _indented(stack_info)


def _indented(text: str) -> str:
    return "\n".join(f"  {printable(line)}" for line in text.split("\n"))


@final
class StandardError(logging.Handler):
    """Writes records to a descriptor, by a thread of its own, until it is closed."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.setFormatter(LogFormatter())
        self._descriptor = descriptor
        self._process = os.getpid()
        self._wake = threading.Condition()
        self._repetitions = Repetitions()
        self._waiting: list[bytes] = []
        self._size = 0
        self._dropped = 0
        self._written = 0
        self._broken = False
        self._ending = False
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record written, or drop and count it if too much waits. Never blocks."""
        try:
            if os.getpid() != self._process:  # a fork, which has no thread
                self._write_now(self._encoded(record))
                return
            with self._wake:
                if not self._repetitions.admit(record, time.monotonic()):
                    pass
                elif self._ending:
                    self._write_now(self._encoded(without_traceback(record)))
                else:
                    self._put(without_traceback(record))
                self._wake.notify()
        except Exception:
            self.handleError(record)

    def _put(self, record: logging.LogRecord) -> None:
        data = self._encoded(record)
        if self._size + len(data) > _MOST_WAITING:
            self._dropped += 1
        else:
            self._waiting.append(data)
            self._size += len(data)

    def close(self) -> None:
        """Wait until all is written, as long as somebody reads it; later records are not queued."""
        if os.getpid() == self._process and not self._ending:
            with self._wake:
                self._ending = True
                self._wake.notify()
            written = -1
            while self._thread.is_alive() and written != self._written:
                written = self._written
                self._thread.join(_PATIENCE)
        super().close()

    def _encoded(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")

    # What the thread does

    def _work(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the main thread's
        ending = False
        while not ending:
            with self._wake:
                if not (self._waiting or self._dropped or self._ending):
                    due = self._repetitions.due
                    now = time.monotonic()
                    self._wake.wait(None if due is None else max(0.0, due - now))
                ending = self._ending
                now = time.monotonic()
                for record in self._repetitions.summaries(now, ending=ending):
                    self._put(record)
                data, self._waiting, self._size = self._waiting, [], 0
                dropped, self._dropped = self._dropped, 0
            for each in data:
                self._write(each)
            if dropped:
                said = f"{dropped} records were dropped here: nobody read standard error"
                self._write(self._encoded(_warning(said)))

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest and not self._broken:
            try:
                written = os.write(self._descriptor, rest[:_PIECE])
            except BlockingIOError:  # somebody made it non-blocking
                select.select([], [self._descriptor], [])
            except OSError:  # its reader has gone
                self._broken = True
            else:
                rest = rest[written:]
                self._written += written

    def _write_now(self, data: bytes) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        if poll.poll(0):
            self._write(data)


def _warning(message: str) -> logging.LogRecord:
    return logging.LogRecord(__name__, logging.WARNING, "", 0, message, None, None)


@contextmanager
def logging_to_standard_error() -> Iterator[logging.Handler]:
    """Log what is INFO or worse to standard error while the block runs."""
    handler: logging.Handler
    try:
        handler = StandardError(sys.stderr.fileno())
    except (AttributeError, io.UnsupportedOperation):  # it is closed, or replaced by a test
        handler = logging.StreamHandler() if sys.stderr else logging.NullHandler()
        handler.setFormatter(LogFormatter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        handler.close()
