"""The log of `penstock serve`, on standard error: records cannot be forged, logging never blocks.

Rule 1: only a record begins at the start of a line. Characters that are not printable are escaped,
and the lines of a traceback, whose text may come from a client, are indented.

Rule 2: a thread writes the lines, since a pipe that nobody reads would block the event loop once it
holds 64 KiB. `logging.handlers.QueueListener` is such a thread, but its queue has no limit in
bytes, and stopping it may wait for the pipe forever.
"""

from __future__ import annotations

import io
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, final

from penstock.cli.repeated_log_records import RecordFilter, without_traceback
from penstock.printable import printable

__all__ = ["LogFormatter", "StandardErrorHandler", "logging_to_standard_error"]

# Bytes that may wait for a reader; further records are dropped. Enough for an hour with a record
# every second.
_MAX_WAITING: Final = 2**20

# Bytes to write at once: a writable pipe takes these without blocking.
_PIECE: Final = select.PIPE_BUF

# Seconds without progress after which closing gives up.
_CLOSE_TIMEOUT: Final = 1.0


@final
class LogFormatter(logging.Formatter):
    """Formats a record in one line, with its traceback indented below."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines."""
        text, record.exc_text = record.exc_text, None  # set by another formatter
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
class StandardErrorHandler(logging.Handler):
    """Writes records to a descriptor in a thread, until it is closed."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.setFormatter(LogFormatter())
        self._descriptor = descriptor
        self._process = os.getpid()
        self._wake = threading.Condition()
        self._filter = RecordFilter()
        self._waiting: list[bytes] = []
        self._size = 0
        self._dropped = 0
        self._written = 0
        self._broken = False
        self._ending = False
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record to be written; drop and count it if too many wait. Never blocks."""
        try:
            if os.getpid() != self._process:  # a forked process, where the thread does not run
                self._write_now(self._encoded(record))
                return
            with self._wake:
                if not self._filter.admit(record, time.monotonic()):
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
        if self._size + len(data) > _MAX_WAITING:
            self._dropped += 1
        else:
            self._waiting.append(data)
            self._size += len(data)

    def close(self) -> None:
        """Write what is queued, as long as it is read; later records are written at once."""
        if os.getpid() == self._process and not self._ending:
            with self._wake:
                self._ending = True
                self._wake.notify()
            written = -1
            while self._thread.is_alive() and written != self._written:
                written = self._written
                self._thread.join(_CLOSE_TIMEOUT)
        super().close()

    def _encoded(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")

    # In the thread

    def _work(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # for the main thread
        ending = False
        while not ending:
            with self._wake:
                if not (self._waiting or self._dropped or self._ending):
                    due = self._filter.due
                    now = time.monotonic()
                    self._wake.wait(None if due is None else max(0.0, due - now))
                ending = self._ending
                now = time.monotonic()
                for record in self._filter.summaries(now, ending=ending):
                    self._put(record)
                data, self._waiting, self._size = self._waiting, [], 0
                dropped, self._dropped = self._dropped, 0
            for each in data:
                self._write(each)
            if dropped:
                text = f"{dropped} log records dropped: standard error was not read"
                self._write(self._encoded(_warning(text)))

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest and not self._broken:
            try:
                written = os.write(self._descriptor, rest[:_PIECE])
            except BlockingIOError:  # another process made it non-blocking
                select.select([], [self._descriptor], [])
            except OSError:  # nobody reads it any more
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
    """Log records of level INFO and above to standard error while the block runs."""
    handler: logging.Handler
    try:
        handler = StandardErrorHandler(sys.stderr.fileno())
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
