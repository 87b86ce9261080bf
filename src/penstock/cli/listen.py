"""`penstock listen`: print the events of a stream as they arrive."""

from __future__ import annotations

import json
import logging
import re
from functools import partial
from typing import Any, Final

import click
import httpx2

from penstock.cli import Misuse
from penstock.cli.request_options import DATA, HEADER, REQUEST, URL, with_content_type
from penstock.cli.runtime import Output, run
from penstock.client import EventSource
from penstock.errors import ConnectionFailed, DecodeError
from penstock.event import ServerSentEvent
from penstock.printable import printable

__all__ = ["listen"]

_EXAMPLES: Final = """\b
Examples:
  penstock listen http://127.0.0.1:8080/sse
  penstock listen 'http://127.0.0.1:8080/subscribe?topic=*' --last-event-id earliest
  penstock listen --json URL | jq -r .data
  penstock listen --count 1 URL                 wait for an event
  penstock listen --once URL                    read a stream to its end
  penstock listen --data @prompt.json -H 'Authorization: Bearer …' URL
"""

# `json.dumps` leaves DEL, C1 controls and others that are not printable as they are, and a terminal
# would obey them. In JSON they can only be in a string, so they can be escaped afterwards.
_ABOVE_ASCII: Final = re.compile(r"[\x7f-\U0010ffff]")

_count = partial(click.option, type=click.IntRange(min=1), metavar="COUNT")


@click.command(epilog=_EXAMPLES)
@click.argument("url", type=URL)
@click.option(
    "--last-event-id",
    default="",
    metavar="ID",
    help="Resume after the event with this id. [default: none]",
)
@click.option(
    "as_json",
    "--json",
    is_flag=True,
    help="Print each event as a JSON object, one per line.",
)
@REQUEST
@DATA
@HEADER
@click.option(
    "reconnect",
    "--reconnect/--once",
    default=None,
    help="Reconnect when the stream ends or breaks, or read it once. [default: --reconnect for "
    "GET, --once for any other method]",
)
@_count("--count", help="Stop after this many events.")
@_count(
    "--max-attempts",
    help="Make at most this many requests. [default: no limit; 1 with --once]",
)
@_count(
    "--max-failures",
    help="Give up after this many failed attempts in a row. [default: never]",
)
@click.option(
    "--max-silence",
    type=click.FLOAT,
    metavar="SECONDS",
    help="Reconnect after this long without data, not even a comment. [default: never]",
)
@click.option(
    "--max-event-size",
    type=click.IntRange(min=1),
    metavar="BYTES",
    default=2**20,
    help="Fail if an event is larger. [default: 1048576]",
)
def listen(
    url: httpx2.URL,
    as_json: bool,
    headers: tuple[tuple[str, str], ...],
    data: bytes | None,
    count: int | None,
    **options: Any,
) -> int:
    r"""Print the events of the stream at URL as they arrive.

    They are printed as on the wire: id, name and data, then an empty line; on a terminal,
    characters that are not printable are shown as \x1b or \u202e. With --json, an event is
    {"id": …, "event": …, "data": …}, with null if it has no id or name, and characters that are not
    printable are escaped as JSON.

    A stream that ends or breaks is reopened, which is reported on stderr. With --once, or if the
    method is not GET, it is read to its end once.

    Exit status: 0 at that end, if the server says that there are no more events (204), after
    --count events, and when nobody reads the output any more. 1 if the request fails or is refused,
    or if a stream that is read once breaks. 2 for wrong usage, 130 after Ctrl-C, 143 after SIGTERM.
    """
    headers = with_content_type(headers, data)
    try:
        source = EventSource(url, headers=headers, content=data, **options)
    except ValueError as error:
        raise Misuse(str(error)) from error
    _log_reconnections()
    output = Output()
    form = _json if as_json else _text

    async def work() -> None:
        printed = 0
        try:
            async with source:
                async for event in source:
                    await output.write(form(event, output.is_terminal))
                    printed += 1
                    if printed == count:
                        break
        except (ConnectionFailed, DecodeError) as error:
            raise click.ClickException(str(error)) from error

    return run(work, output=output)


def _json(event: ServerSentEvent, terminal: bool) -> bytes:
    values = {"id": event.id, "event": event.event, "data": event.data}
    line = json.dumps(values, ensure_ascii=terminal)
    return (_ABOVE_ASCII.sub(_json_escape, line) + "\n").encode()


def _json_escape(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable():
        return character
    return f"\\u{0x7F:04x}" if character == "\x7f" else json.dumps(character)[1:-1]


def _text(event: ServerSentEvent, terminal: bool) -> bytes:
    wire = event.encode()
    return printable(wire, keep="\n\t").encode() if terminal else wire


def _log_reconnections() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("penstock: %(message)s"))
    logger = logging.getLogger("penstock.client")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
