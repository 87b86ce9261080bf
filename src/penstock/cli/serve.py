"""`penstock serve`: serve an application on the guarded server until a signal stops it."""

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

from penstock.cli import Misuse, Parsed
from penstock.cli.addresses import (
    DEFAULT_ADDRESS,
    TCP,
    Address,
    Inherited,
    listening,
    parse_address,
    pass_on,
    sockets_of_systemd,
)
from penstock.cli.app_loader import load_application
from penstock.cli.server_log import logging_to_standard_error
from penstock.demo.restart import Restart
from penstock.errors import InvalidSettings
from penstock.hypercorn import Server, Settings
from penstock.hypercorn.server.lifespan import LifespanFailed
from penstock.hypercorn.server.stop_signals import first_of
from penstock.printable import counted, printable
from penstock.process_signals import end_at_next, stopping_signals

__all__ = ["serve"]

DEMO: Final = "penstock.demo.asgi:app"
DEFAULTS: Final = Settings()

# Bytes; OpenSSL's PEM_BUFSIZE, which is Python's limit, too.
_MAX_PASSPHRASE: Final = 1024

_NEW_PORT: Final = "it listens on a free port, --bind …:0, and would come back on another"

_EXAMPLES: Final = """\b
Examples:
  penstock serve                                the demonstration, with its page
  penstock serve shop:app                       `app` in shop.py in this directory
  penstock serve shop:app --bind 0.0.0.0:80     on every IPv4 address
  penstock serve --bind 127.0.0.1:0             on a free port, which is printed
  penstock serve --bind unix:/run/shop.sock     on a Unix socket, for a proxy
  penstock serve --certfile cert.pem --keyfile key.pem --bind 127.0.0.1:8443
                                                over TLS, with HTTP/2
  PENSTOCK_HISTORY=events.db penstock serve     the demonstration, with its history in a file
"""


_file = partial(click.option, type=click.Path(exists=True, dir_okay=False), metavar="FILE")
_count = partial(click.option, type=click.IntRange(min=1), metavar="COUNT")


def _seconds(option: str, text: str) -> Callable[[Any], Any]:
    default = getattr(DEFAULTS, option.strip("-").replace("-", "_"))
    kind, text = click.FLOAT, f"{text} [default: {default:g}]"
    return click.option(option, type=kind, metavar="SECONDS", default=default, help=text)


@click.command(epilog=_EXAMPLES)
@click.argument("application", metavar="[MODULE:APP]", default=DEMO)
@click.option(
    "binds",
    "--bind",
    "-b",
    type=Parsed("HOST:PORT", parse_address),
    multiple=True,
    help="The address to listen on; repeatable. Port 0 is any free port. Also unix:PATH, and "
    f"fd://N for an inherited socket. [default: the sockets of systemd, or {DEFAULT_ADDRESS}]",
)
@_file("--certfile", help="Use TLS with this certificate (PEM).")
@_file("--keyfile", help="The private key of the certificate (PEM).")
@_file("--keyfile-password-file", help="A file with the passphrase of the key in its first line.")
@click.option(
    "--http2/--no-http2",
    default=DEFAULTS.http2,
    help="Whether to accept HTTP/2 without TLS; with TLS, it is negotiated. [default: no-http2]",
)
@_seconds("--send-timeout", "Disconnect a client that accepts no data for this long.")
@_seconds("--keep-alive-timeout", "Close a connection that is idle for this long.")
@_seconds(
    "--drain-window", "When the server stops, wait this long for requests and streams to end."
)
@_seconds(
    "--reconnect-spread", "When the server stops, spread reconnecting clients over this time."
)
@_count(
    "--max-connections",
    help="Refuse further connections. [default: derived from the limit on open files]",
)
@_count(
    "--max-connections-per-address",
    help="Refuse further connections from one address. [default: no limit]",
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
    streams and then the server; a second signal ends it at once. An application that is stopped
    during its startup is cancelled, and its shutdown functions do not run.
    """
    with logging_to_standard_error() as log:
        passed = sockets_of_systemd()
        addresses = list(binds or passed) or [parse_address(DEFAULT_ADDRESS)]
        free_port = any(isinstance(each, TCP) and each.port == 0 for each in addresses)
        restart = Restart(why_not=_NEW_PORT if free_port else None)
        try:
            settings = Settings(**options)
        except InvalidSettings as error:
            raise Misuse(str(error)) from error
        app = _application(application, restart)
        config = _config(certfile, keyfile, keyfile_password_file, settings)
        inherited = [each for each in addresses if isinstance(each, Inherited)]
        failure = None
        try:
            server = Server(app, config, settings=settings, mode="asgi")
            # Bound here rather than by Hypercorn, for an error that names the address.
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
        restart.execute()


def _application(application: str, restart: Restart) -> Any:
    """Return the application of this name; the demonstration can request a restart."""
    if application != DEMO:
        return load_application(application)
    from penstock.demo.application import create_app  # which no other application needs

    return create_app(restart)


class _NoPassphrase(Exception):
    """The key has a passphrase, and none was given."""


def _config(
    certfile: str | None, keyfile: str | None, password_file: str | None, settings: Settings
) -> Config:
    config = Config()
    if (certfile is None) != (keyfile is None):
        raise Misuse("TLS needs both --certfile and --keyfile")
    config.certfile, config.keyfile = certfile, keyfile
    password = None if password_file is None else _first_line(password_file)
    asked = False

    def passphrase() -> str:  # called if the key has one; without this, OpenSSL would prompt
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
            f"cannot use {keyfile} for TLS: the key has a passphrase: give a file that has it, "
            "with --keyfile-password-file"
        ) from None
    except ValueError as error:
        raise click.ClickException(
            f"cannot use the passphrase in {password_file}: it has more than {_MAX_PASSPHRASE} "
            "bytes: give a file whose first line is only the passphrase of the key"
        ) from error
    except (OSError, ssl.SSLError) as error:
        why = f"{error.strerror}: give PEM files"
        if asked:
            why = f"the passphrase in {password_file} is wrong"
        elif isinstance(error, ssl.SSLError):
            why = "they are not a certificate and its key: give PEM files"
        raise click.ClickException(
            f"cannot use {certfile} with {keyfile} for TLS: {why}"
        ) from error
    config.graceful_timeout = settings.drain_window
    # Where it listens is printed to stdout already.
    config.errorlog = logging.getLogger("hypercorn.error")
    config.errorlog.setLevel(logging.WARNING)
    return config


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline(_MAX_PASSPHRASE + 1).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise click.ClickException(f"cannot read {path}: {why}") from error


class _NoOutput(Exception):
    """Standard output cannot be written: nobody would know where the server listens."""


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
        restart.why_not = "the server is stopping permanently"

    await first_of(signalled, restart.requested.wait)
    end_at_next(numbers)
    streams = server.statistics().streams.streams_open
    waits_for = f": {counted(streams, 'stream')} to end" if streams else ""
    said = (
        f"Stopping, to start again{waits_for}; a signal stops it permanently, at once"
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
