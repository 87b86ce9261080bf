"""The sockets that a server listens on, and the loop that accepts from them."""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NoReturn, final

import trio
from hypercorn.config import Config, Sockets
from hypercorn.utils import repr_socket_addr

from penstock.hypercorn.server.unix_sockets import claimed, removed_at_end
from penstock.hypercorn.settings import Settings
from penstock.hypercorn.wire.sockets import configure

__all__ = ["Listener", "open_listeners"]

# Connections that wait to be accepted: as many clients may come back at one moment. The kernel
# holds it to net.core.somaxconn, 4096 by default. Hypercorn's own setting counts if it is larger.
_BACKLOG: Final = 4096

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
