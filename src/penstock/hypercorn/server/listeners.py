"""Listening sockets: how they are bound, accepted from and closed, Unix sockets among them."""

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
from penstock.hypercorn.wire.sockets import configure

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

__all__ = ["Listener", "claimed", "open_listeners", "removed_at_end"]

# Connections that wait to be accepted: as many clients may come back at one moment. The kernel
# holds it to net.core.somaxconn, 4096 by default. Hypercorn's own setting counts if it is larger.
_BACKLOG: Final = 4096

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


# The process or the system has no room for another socket; it will have, when a client goes.
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# What accept tells of a client that has gone before it was accepted, or of the network (accept(2)).
_NOT_OURS: Final = frozenset(
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),
        *("ENONET", "ENOPROTOOPT", "EOPNOTSUPP", "EPERM", "EPROTO", "ETIMEDOUT"),
    )
    if hasattr(errno, name)
)

# Clients that are accepted in one turn: some 10 ms of work.
_AT_ONCE: Final = 16

# Seconds until accepting is tried again; trio's own `serve_listeners` waits as long.
_PAUSE: Final = 0.1

# What Hypercorn's configuration calls a Unix socket by.
_UNIX: Final = "unix:"

_logger = logging.getLogger(__name__)

Handler = Callable[[Any, str | None], Awaitable[None]]


@final
class Listener:
    """One listening socket, which speaks TLS if there is a context for it."""

    def __init__(self, listening: socket.socket, context: ssl.SSLContext | None) -> None:
        scheme = "http" if context is None else "https"
        address = repr_socket_addr(listening.family, listening.getsockname())
        self.url: str = f"{scheme}://{address}"
        self._context = context
        self._listening = listening
        listening.setblocking(False)

    async def accept(self, nursery: trio.Nursery, handler: Handler) -> NoReturn:
        """Start a task for each client, for ever.

        Error handling:
          Where there is no room for another socket, clients wait in the kernel's queue; that is
          logged once for each time it begins. Other errors of accept propagate.
        """
        complained = False
        while True:
            await trio.lowlevel.wait_readable(self._listening)
            try:
                # With thousands of tasks a turn of the scheduler is long: one client in each would
                # let a storm of them wait for minutes.
                for _ in range(_AT_ONCE):
                    self._start(nursery, handler, *self._listening.accept())
                    complained = False
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno in _NOT_OURS:
                    continue
                if error.errno not in _NO_ROOM:
                    raise
                if not complained:
                    why = os.strerror(error.errno)
                    _logger.error("%s accepts no clients until others go: %s", self.url, why)
                complained = True
                await trio.sleep(_PAUSE)

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
        """Listen no more."""
        self._listening.close()


@contextmanager
def open_listeners(
    config: Config, settings: Settings, sockets: Sockets | None
) -> Iterator[list[Listener]]:
    """Listen on the configuration's addresses, or on these sockets, while the block runs.

    Resource handling:
      The sockets are closed after the block, and the files of Unix sockets removed that were bound
      here. Programs that are started meanwhile do not inherit them.

    Raises:
      OSError: an address cannot be bound; on a Unix socket's path, somebody listens.
    """
    context = config.create_ssl_context()
    with ExitStack() as stack:
        if sockets is None:
            binds = [*config.bind, *config.insecure_bind]
            paths = [bind[len(_UNIX) :] for bind in binds if bind.startswith(_UNIX)]
            with claimed(paths):
                sockets = config.create_sockets()
                for each in (*sockets.secure_sockets, *sockets.insecure_sockets):
                    each.listen()
            stack.enter_context(removed_at_end(paths))
        listeners = []
        for each, secure in (
            *((each, context) for each in sockets.secure_sockets),
            *((each, None) for each in sockets.insecure_sockets),
        ):
            stack.enter_context(each)
            # Hypercorn has its sockets inherited, for the sake of its workers, which have theirs by
            # now. Any other program that is started here would keep the port.
            each.set_inheritable(False)
            configure(each, settings)
            each.listen(max(config.backlog, _BACKLOG))
            listeners.append(Listener(each, secure))
        yield listeners
