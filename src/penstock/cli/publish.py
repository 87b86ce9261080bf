"""`penstock publish`: one event, or each line of standard input as one."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import Any, Final, final

import click
import httpx2
import trio

from penstock.cli import Misuse
from penstock.cli.lines import BadLine, LineReader
from penstock.cli.publisher import NotPublished, Publisher
from penstock.cli.request_arguments import HEADER, URL
from penstock.cli.running import run
from penstock.cli.standard_streams import Input, Output
from penstock.errors import InvalidEvent
from penstock.event import ServerSentEvent
from penstock.printable import printable

__all__ = ["publish"]

_STDIN: Final = 0
_STDERR: Final = 2

_EXAMPLES: Final = """\b
Examples:
  penstock publish http://127.0.0.1:8080/publish --topic news 'It rains'
  tail -f access.log | penstock publish URL --topic log -
  penstock publish URL --json - <events.ndjson

\b
A line of --json is such as {"data": "It rains", "event": "weather", "topics": ["news"]}
"""

# Seconds between two updates of what a terminal shows.
_SHOW: Final = 0.1


@click.command(epilog=_EXAMPLES)
@click.argument("url", type=URL)
@click.argument("data", metavar="[DATA|-]", required=False)
@click.option(
    "topics",
    "--topic",
    "-t",
    multiple=True,
    metavar="TOPIC",
    help="Where to publish; may be given several times.",
)
@click.option("event", "--event", metavar="NAME", help="The event's name. [default: unnamed]")
@click.option("id_", "--id", metavar="ID", help="The event's id. [default: the server makes one]")
@click.option(
    "as_json",
    "--json",
    is_flag=True,
    help="DATA, or each line, is an event as a JSON object; --topic and --event are for those that "
    "have none of their own.",
)
@HEADER
def publish(
    url: httpx2.URL,
    data: str | None,
    topics: tuple[str, ...],
    event: str | None,
    id_: str | None,
    as_json: bool,
    headers: tuple[tuple[str, str], ...],
) -> int:
    """Publish DATA at URL, and print the id it got; or, with -, each line of standard input.

    URL has to take JSON as the demonstration's /publish does. Without DATA, standard input is read
    if it is no terminal.

    Lines go off in batches, as they come, and in order. A batch is published whole or not at all.
    At the first error it stops, and says which line of the input it was, and what was published.
    What was published is told on stderr. The status is 0 if it was everything, 1 if not, 130 after
    Ctrl-C, 143 after SIGTERM.
    """
    if data is None and os.isatty(_STDIN):
        raise Misuse("nothing to publish: give DATA, or - to type lines and end with Ctrl-D")
    lines = data in (None, "-")
    if lines and id_ is not None:
        raise Misuse("--id is the id of one event: with --json each line may have its own")
    if not topics and not as_json and "topic" not in url.params:
        raise Misuse("where to publish? Give a --topic")
    try:
        ServerSentEvent("" if lines or as_json else data, event=event, id=id_)
    except InvalidEvent as error:
        raise Misuse(str(error)) from error
    make = _Maker(topics, event, id_, as_json)
    try:
        publisher = Publisher(url, headers)
    except NotPublished as error:
        raise click.ClickException(str(error)) from error
    if lines:
        batches = _Batches(publisher, LineReader(Input().receive_some), make)
        status = run(batches.publish)
        told = f"interrupted: {batches.account}" if status else f"published {batches.published}"
        click.echo(f"penstock: {told}", err=True)
        return status
    try:
        publication = make((data or "").encode(errors="surrogateescape"))
    except ValueError as error:
        raise Misuse(f"DATA: {error}") from error
    return run(partial(_publish_one, publisher, publication, Output()))


async def _publish_one(publisher: Publisher, publication: bytes, output: Output) -> None:
    try:
        async with publisher:
            published = await publisher.publish(publication)
    except NotPublished as error:
        fate = "nothing was published" if error.known else "whether it was published is not known"
        raise click.ClickException(f"{error}; {fate}") from error
    await output.write(f"{printable(published) if output.is_terminal else published}\n".encode())


@final
class _Maker:
    """Makes of DATA, or of a line, the JSON object that is published."""

    def __init__(
        self, topics: tuple[str, ...], event: str | None, id_: str | None, as_json: bool
    ) -> None:
        given = {"topics": list(topics) or None, "event": event, "id": id_}
        self._defaults = {name: value for name, value in given.items() if value is not None}
        self._as_json = as_json

    def __call__(self, data: bytes) -> bytes:
        """Return the object.

        Raises:
          ValueError: it cannot be one.
        """
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"it is not UTF-8: {error.reason} at byte {error.start + 1}") from None
        own: Any = {"data": text}
        if self._as_json:
            try:
                own = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"it is no JSON: {error}") from None
            if not isinstance(own, dict):
                raise ValueError(f'it is no JSON object, such as {{"data": "…"}}: {own!r}')
        return json.dumps({**self._defaults, **own}).encode()


@final
class _Batches:
    """The lines of standard input, published batch after batch."""

    def __init__(self, publisher: Publisher, reader: LineReader, make: _Maker) -> None:
        self._publisher = publisher
        self._reader = reader
        self._make = make
        self.published: int = 0
        self._unknown = 0  # lines after those, of a batch that was sent and not answered

    async def publish(self) -> None:
        """Publish all.

        Raises:
          click.ClickException: a line was not published; the message says which, and what was.
        """
        progress = _Progress()
        try:
            async with self._publisher:
                while lines := await self._reader.batch():
                    await self._publish_batch(lines)
                    progress.show(self.published)
        except BadLine as error:
            raise click.ClickException(f"line {error.number}: {error}; {self.account}") from error
        except NotPublished as error:
            where = "" if error.line is None else f"line {self.published + error.line}: "
            raise click.ClickException(f"{where}{error}; {self.account}") from error
        finally:
            progress.clear()

    @property
    def account(self) -> str:
        """What was published, when not everything was."""
        first, last = self.published + 1, self.published + self._unknown
        parts = []
        if self.published:
            parts.append(f"{_lines(1, self.published)} published")
        if self._unknown:
            parts.append(f"whether {_lines(first, last)} published is not known")
        return "; ".join([*parts, "nothing after that was"]) if parts else "nothing was published"

    async def _publish_batch(self, lines: list[bytes]) -> None:
        """Publish lines; of those, if one is none, the ones before it."""
        made: list[bytes] = []
        bad = None
        for line in lines:
            try:
                made.append(self._make(line))
            except ValueError as error:
                bad = BadLine(self.published + len(made) + 1, str(error))
                break
        if made:
            self._unknown = len(made)
            try:
                await self._publisher.publish_batch(made)
            except NotPublished as error:
                self._unknown = len(made) if not error.known else 0
                raise
            self.published += len(made)
            self._unknown = 0
        if bad is not None:
            raise bad


def _lines(first: int, last: int) -> str:
    return f"line {first} was" if first == last else f"lines {first} to {last} were"


@final
class _Progress:
    """How many were published, for who waits at a terminal; not for who types there."""

    def __init__(self) -> None:
        self._wanted = os.isatty(_STDERR) and not os.isatty(_STDIN)
        self._shown = False
        self._due = trio.current_time() + _SHOW

    def show(self, published: int) -> None:
        """Show the number, if it is time to."""
        if self._wanted and trio.current_time() >= self._due:
            click.echo(f"\r{published} published", err=True, nl=False)
            self._shown = True
            self._due = trio.current_time() + _SHOW

    def clear(self) -> None:
        """Leave no trace."""
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)
