"""The server's process: its limit on file descriptors, and its garbage collector."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

try:
    import resource
except ImportError:  # not a Unix
    resource = None  # type: ignore[assignment]  # asked for before each use

__all__ = ["file_descriptor_limit", "tuned_process"]

# Net allocations that trigger a collection of the youngest generation, and how many collections of
# a generation trigger one of the next. A stream's connection makes some 250 objects and frees them
# by reference counting. So a collection comes once for 400 new connections, and hardly ever for
# streams that only send. It takes a microsecond per young object. By default
# Python has 700, 10 and 10.
GC_THRESHOLDS: Final = (100_000, 20, 10)

_logger = logging.getLogger(__name__)


def file_descriptor_limit() -> int:
    """Return how many file descriptors this process may have."""
    if resource is None:
        return 1024
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**20 if soft == resource.RLIM_INFINITY else soft


@contextmanager
def tuned_process() -> Iterator[None]:
    """Raise the file descriptor limit and tune the garbage collector while the block runs.

    Child processes started in the block inherit the raised limit.
    """
    soft = _raise_file_descriptor_limit()
    thresholds = gc.get_threshold()
    frozen_by_us = gc.get_freeze_count() == 0
    if frozen_by_us:
        gc.collect()
        gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        yield
    finally:
        if gc.get_threshold() == GC_THRESHOLDS:
            gc.set_threshold(*thresholds)
        if frozen_by_us:
            gc.unfreeze()
        if soft is not None:
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _raise_file_descriptor_limit() -> int | None:
    """Raise the soft limit to the hard limit; return the old one, or None if it was not raised."""
    if resource is None:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # macOS has a limit that getrlimit does not know
        _logger.warning("Cannot raise the limit of open files above %d: %s", soft, error)
        return None
    return soft
