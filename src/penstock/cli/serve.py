"""`penstock serve`: an application on the guarded server, until a signal ends it."""

from __future__ import annotations

import logging
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final, cast

import click
import trio
from hypercorn.config import Config, Sockets

from penstock.cli import Misuse
from penstock.cli.binds import (
    DEFAULT_BIND,
    TCP,
    Address,
    Bind,
    Inherited,
    activated,
    listening,
    pass_on,
)
from penstock.cli.loading import FaultyApplication, NoApplication, load_application
from penstock.cli.server_log import logging_to_standard_error
from penstock.errors import InvalidSettings
from penstock.hypercorn import Server, Settings
from penstock.hypercorn.server.lifespan import LifespanFailed
from penstock.hypercorn.server.restart import Restart
from penstock.hypercorn.server.signals import first_of
from penstock.printable import printable
from penstock.process_signals import end_at_next, stopping_signals

__all__ = ["serve"]

DEMO: Final = "penstock.demo:app"
DEFAULTS: Final = Settings()

# Bytes; OpenSSL's PEM_BUFSIZE, which Python keeps to.
_LONGEST_PASSPHRASE: Final = 1024

_NEW_PORT: Final = "it listens on a free port, --bind …:0, and would come back on another"

_EXAMPLES: Final = """\b
Examples:
  penstock serve                                the demonstration, with its page
  penstock serve shop:app                       `app` in shop.py of this directory
  penstock serve shop:app --bind 0.0.0.0:80     on every IPv4 address
  penstock serve --bind 127.0.0.1:0             on a free port, which it prints
  penstock serve --bind unix:/run/shop.sock     on a Unix socket, for a proxy
  penstock serve --certfile cert.pem --keyfile key.pem --bind 127.0.0.1:8443
                                                over TLS, with HTTP/2
  PENSTOCK_HISTORY=events.db penstock serve     the demonstration, with a history in a file
"""


def _seconds(option: str, said: str) -> Callable[[Any], Any]:
    default = getattr(DEFAULTS, option.strip("-").replace("-", "_"))
    kind, said = click.FLOAT, f"{said} [default: {default:g}]"
    return click.option(option, type=kind, metavar="SECONDS", default=default, help=said)


@click.command(epilog=_EXAMPLES)
@click.argument("application", metavar="[MODULE:APP]", default=DEMO)
@click.option(
    "binds",
    "--bind",
    "-b",
    type=Bind(),
    multiple=True,
    help=f"Where to listen; may be given several times. Port 0 takes a free port. Also unix:PATH, "
    f"and fd://N for a socket that was passed. [default: what systemd passes, or {DEFAULT_BIND}]",
)
@click.option(
    "--certfile",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Speak TLS, with this certificate (PEM).",
)
@click.option(
    "--keyfile",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="The certificate's key (PEM).",
)
@click.option(
    "--keyfile-password-file",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="A file whose first line is the key's passphrase, if it has one.",
)
@click.option(
    "--http2/--no-http2",
    default=DEFAULTS.http2,
    help="Whether a port without TLS speaks HTTP/2, too. Over TLS it is negotiated. "
    "[default: no-http2]",
)
@_seconds("--send-timeout", "Disconnect a client that accepts no data for this long.")
@_seconds("--keep-alive-timeout", "Close a connection that is idle for this long.")
@_seconds("--drain-window", "Time for clients and streams to end when the server stops.")
@_seconds("--reconnect-spread", "Time over which the clients of a stopped server come back.")
@click.option(
    "--max-connections",
    type=click.IntRange(min=1),
    metavar="COUNT",
    help="Refuse clients beyond this. [default: by the limit of open files]",
)
@click.option(
    "--max-connections-per-address",
    type=click.IntRange(min=1),
    metavar="COUNT",
    help="Refuse clients of one address beyond this. [default: none]",
)
def serve(
    application: str,
    binds: tuple[Address, ...],
    certfile: str | None,
    keyfile: str | None,
    keyfile_password_file: str | None,
    **options: Any,
) -> None:
    """Serve an application with Hypercorn on Trio; without MODULE:APP, the demonstration.

    Prints a line on stdout for each address it listens on. Ctrl-C, SIGTERM or SIGHUP ends all
    streams and then the server; a second one ends it at once. Stopped while it starts, an
    application is cancelled, and its shutdown functions do not run. Times are in seconds.
    """
    with logging_to_standard_error() as log:
        passed = activated()
        addresses = list(binds or passed) or [Bind().convert(DEFAULT_BIND, None, None)]
        try:
            settings = Settings(**options)
            app = load_application(application)
        except (NoApplication, InvalidSettings) as error:
            raise Misuse(str(error)) from error
        except FaultyApplication as error:
            raise click.ClickException(str(error)) from error
        config = _config(certfile, keyfile, keyfile_password_file, settings)
        inherited = [each for each in addresses if isinstance(each, Inherited)]
        free_port = any(isinstance(each, TCP) and each.port == 0 for each in addresses)
        restart = Restart(why_not=_NEW_PORT if free_port else None)
        if application == DEMO:
            app = restart.offered_to(app)
        failure = None
        try:
            server = Server(app, config, settings=settings, mode="asgi")
            # Bound here rather than by Hypercorn, so that what cannot be bound is named.
            with listening(addresses) as bound:
                sockets = Sockets(*((bound, []) if config.ssl_enabled else ([], bound)), [])
                trio.run(_serve, server, sockets, restart)
        except* LifespanFailed as errors:
            failure = cast(LifespanFailed, _first(errors)).describe(application)
        except* _NoOutput as errors:
            failure = str(_first(errors))
        if failure is not None:  # raised in an `except*`, it would come out in a group
            raise click.ClickException(failure)
        if restart.due:
            pass_on(inherited)
            log.close()  # from now on, records are written at once
        restart.take_place()


