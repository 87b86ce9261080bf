"""The command line: `penstock serve`."""

from __future__ import annotations

import errno
import logging
import os
import pkgutil
import signal
import socket
import sys
from functools import partial
from typing import Any, Final

import click
import trio
from hypercorn.config import Config
from hypercorn.utils import LifespanFailureError
from quart import Quart
from quart_trio import QuartTrio

from penstock import hypercorn
from penstock.group import StreamGroup

__all__ = ["main"]

DEMO: Final = "penstock.demo:app"
DEFAULT_BIND: Final = "127.0.0.1:8080"

# Seconds that requests may go on after the stop. Streams end at once; with the stock server a
# connection that carried one stays open until this is over.
GRACE: Final = 1.0

# Connections that wait to be accepted: as many clients may come back at the same moment. The
# kernel holds it to net.core.somaxconn, 4096 by default.
BACKLOG: Final = 4096

_SERVE_EPILOG: Final = """\b
Examples:
  penstock serve                                the demonstration, with its page
  penstock serve shop:app                       `app` in shop.py of this directory
  penstock serve shop:app --bind 0.0.0.0:80     on every IPv4 address
  penstock serve --bind 127.0.0.1:0             on a free port, which it prints
"""


def main() -> None:
    """Run the command line; an expected error is one line on stderr and status 1 or 2."""
    try:
        sys.exit(cli.main(prog_name="penstock", standalone_mode=False) or 0)
    except click.ClickException as error:
        click.echo(f"penstock: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(128 + signal.SIGINT)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="penstock")
def cli() -> None:
    """Server-Sent Events for Trio."""


class Bind(click.ParamType[tuple[str, int]]):
    """An address to listen on, as HOST:PORT; an IPv6 host is in brackets."""

    name = "HOST:PORT"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Return the host and the port."""
        if isinstance(value, tuple):
            return value
        host, colon, port = str(value).rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not colon or not host or (":" in host and not bracketed):
            self.fail(f"{value!r} is not HOST:PORT, such as {DEFAULT_BIND} or [::1]:8080")
        if not (port.isascii() and port.isdigit() and int(port) <= 65535):
            self.fail(f"{value!r} has no port from 0 to 65535 after its last colon")
        return host.strip("[]"), int(port)


@cli.command(epilog=_SERVE_EPILOG)
@click.argument("application", metavar="[MODULE:APP]", default=DEMO)
@click.option(
    "binds",
    "--bind",
    "-b",
    type=Bind(),
    multiple=True,
    default=[DEFAULT_BIND],
    help=f"Where to listen; may be given several times. Port 0 takes a free port. "
    f"[default: {DEFAULT_BIND}]",
)
def serve(application: str, binds: tuple[tuple[str, int], ...]) -> None:
    """Serve an application with Hypercorn on Trio; without MODULE:APP, the demonstration.

    Prints a line on stdout for each address it listens on. Ctrl-C or SIGTERM ends all streams and
    then the server; a second one ends it at once.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    app = _load(application)
    config = _config(binds)
    try:
        trio.run(partial(_serve, app, config), strict_exception_groups=True)
    except* LifespanFailureError as errors:
        raise click.ClickException(f"{application} did not start: {_first(errors)}") from errors


def _load(application: str) -> Any:
    """Import MODULE:APP, looked for in the current directory, too, as with `python -m`."""
    module, colon, name = application.partition(":")
    if not (module and colon and name):
        raise click.UsageError(f"{application!r} is not MODULE:APP, such as {DEMO}")
    sys.path.insert(0, os.getcwd())
    try:
        app = pkgutil.resolve_name(application)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the application's own import failed: that is for its traceback to tell
        raise click.UsageError(
            f"no module {error.name!r} for {application!r}: check its spelling, and run in the "
            "directory that holds it"
        ) from error
    except AttributeError as error:
        raise click.UsageError(f"module {module!r} has no {name!r} to serve") from error
    except ValueError as error:
        raise click.UsageError(f"{application!r} is not MODULE:APP, such as {DEMO}") from error
    if not callable(app):
        raise click.UsageError(f"{application!r} is no ASGI application: {type(app).__name__}")
    if isinstance(app, Quart) and not isinstance(app, QuartTrio):
        raise click.UsageError(f"{application!r} is a Quart of asyncio: make it a QuartTrio")
    return app


def _config(binds: tuple[tuple[str, int], ...]) -> Config:
    config = Config()
    # Bound here rather than by Hypercorn, so that what cannot be bound is named.
    config.bind = [f"fd://{_listening_socket(host, port)}" for host, port in binds]
    config.backlog = BACKLOG
    config.graceful_timeout = GRACE
    # Where it listens is said on stdout already.
    config.errorlog = logging.getLogger("hypercorn.error")
    config.errorlog.setLevel(logging.WARNING)
    return config


def _listening_socket(host: str, port: int) -> int:
    """Bind a socket, and return its file descriptor, which is the caller's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except PermissionError as error:
        raise click.ClickException(
            f"no permission to listen on {where}: choose a port from 1024 on, with --bind"
        ) from error
    except OSError as error:
        # A name that cannot be resolved has a negative number, from another list.
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else "no such host"
        if number == errno.EADDRINUSE:
            remedy = "stop what uses it, or choose another port, with --bind"
        else:
            remedy = "choose an address of this machine, with --bind"
        raise click.ClickException(f"cannot listen on {where}: {reason}: {remedy}") from error
    # Events are small and must not wait to be joined; accepted sockets inherit it.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening.detach()


async def _serve(app: Any, config: Config) -> None:
    group = StreamGroup()
    async with trio.open_nursery() as nursery:
        serve = partial(hypercorn.serve, app, config, group=group)
        trigger = partial(_stop_signal, group)
        for url in await nursery.start(partial(serve, shutdown_trigger=trigger)):
            click.echo(f"Listening on {url}")
            sys.stdout.flush()


async def _stop_signal(group: StreamGroup) -> None:
    """Return at the first SIGINT or SIGTERM; the second kills the process as if never caught."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            break
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    logging.getLogger(__name__).info(
        "Stopping: %d streams to end; once more to stop at once", group.statistics().streams_open
    )


def _first(errors: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
