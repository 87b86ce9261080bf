"""`penstock listen`: the events of a stream, printed as they come."""

from __future__ import annotations

import json
import logging
import re
from typing import Any, Final

import click
import httpx2

from penstock.cli import Misuse
from penstock.cli.arguments import HEADER, URL
from penstock.cli.running import run
from penstock.cli.standard_streams import Output
from penstock.client import EventSource
from penstock.errors import ConnectionFailed, DecodeError
from penstock.event import ServerSentEvent

__all__ = ["listen"]

_EXAMPLES: Final = """\b
Examples:
  penstock listen http://127.0.0.1:8080/sse
  penstock listen 'http://127.0.0.1:8080/subscribe?topic=*' --last-event-id earliest
  penstock listen --json URL | jq -r .data
  penstock listen --count 1 URL                 wait for one event
"""

# What a terminal would obey. A line end is none of them: it begins a new line of data.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@click.command(epilog=_EXAMPLES)
@click.argument("url", type=URL)
@click.option(
    "--last-event-id", default="", metavar="ID", help="Go on after this event. [default: none]"
)
@click.option(
    "as_json",
    "--json",
    is_flag=True,
    help="Print each event as a JSON object on a line of its own.",
)
@HEADER
@click.option(
    "--count", type=click.IntRange(min=1), metavar="COUNT", help="End after so many events."
)
@click.option(
    "--max-attempts",
    type=click.IntRange(min=1),
    metavar="COUNT",
    help="Give up when so many attempts to connect fail in a row. [default: never]",
)
@click.option(
    "--max-silence",
    type=click.FLOAT,
    metavar="SECONDS",
    help="Connect again when nothing, not even a comment, came for so long. [default: never]",
)
@click.option(
    "--max-event-size",
    type=click.IntRange(min=1),
    metavar="BYTES",
    default=2**20,
    help="Give up when an event is larger. [default: 1048576]",
)
def listen(
    url: httpx2.URL,
    as_json: bool,
    headers: tuple[tuple[str, str], ...],
    count: int | None,
    **options: Any,
) -> int:
    r"""Print the events of the stream at URL as they come.

    They are printed as they are on the wire: id, name and data, then an empty line; on a terminal,
    control characters show as \x1b. With --json, each is {"id": …, "event": …, "data": …}; an
    event without id or name has null there.

    A stream that ends or breaks is opened again, and a line on stderr says so. It ends with status
    0 when the server says that there is no more (204), after --count events, and when nobody reads
    its output any more; with 1 when the server has no such stream; after Ctrl-C with 130, after
    SIGTERM with 143.
    """
    try:
        source = EventSource(url, headers=headers, **options)
    except ValueError as error:
        raise Misuse(str(error)) from error
    _tell_of_reconnections()
    output = Output()
    form = _json if as_json else _text

    async def work() -> None:
        heard = 0
        try:
            async with source:
                async for event in source:
                    await output.write(form(event, output.is_terminal))
                    heard += 1
                    if heard == count:
                        break
        except (ConnectionFailed, DecodeError) as error:
            raise click.ClickException(str(error)) from error

    return run(work, output=output)


def _json(event: ServerSentEvent, terminal: bool) -> bytes:
    values = {"id": event.id, "event": event.event, "data": event.data}
    return (json.dumps(values, ensure_ascii=terminal) + "\n").encode()


def _text(event: ServerSentEvent, terminal: bool) -> bytes:
    wire = event.encode()
    if not terminal:
        return wire
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", wire.decode()).encode()


def _tell_of_reconnections() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("penstock: %(message)s"))
    logger = logging.getLogger("penstock.client")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
