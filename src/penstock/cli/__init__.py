"""The command line: `penstock serve`, `listen`, `publish` and `doctor`.

Rule 1: a command's module is imported when the command is called, so that no command waits for the
imports of another.

Rule 2: an expected error is one line on stderr, and exit status 1, or 2 for wrong usage.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, TypeVar, final

import click

from penstock.process_signals import raise_at_interrupt

__all__ = ["Misuse", "Parsed", "cli", "main"]

T = TypeVar("T")

_COMMANDS: Final = {
    "serve": "Serve an application, or the demonstration.",
    "publish": "Publish an event, or each line of standard input as an event.",
    "listen": "Print the events of a stream as they arrive.",
    "doctor": "Find out what is wrong with a stream, and what to configure.",
}

_EXAMPLES: Final = """\b
Examples:
  penstock serve                                the demonstration, with its page
  penstock serve shop:app --bind 0.0.0.0:80     `app` in shop.py in this directory
  penstock listen http://127.0.0.1:8080/sse     print its events until Ctrl-C
  penstock publish http://127.0.0.1:8080/publish --topic news 'It rains'
  penstock doctor https://example.org/events    can a browser use it?
"""


class Misuse(click.ClickException):
    """Wrong usage of a command; the message says what to do instead."""

    exit_code = 2


@final
class Parsed(click.ParamType[T]):
    """The type of an argument or option that a function parses.

    Args:
      name: what help calls the value.
      parse: returns the value of a text; it raises `ValueError` with a message for the user.
    """

    def __init__(self, name: str, parse: Callable[[str], T]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        """Return the value."""
        try:
            return self._parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def main() -> None:
    """Run the command line, and exit."""
    try:
        sys.exit(cli.main(prog_name="penstock", standalone_mode=False) or 0)
    except click.ClickException as error:
        message = error.format_message()
        if isinstance(error, click.UsageError) and error.ctx:
            end = "" if message.endswith((".", "?")) else "."
            message = f"{message}{end} See {error.ctx.command_path} --help."
        click.echo(f"penstock: {message}", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(128 + signal.SIGINT)


class _Commands(click.Group):
    """The commands; only the one that is called is imported."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Import the command that is called."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and command is not None:
            command = getattr(import_module(f"{__name__}.{name}"), name)
            raise_at_interrupt()  # the command may have to clean up
        return name, command, rest

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which a user meets them."""
        return list(self.commands)


@click.group(
    cls=_Commands,
    commands={name: click.Command(name, short_help=text) for name, text in _COMMANDS.items()},
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
