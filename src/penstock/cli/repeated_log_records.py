"""Repeated log records: the first is logged, the others are counted and summarised in one line.

A request of thirty bytes can cause a traceback of thousands, as often as a client likes to send it.
"""

from __future__ import annotations

import copy
import logging
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import PurePath
from types import TracebackType
from typing import Any, Final, final

__all__ = ["RecordFilter", "without_traceback"]

# Seconds within which the same record counts as repeated.
_WINDOW: Final = 10.0

# Of warnings and errors without a traceback, which differ in their figures, how many to log within
# that time.
_MAX_WARNINGS: Final = 20

# Kinds of records to remember; with more, the oldest is summarised at once.
_MAX_KINDS: Final = 256

# Loggers whose warnings a client can cause; an application's own warnings are its business.
_SERVERS: Final = ("penstock.", "hypercorn.")

# The packages between the socket and the application, besides the standard library.
_STACK: Final = sys.stdlib_module_names | {
    *("h11", "h2", "hpack", "hyperframe", "hypercorn", "outcome", "penstock", "priority"),
    *("quart", "quart_trio", "trio", "werkzeug", "wsproto"),
}

# Quart's functions that call the application; it raises the errors for a bad request before that.
_DISPATCH: Final = frozenset({"full_dispatch_request", "full_dispatch_websocket"})


@dataclass
class _Kind:
    since: float
    last: logging.LogRecord | None = None  # without its error, whose frames hold a request
    count: int = 0
    omitted: int = 0


@final
class RecordFilter:
    """Omits repeated records, and summarises them later."""

    def __init__(self) -> None:
        self._kinds: dict[Any, _Kind] = {}

    def admit(self, record: logging.LogRecord, now: float) -> bool:
        """Return whether to log a record; count it if not."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            key, most = (record.name, _kind_of(error)), 1
        elif record.levelno >= logging.WARNING and record.name.startswith(_SERVERS):
            key, most = (record.name, record.msg), _MAX_WARNINGS
        else:
            return True
        kind = self._kinds.setdefault(key, _Kind(now))
        kind.count += 1
        if kind.count <= most:
            return True
        named = f": {_named(_leaf(error))}" if error is not None else ""
        kind.last = _changed(record, f"{record.getMessage()}{named}")
        kind.omitted += 1
        return False

    @property
    def due(self) -> float | None:
        """When the next summary is due; None if nothing can be repeated."""
        return next((kind.since + _WINDOW for kind in self._kinds.values()), None)

    def summaries(self, now: float, *, ending: bool = False) -> list[logging.LogRecord]:
        """Return the summaries that are due, and forget what they summarise."""
        summaries = []
        for key, kind in list(self._kinds.items()):
            if not (ending or now >= kind.since + _WINDOW or len(self._kinds) > _MAX_KINDS):
                break
            del self._kinds[key]
            if kind.last is not None:
                times = "once" if kind.omitted == 1 else f"{kind.omitted} times"
                seconds = max(1, round(now - kind.since))
                text = f"… repeated {times} in the last {seconds} s: {kind.last.msg}"
                summary = _changed(kind.last, text)
                summary.created = time.time()
                summaries.append(summary)
        return summaries


def without_traceback(record: logging.LogRecord) -> logging.LogRecord:
    """Return a record without its traceback if a client's request caused the error, else as it is.

    A request did if no code of the application has run, and Penstock did not raise the error.
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
    """Return a key that is equal for errors from the same place, whatever their messages."""
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
