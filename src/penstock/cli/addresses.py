"""Where `penstock serve` listens: a host and port, a Unix socket, or an inherited socket."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final, NoReturn, final

import click
from hypercorn.utils import repr_socket_addr

from penstock.hypercorn.server.listeners import reserved_paths, unlinked_at_exit
from penstock.printable import printable

__all__ = [
    "DEFAULT_ADDRESS",
    "TCP",
    "Address",
    "Inherited",
    "Unix",
    "listening",
    "parse_address",
    "pass_on",
    "sockets_of_systemd",
]

DEFAULT_ADDRESS: Final = "127.0.0.1:8080"

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
    """The descriptor of a listening socket that was inherited from the parent process."""

    descriptor: int

    def keep(self, *, for_restart: bool) -> None:
        """Keep the socket for this program only: from child processes, or over a restart."""
        os.set_inheritable(self.descriptor, for_restart)


Address = TCP | Unix | Inherited


def parse_address(text: str) -> Address:
    """Return an address to listen on: HOST:PORT (an IPv6 host in brackets), unix:PATH or fd://N.

    Raises:
      ValueError: it is none; the message says what one looks like.
    """
    if text.startswith("unix:"):
        if not (path := text.removeprefix("unix:")):
            raise ValueError(f"{text!r} has no path, such as unix:/run/penstock/penstock.sock")
        return Unix(path)
    if text.startswith("fd://"):
        number = text.removeprefix("fd://")
        if not (number.isascii() and number.isdigit() and len(number) <= 9):
            raise ValueError(f"{text!r} has no descriptor number, such as fd://3")
        return Inherited(int(number))
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]") and ":" in host:
        host = host[1:-1]
    elif not host or set(host) & set("[]:") or not host.isascii() or not host.isprintable():
        raise ValueError(
            f"{text!r} is not HOST:PORT, such as {DEFAULT_ADDRESS} or [::1]:8080, or unix:PATH"
        )
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError(f"{text!r} has no port from 0 to 65535 after its last colon")
    return TCP(host, int(port))


def sockets_of_systemd() -> list[Inherited]:
    """Return the sockets that systemd has passed to this process (socket activation).

    The variables that announce them are removed from the environment: they are not meant for child
    processes.
    """
    pid, count, *_ = (
        os.environ.pop(name, "")
        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
    )
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return []
    return [Inherited(number) for number in range(_FIRST, _FIRST + int(count))]


def pass_on(sockets: Sequence[Inherited]) -> None:
    """Pass sockets of systemd on to the program that replaces this one."""
    for each in sockets:
        each.keep(for_restart=True)
    if sockets and sockets[0].descriptor == _FIRST:
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(sockets)))


@contextmanager
def listening(addresses: Sequence[Address]) -> Iterator[list[socket.socket]]:
    """Listen on these addresses while the block runs.

    Raises:
      click.ClickException: it cannot listen on one; the message says why, and what to do.

    Resource handling:
      The server closes the sockets; the file of a Unix socket is removed here.
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
            f"no permission to listen on {where}: choose a port of 1024 or above, with --bind"
        ) from error
    except (OSError, UnicodeError) as error:
        # The number of a resolver's error is negative, and not an errno.
        number = getattr(error, "errno", None) or 0
        reason = os.strerror(number) if number > 0 else "no such host"
        if number == errno.EADDRINUSE:
            remedy = "stop the program that uses it, or choose another port, with --bind"
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
        reason = error.strerror or str(error)  # a path that is too long has no errno
        remedy = "choose another path, with --bind"
        if error.errno == errno.EADDRINUSE:
            remedy = f"stop the program that listens there, or {remedy}"
        elif error.errno == errno.ENOTSOCK:
            remedy = f"remove it, or {remedy}"
        where = f"unix:{printable(path)}"
        raise click.ClickException(f"cannot listen on {where}: {reason}: {remedy}") from error
    return bound


def _inherited(address: Inherited) -> socket.socket:
    """Return a duplicate of an inherited socket, which itself stays open for a restart."""

    def refuse(reason: str, error: OSError | None = None) -> NoReturn:
        raise click.ClickException(
            f"cannot listen on fd://{address.descriptor}: {reason}: "
            "the parent process has to pass a listening socket"
        ) from error

    try:
        given = socket.socket(fileno=os.dup(address.descriptor))
        address.keep(for_restart=False)
    except OSError as error:
        refuse(error.strerror or str(error), error)
    stream = given.type == socket.SOCK_STREAM
    if not stream or not given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        given.close()
        refuse("the socket is not listening")
    return given
