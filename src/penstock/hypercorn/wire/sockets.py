"""What the operating system is told: options of listening sockets, limits of the process.

Accepted sockets inherit the options of the socket that listens, so they are set once.
"""

from __future__ import annotations

import gc
import logging
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from penstock.hypercorn.settings import Settings

try:
    import resource
except ImportError:  # not a Unix
    resource = None  # type: ignore[assignment]

__all__ = ["configure", "file_descriptor_limit", "has_hung_up", "reset_on_close", "tuned_process"]

# Objects allocated, less those freed, before the youngest generation is looked through, and how
# often the older ones are. A stream's connection makes some 250 and frees them without the
# collector, so this is once for 400 new ones, and streams that only send hardly ever come near it.
# Each look costs a microsecond an object, of all that are young. Python's own are 700, 10 and 10.
GC_THRESHOLDS: Final = (100_000, 20, 10)

# Where a system has no POLLRDHUP, a FIN behind unread bytes is seen when those have been read.
_HANG_UP: Final = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)

_logger = logging.getLogger(__name__)


def configure(listening: socket.socket, settings: Settings) -> None:
    """Set the kernel's options; what this system does not have is logged once, as a warning."""
    if listening.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options: list[tuple[str, int, str, int]] = []
    if settings.send_buffer is not None:
        options.append(("send_buffer", socket.SOL_SOCKET, "SO_SNDBUF", settings.send_buffer))
    if settings.tcp_keep_alive is not None:
        # Asked after this silence, and then three times as often until it is given up.
        idle = max(1, round(settings.tcp_keep_alive))
        options += [
            ("tcp_keep_alive", socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
            ("tcp_keep_alive", socket.IPPROTO_TCP, "TCP_KEEPIDLE", idle),
            ("tcp_keep_alive", socket.IPPROTO_TCP, "TCP_KEEPINTVL", max(1, idle // 3)),
            ("tcp_keep_alive", socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
        ]
    if settings.tcp_user_timeout is not None:
        milliseconds = max(1, round(settings.tcp_user_timeout * 1000))
        options.append(("tcp_user_timeout", socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", milliseconds))
    missing = set()
    for setting, level, option, value in options:
        try:
            listening.setsockopt(level, getattr(socket, option), value)
        except (AttributeError, OSError):
            missing.add(f"{setting} ({option})")
    if missing:
        _logger.warning("This system cannot set %s", ", ".join(sorted(missing)))


def has_hung_up(connection: socket.socket) -> bool:
    """Tell whether the peer has closed or reset, without reading what it sent before."""
    poll = select.poll()
    poll.register(connection.fileno(), _HANG_UP)
    return bool(poll.poll(0))


def reset_on_close(connection: socket.socket) -> None:
    """Make closing send RST, and throw away what the kernel could not send."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def file_descriptor_limit() -> int:
    """Return how many file descriptors this process may have."""
    if resource is None:
        return 1024
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**20 if soft == resource.RLIM_INFINITY else soft


@contextmanager
def tuned_process() -> Iterator[None]:
    """Set the process up for many connections while the block runs.

    Programs that it starts meanwhile have its limit of file descriptors, too.
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
    """Raise the process's limit to the hard one; return what it was, or None if it stays."""
    if resource is None:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # macOS has a limit that getrlimit does not know
        _logger.warning("The limit of open files stays at %d: %s", soft, error)
        return None
    return soft