class _NoPassphrase(Exception):
    """A key has a passphrase, and none was given."""


def _config(
    certfile: str | None, keyfile: str | None, password_file: str | None, settings: Settings
) -> Config:
    config = Config()
    if (certfile is None) != (keyfile is None):
        raise Misuse("TLS needs both --certfile and --keyfile")
    config.certfile, config.keyfile = certfile, keyfile
    password = None if password_file is None else _first_line(password_file)
    asked = False

    def passphrase() -> str:  # which is called if the key has one; otherwise OpenSSL would prompt
        nonlocal asked
        asked = True
        if password is None:
            raise _NoPassphrase
        return password

    config.keyfile_password = passphrase  # type: ignore[assignment]  # what Python's ssl takes
    try:
        config.create_ssl_context()
    except _NoPassphrase:
        raise click.ClickException(
            f"cannot use {keyfile} for TLS: the key has a passphrase: give a file that holds it, "
            "with --keyfile-password-file"
        ) from None
    except ValueError as error:
        raise click.ClickException(
            f"cannot use the passphrase in {password_file}: it has more than {_LONGEST_PASSPHRASE} "
            "bytes: give a file whose first line is the key's passphrase and nothing else"
        ) from error
    except (OSError, ssl.SSLError) as error:
        why = f"{error.strerror}: give both in PEM"
        if asked:
            why = f"the passphrase in {password_file} is not the key's"
        elif isinstance(error, ssl.SSLError):
            why = "they are no certificate and key that belong together: give both in PEM"
        raise click.ClickException(
            f"cannot use {certfile} with {keyfile} for TLS: {why}"
        ) from error
    config.graceful_timeout = settings.drain_window
    # Where it listens is said on stdout already.
    config.errorlog = logging.getLogger("hypercorn.error")
    config.errorlog.setLevel(logging.WARNING)
    return config


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline(_LONGEST_PASSPHRASE + 1).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise click.ClickException(f"cannot read {path}: {why}") from error


class _NoOutput(Exception):
    """Standard output takes no more: nobody would know where the server listens."""


async def _serve(server: Server, sockets: Sockets, restart: Restart) -> None:
    """Serve until a signal, or a restart is asked for.

    The signals are caught before the application starts.
    """
    stop, starting = trio.Event(), trio.CancelScope()
    numbers = stopping_signals()
    with trio.open_signal_receiver(*numbers) as signals:
        async with trio.open_nursery() as watcher:
            stopping = partial(_stop_at_signal, numbers, signals, stop, starting, server, restart)
            watcher.start_soon(stopping, name="waits for a signal")
            async with trio.open_nursery() as nursery:
                with starting:
                    serve = partial(
                        server.serve,
                        shutdown_trigger=stop.wait,
                        sockets=sockets,
                        tune_process=True,
                    )
                    urls = await nursery.start(serve, name="server")
                    _say([f"Listening on {printable(url)}" for url in urls])
            watcher.cancel_scope.cancel()


async def _stop_at_signal(
    numbers: tuple[signal.Signals, ...],
    signals: AsyncIterator[int],
    stop: trio.Event,
    starting: trio.CancelScope,
    server: Server,
    restart: Restart,
) -> None:
    """At the first signal, stop the server; a second one ends the process at once.

    A request to restart counts as the first. A signal at that moment is not lost: if it was
    received, it refuses the restart; else it is delivered again when the receiver's block is left.
    """

    async def signalled() -> None:
        await anext(signals)
        restart.why_not = "the server was told to stop, for good"

    await first_of(signalled, restart.asked.wait)
    end_at_next(numbers)
    streams = server.statistics().streams.streams_open
    waits_for = f": {streams} stream{'' if streams == 1 else 's'} to end" if streams else ""
    said = (
        f"Stopping, to start again{waits_for}; a signal stops at once, for good"
        if restart.due
        else f"Stopping{waits_for}; a second signal stops at once"
    )
    logging.getLogger(__name__).info("%s", said)
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
