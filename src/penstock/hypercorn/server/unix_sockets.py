"""Unix sockets to listen on: whose path may be taken, and when its file goes.

Binding fails wherever a file is, and a server that was killed leaves its file. So a socket that
nobody listens on is replaced. One that somebody listens on is not: its server would go on without
ever being asked again. Two servers that start at one moment take turns, by a lock on the directory,
which leaves nothing behind.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

__all__ = ["claimed", "removed_at_end"]

# Seconds to wait for another server that binds in the same directory, which takes it a millisecond.
_PATIENCE: Final = 2.0


@contextmanager
def claimed(paths: Iterable[str]) -> Iterator[None]:
    """Make these paths free, and keep them so while the block binds them and listens.

    Raises:
      OSError: somebody listens on one (EADDRINUSE), a file is there that is no socket (ENOTSOCK),
        or the system says so; `filename` is the path.
    """
    paths = list(paths)
    with ExitStack() as locks:
        for directory in sorted({os.path.dirname(os.path.abspath(path)) for path in paths}):
            locks.enter_context(_locked(directory))
        for path in paths:
            _make_way(path)
        yield


@contextmanager
def removed_at_end(paths: Iterable[str]) -> Iterator[None]:
    """Remove these sockets' files after the block, if they are the same ones still."""
    identities = {path: _identity(path) for path in paths}
    try:
        yield
    finally:
        for path, identity in identities.items():
            with suppress(OSError), _locked(os.path.dirname(os.path.abspath(path))):
                if _identity(path) == identity:
                    os.unlink(path)


def _make_way(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.ENOTSOCK, "A file that is not a socket is there", path)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # where its queue is full, that is an answer, too
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:  # nobody listens
            os.unlink(path)
            return
        except PermissionError as error:
            raise OSError(error.errno, error.strerror, path) from None
        except OSError:
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


@contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Hold the lock of a directory, where the file system has locks."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        deadline = time.monotonic() + _PATIENCE
        while fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise OSError(
                        errno.EADDRINUSE, "Another process holds the directory's lock", directory
                    ) from None
                time.sleep(0.01)
            except OSError:  # a network's file system, say
                break
            else:
                break
        yield
    finally:
        os.close(descriptor)
