"""Listening sockets: how they are bound and configured, and the loop that accepts clients.

A Unix socket's path: binding fails wherever a file exists, and a killed server leaves its file
behind. So a socket on which nobody listens is replaced. A socket on which somebody listens is not:
that server would keep running and never get a client again. Servers that start at the same moment
take turns, by a lock on the directory, which leaves no file behind.

TCP options are set on the listening socket: the kernel copies them to accepted sockets.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
import stat
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final, NoReturn, final

import trio
from hypercorn.config import Config, Sockets
from hypercorn.utils import repr_socket_addr

from penstock.hypercorn.settings import Settings

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

__all__ = ["Listener", "open_listeners", "reserved_paths", "unlinked_at_exit"]

# Connections that may wait to be accepted: this many clients may reconnect at once. The kernel caps
# it at net.core.somaxconn, 4096 by default. Hypercorn's own setting is used if it is larger.
_BACKLOG: Final = 4096

# The process or the system has no room for another socket until a client leaves.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# Errors of accept for a client that left before it was accepted, or of the network; see accept(2).
_TRANSIENT: Final = frozenset(
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),
        *("ENONET", "ENOPROTOOPT", "EOPNOTSUPP", "EPERM", "EPROTO", "ETIMEDOUT"),
    )
    if hasattr(errno, name)
)

# Clients to accept in one turn of the scheduler: some 10 ms of work.
_MAX_ACCEPTS: Final = 16

# Seconds before accepting again when there is no room, as in Trio's `serve_listeners`.
_RETRY_DELAY: Final = 0.1

# The prefix of a Unix socket's path in Hypercorn's configuration.
_UNIX: Final = "unix:"

# Seconds to wait for another server that binds in the same directory, which takes a millisecond.
_LOCK_TIMEOUT: Final = 2.0

_logger = logging.getLogger(__name__)

Handler = Callable[[Any, str | None], Awaitable[None]]


@final
class Listener:
    """One listening socket, which speaks TLS if it was given a context."""

    def __init__(self, listening: socket.socket, context: ssl.SSLContext | None) -> None:
        scheme = "http" if context is None else "https"
        address = repr_socket_addr(listening.family, listening.getsockname())
        self.url: str = f"{scheme}://{address}"
        self._context = context
        self._listening = listening
        listening.setblocking(False)

    async def accept(self, nursery: trio.Nursery, handler: Handler) -> NoReturn:
        """Start a task for each client, until cancelled.

        Error handling:
          While there is no room for another socket, clients wait in the kernel's queue, and one
          error is logged. Other errors of accept propagate.
        """
        complained = False
        while True:
            await trio.lowlevel.wait_readable(self._listening)
            try:
                # With thousands of tasks a turn of the scheduler is long: accepting one client in
                # each would make a storm of clients wait for minutes.
                for _ in range(_MAX_ACCEPTS):
                    self._start(nursery, handler, *self._listening.accept())
                    complained = False
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno in _TRANSIENT:
                    continue
                if error.errno not in _EXHAUSTED:
                    raise
                if not complained:
                    why = os.strerror(error.errno)
                    _logger.error("%s accepts no clients until others leave: %s", self.url, why)
                complained = True
                await trio.sleep(_RETRY_DELAY)

    def _start(
        self, nursery: trio.Nursery, handler: Handler, client: socket.socket, peer: Any
    ) -> None:
        stream: Any = trio.SocketStream(trio.socket.from_stdlib_socket(client))
        if self._context is not None:
            stream = trio.SSLStream(stream, self._context, server_side=True, https_compatible=True)
        address = peer[0] if isinstance(peer, tuple) else None
        where = repr_socket_addr(client.family, peer) if address else "local"
        nursery.start_soon(handler, stream, address, name=f"connection {where}")

    def close(self) -> None:
        """Close the socket."""
        self._listening.close()


@contextmanager
def open_listeners(
    config: Config, settings: Settings, sockets: Sockets | None
) -> Iterator[list[Listener]]:
    """Listen on the configuration's addresses, or on the given sockets, while the block runs.

    Resource handling:
      The sockets are closed after the block; files of Unix sockets that were bound here are
      removed. Child processes started in the block do not inherit the sockets.

    Raises:
      OSError: an address cannot be bound, or another process listens on a Unix socket's path.
    """
    context = config.create_ssl_context()
    with ExitStack() as stack:
        if sockets is None:
            binds = [*config.bind, *config.insecure_bind]
            paths = [bind[len(_UNIX) :] for bind in binds if bind.startswith(_UNIX)]
            with reserved_paths(paths):
                sockets = config.create_sockets()
                for each in (*sockets.secure_sockets, *sockets.insecure_sockets):
                    each.listen()
            stack.enter_context(unlinked_at_exit(paths))
        listeners = []
        for each, secure in (
            *((each, context) for each in sockets.secure_sockets),
            *((each, None) for each in sockets.insecure_sockets),
        ):
            stack.enter_context(each)
            # Hypercorn makes its sockets inheritable for its workers, which have theirs by now. Any
            # other child process would keep the port open.
            each.set_inheritable(False)
            _configure(each, settings)
            each.listen(max(config.backlog, _BACKLOG))
            listeners.append(Listener(each, secure))
        yield listeners


def _configure(listening: socket.socket, settings: Settings) -> None:
    """Set the kernel's options; log one warning about options that this system lacks."""
    if listening.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options: list[tuple[str, int, str, int]] = []
    if settings.send_buffer is not None:
        options.append(("send_buffer", socket.SOL_SOCKET, "SO_SNDBUF", settings.send_buffer))
    if settings.tcp_keep_alive is not None:
        # The kernel probes after this silence, then three times as often, three times in all.
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


@contextmanager
def reserved_paths(paths: Iterable[str]) -> Iterator[None]:
    """Free these paths, and lock their directories while the block binds them and listens.

    Raises:
      OSError: another process listens on a path (EADDRINUSE), a file there is not a socket
        (ENOTSOCK), or the system reports an error; ``filename`` is the path.
    """
    paths = list(paths)
    with ExitStack() as locks:
        for directory in sorted({os.path.dirname(os.path.abspath(path)) for path in paths}):
            locks.enter_context(_locked(directory))
        for path in paths:
            _unlink_if_stale(path)
        yield


@contextmanager
def unlinked_at_exit(paths: Iterable[str]) -> Iterator[None]:
    """Remove these sockets' files after the block, unless they were replaced meanwhile."""
    identities = {path: _identity(path) for path in paths}
    try:
        yield
    finally:
        for path, identity in identities.items():
            with suppress(OSError), _locked(os.path.dirname(os.path.abspath(path))):
                if _identity(path) == identity:
                    os.unlink(path)


def _unlink_if_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.ENOTSOCK, "A file that is not a socket is there", path)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # a full queue is an answer, too
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
    """Hold a directory's lock, if the file system has locks."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise OSError(
                        errno.EADDRINUSE, "Another process holds the directory's lock", directory
                    ) from None
                time.sleep(0.01)
            except OSError:  # a network file system, say
                break
            else:
                break
        yield
    finally:
        os.close(descriptor)
