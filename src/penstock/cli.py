"""The command line: `penstock serve`."""

from __future__ import annotations

import errno
import importlib
import inspect
import logging
import operator
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

import click
import trio
from hypercorn.config import Config
from hypercorn.utils import LifespanFailureError, LifespanTimeoutError, repr_socket_addr
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

_EXAMPLES: Final = """\b
Examples:
  penstock serve                                the demonstration, with its page
  penstock serve shop:app                       `app` in shop.py of this directory
  penstock serve shop:app --bind 0.0.0.0:80     on every IPv4 address
  penstock serve --bind 127.0.0.1:0             on a free port, which it prints
"""


class _Misuse(click.ClickException):
    """The command line asks for what cannot be; the message says what can."""

    exit_code = 2


def main() -> None:
    """Run the command line; an expected error is one line on stderr and status 1 or 2."""
    try:
        sys.exit(cli.main(prog_name="penstock", standalone_mode=False) or 0)
    except click.ClickException as error:
        said = error.format_message()
        if isinstance(error, click.UsageError) and error.ctx:
            end = "" if said.endswith((".", "?")) else "."
            said = f"{said}{end} See {error.ctx.command_path} --help."
        click.echo(f"penstock: {said}", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(128 + signal.SIGINT)


@click.group(
    epilog=_EXAMPLES,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="penstock")
@click.pass_context
def cli(context: click.Context) -> None:
    """Server-Sent Events for Trio."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


class Bind(click.ParamType[tuple[str, int]]):
    """An address to listen on, as HOST:PORT; an IPv6 host is in brackets."""

    name = "HOST:PORT"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Return the host and the port."""
        if isinstance(value, tuple):
            return value
        host, _, port = str(value).rpartition(":")
        if host.startswith("[") and host.endswith("]") and ":" in host:
            host = host[1:-1]
        elif not host or set(host) & set("[]:") or not host.isascii() or not host.isprintable():
            self.fail(f"{value!r} is not HOST:PORT, such as {DEFAULT_BIND} or [::1]:8080")
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
            self.fail(f"{value!r} has no port from 0 to 65535 after its last colon")
        return host, int(port)


@cli.command(epilog=_EXAMPLES, short_help="Serve an application, or the demonstration.")
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
    then the server; a second one ends it at once. Stopped while it starts, an application is
    cancelled, and its shutdown functions do not run.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    app = _load(application)
    config = _config(binds)
    failure = None
    try:
        trio.run(_serve, app, config)
    except* (LifespanFailureError, LifespanTimeoutError) as errors:
        failure = f"{application} did not start: {_first(errors)}"
    except* _NoOutput as errors:
        failure = str(_first(errors))
    if failure is not None:  # what is raised in an `except*` comes out in a group, in Python 3.11.2
        raise click.ClickException(failure)


def _load(application: str) -> Any:
    """Import MODULE:APP, looked for in the current directory, too, as with `python -m`."""
    module, _, name = application.partition(":")
    if not module or not name or module.startswith("."):
        suggestion = f"{module.strip('.') or 'shop'}:app"
        raise _Misuse(f"{application!r} is not MODULE:APP, such as {suggestion}")
    if module.endswith(".py"):
        right = f"{module.removesuffix('.py').replace(os.sep, '.')}:{name}"
        raise _Misuse(f"{module!r} is a file, and MODULE:APP names a module: {right}")
    sys.path.insert(0, "")
    try:
        loaded: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the application's own import failed: that is for its traceback to tell
        raise _Misuse(
            f"no module {error.name!r} for {application!r}: check its spelling, and run in the "
            "directory that holds it"
        ) from error
    try:
        app = operator.attrgetter(name)(loaded)
    except AttributeError as error:
        raise _Misuse(f"module {module!r} has no {name!r} to serve") from error
    if isinstance(app, type) or not _takes_three(app):
        raise _Misuse(
            f"{application!r} is no ASGI application but {type(app).__name__}: "
            "name an object such as `app = QuartTrio(__name__)`"
        )
    if isinstance(app, Quart) and not isinstance(app, QuartTrio):
        raise _Misuse(f"{application!r} is a Quart of asyncio: make it a QuartTrio")
    return app


def _takes_three(app: Any) -> bool:
    """Tell whether an object can be called as ASGI calls it: a view, factory or WSGI app cannot."""
    try:
        inspect.signature(app, follow_wrapped=False).bind("scope", "receive", "send")
    except TypeError:
        return False
    except ValueError:  # it has no signature to look at
        return callable(app)
    return True


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
    where = repr_socket_addr(family, (host, port))
    try:
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
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
    return listening.detach()


class _NoOutput(Exception):
    """Standard output takes no more: nobody would know where the server listens."""


async def _serve(app: Any, config: Config) -> None:
    """Serve until a signal; the signals are caught before the application starts."""
    group, stop, starting = StreamGroup(), trio.Event(), trio.CancelScope()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as watcher:
            watcher.start_soon(_stop_at_signal, signals, stop, starting, group)
            async with trio.open_nursery() as nursery:
                run = partial(hypercorn.serve, app, config, group=group)
                with starting:
                    urls = await nursery.start(partial(run, shutdown_trigger=stop.wait))
                    _say([f"Listening on {url}" for url in urls])
            watcher.cancel_scope.cancel()


async def _stop_at_signal(
    signals: AsyncIterator[int], stop: trio.Event, starting: trio.CancelScope, group: StreamGroup
) -> None:
    """At the first signal, stop the server; the second kills the process as if never caught."""
    await anext(signals)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    streams = group.statistics().streams_open
    waits_for = f": {streams} stream{'' if streams == 1 else 's'} to end" if streams else ""
    logging.getLogger(__name__).info("Stopping%s; a second signal stops at once", waits_for)
    stop.set()
    starting.cancel()


def _say(lines: list[str]) -> None:
    """Print lines, flushed.

    Raises:
      _NoOutput: they cannot be written.
    """
    try:
        for line in lines:
            click.echo(line)
    except OSError as error:
        # What Python would flush at its exit goes nowhere, and says nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise _NoOutput(f"cannot write to standard output: {error.strerror}") from error


def _first(errors: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
