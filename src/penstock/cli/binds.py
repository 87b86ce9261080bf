"""Where `penstock serve` listens: an address, a Unix socket, or a socket that it was given."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, NoReturn, final

import click
from hypercorn.utils import repr_socket_addr

from penstock.hypercorn.server.listeners import reserved_paths, unlinked_at_exit
from penstock.printable import printable

__all__ = [
    "DEFAULT_BIND",
    "TCP",
    "Address",
    "Bind",
    "Inherited",
    "Unix",
    "activated",
    "listening",
    "pass_on",
]

DEFAULT_BIND: Final = "127.0.0.1:8080"

# Spec: sd_listen_fds(3): the first descriptor that systemd passes.
_FIRST: Final = 3


@final
@dataclass(frozen=True)
class TCP:
    """A host and a port."""

    host: str
    port: int


@final
@dataclass(frozen=True)
class Unix:
    """The path of a Unix socket."""

    path: str


@final
@dataclass(frozen=True)
class Inherited:
    """The descriptor of a socket that whoever started this process has opened."""

    descriptor: int

    def keep(self, *, for_restart: bool) -> None:
        """Keep it from other programs; or leave it to this one, which starts again."""
        os.set_inheritable(self.descriptor, for_restart)


Address = TCP | Unix | Inherited


class Bind(click.ParamType[Address]):
    """Where to listen: HOST:PORT, in which an IPv6 host is in brackets, unix:PATH or fd://N."""

    name = "HOST:PORT"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Address:
        """Return what was asked for."""
        if isinstance(value, Address):
            return value
        text = str(value)
        if text.startswith("unix:"):
            if not (path := text.removeprefix("unix:")):
                self.fail(f"{value!r} has no path, such as unix:/run/penstock/penstock.sock")
            return Unix(path)
        if text.startswith("fd://"):
            number = text.removeprefix("fd://")
            if not (number.isascii() and number.isdigit() and len(number) <= 9):
                self.fail(f"{value!r} has no descriptor's number, such as fd://3")
            return Inherited(int(number))
        host, _, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]") and ":" in host:
            host = host[1:-1]
        elif not host or set(host) & set("[]:") or not host.isascii() or not host.isprintable():
            self.fail(
                f"{value!r} is not HOST:PORT, such as {DEFAULT_BIND} or [::1]:8080, nor unix:PATH"
            )
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
            self.fail(f"{value!r} has no port from 0 to 65535 after its last colon")
        return TCP(host, int(port))


def activated() -> list[Inherited]:
    """Return the sockets that systemd has passed to this process.

    What says so is taken out of the environment: it is not meant for this process's children.
    """
    pid, count, *_ = (
        os.environ.pop(name, "")
        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
    )
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return []
    return [Inherited(number) for number in range(_FIRST, _FIRST + int(count))]


def pass_on(sockets: Sequence[Inherited]) -> None:
    """Leave sockets that systemd has passed to the program that takes this one's place."""
    for each in sockets:
        each.keep(for_restart=True)
    if sockets and sockets[0].descriptor == _FIRST:
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(sockets)))


@contextmanager
def listening(addresses: Sequence[Address]) -> Iterator[list[socket.socket]]:
    """Listen on these addresses. Whoever serves closes the sockets; a Unix socket's file goes here.

    Raises:
      click.ClickException: one cannot be listened on; the message says why, and what to do.
    """
    with ExitStack() as stack:
        sockets = []
        for address in addresses:
            if isinstance(address, TCP):
                bound = _bound(address)
            elif isinstance(address, Inherited):
                bound = _inherited(address)
            else:
                bound = _bound_to_path(address.path)
                stack.enter_context(unlinked_at_exit([address.path]))
            sockets.append(stack.enter_context(bound))
        yield sockets


def _bound(address: TCP) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    where = repr_socket_addr(family, (address.host, address.port))
    try:
        return socket.create_server((address.host, address.port), family=family)
    except PermissionError as error:
        raise click.ClickException(
            f"no permission to listen on {where}: choose a port from 1024 on, with --bind"
        ) from error
    except (OSError, UnicodeError) as error:
        # A name that cannot be resolved has a negative number, from another list.
        number = getattr(error, "errno", None) or 0
        reason = os.strerror(number) if number > 0 else "no such host"
        if number == errno.EADDRINUSE:
            remedy = "stop what uses it, or choose another port, with --bind"
        else:
            remedy = "choose an address of this machine, with --bind"
        raise click.ClickException(f"cannot listen on {where}: {reason}: {remedy}") from error


def _bound_to_path(path: str) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX)
    try:
        with reserved_paths([path]):
            bound.bind(path)
            bound.listen()
    except OSError as error:
        bound.close()
        reason = error.strerror or str(error)  # a path that is too long has no number
        remedy = "choose another path, with --bind"
        if error.errno == errno.EADDRINUSE:
            remedy = f"stop what listens there, or {remedy}"
        elif error.errno == errno.ENOTSOCK:
            remedy = f"remove it, or {remedy}"
        where = f"unix:{printable(path)}"
        raise click.ClickException(f"cannot listen on {where}: {reason}: {remedy}") from error
    return bound


def _inherited(address: Inherited) -> socket.socket:
    """Return a socket of its own for a descriptor, which stays open, for a restart."""

    def refuse(reason: str, error: OSError | None = None) -> NoReturn:
        raise click.ClickException(
            f"cannot listen on fd://{address.descriptor}: {reason}: "
            "have whoever starts this process pass a listening socket"
        ) from error

    try:
        given = socket.socket(fileno=os.dup(address.descriptor))
        address.keep(for_restart=False)
    except OSError as error:
        refuse(error.strerror or str(error), error)
    stream = given.type == socket.SOCK_STREAM
    if not stream or not given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        given.close()
        refuse("it is a socket that does not listen")
    return given
