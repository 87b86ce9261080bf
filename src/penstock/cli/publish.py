"""`penstock publish`: publish an event, or each line of standard input, over HTTP.

Rule: what was published is reported exactly. A batch is published completely or not at all; whether
it was, is unknown only if the request was sent and the server did not say.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import click
import httpx2
import trio

from penstock.cli import Misuse
from penstock.cli.request_options import HEADER, URL
from penstock.cli.runtime import Input, LineReader, LineTooLong, Output, run
from penstock.client.event_source import default_client
from penstock.client.request import redacted
from penstock.client.response import close
from penstock.client.retries import reason_of, status_of
from penstock.errors import ConnectionFailed, InvalidEvent
from penstock.event import ServerSentEvent
from penstock.printable import printable

__all__ = ["publish"]

_STDIN: Final = 0

# Seconds for a request and its response. A hub on a slow disk takes one or two.
_RESPONSE_TIMEOUT: Final = 60.0

# Bytes of a response that are kept; the ids of a batch have 50 each.
_MAX_RESPONSE: Final = 2**20

# Seconds for which an idle connection is used again. Servers close theirs after 5 (Hypercorn,
# uvicorn) or more, and a request that is sent just then is lost.
_KEEP_ALIVE: Final = 2.0

_EXAMPLES: Final = """\b
Examples:
  penstock publish http://127.0.0.1:8080/publish --topic news 'It rains'
  tail -f access.log | penstock publish URL --topic log -
  penstock publish URL --json - <events.ndjson

\b
With --json, a line is such as {"data": "It rains", "event": "weather", "topics": ["news"]}
"""


@click.command(epilog=_EXAMPLES)
@click.argument("url", type=URL)
@click.argument("data", metavar="[DATA|-]", required=False)
@click.option(
    "topics",
    "--topic",
    "-t",
    multiple=True,
    metavar="TOPIC",
    help="A topic to publish on; repeatable.",
)
@click.option("event", "--event", metavar="NAME", help="The event's name. [default: none]")
@click.option("id_", "--id", metavar="ID", help="The event's id. [default: the server makes one]")
@click.option(
    "as_json",
    "--json",
    is_flag=True,
    help="DATA, or each line, is an event as a JSON object; --topic and --event apply to events "
    "that do not have their own.",
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
    """Publish DATA and print the event's id; or, with -, publish each line of standard input.

    URL is an endpoint that takes JSON as the demonstration's /publish does. Without DATA, standard
    input is read unless it is a terminal.

    Lines are sent in batches as they arrive, in order; each batch is published completely or not at
    all. Publishing stops at the first error, which names the input line and says what was
    published. The number of published events is printed to stderr.

    Exit status: 0 if everything was published, 1 if not, 2 for wrong usage, 130 after Ctrl-C, 143
    after SIGTERM.
    """
    if data is None and os.isatty(_STDIN):
        raise Misuse("nothing to publish: give DATA, or - to type lines and end with Ctrl-D")
    lines = data in (None, "-")
    if lines and id_ is not None:
        raise Misuse("--id is for a single event; with --json, each line can have an id")
    if not topics and not as_json and "topic" not in url.params:
        raise Misuse("no topic to publish on: give --topic")
    try:
        ServerSentEvent("" if lines or as_json else data, event=event, id=id_)
    except InvalidEvent as error:
        raise Misuse(str(error)) from error
    given = {"topics": list(topics) or None, "event": event, "id": id_}
    defaults = {name: value for name, value in given.items() if value is not None}
    encode = partial(_encoded, defaults, as_json)
    try:
        publication = b"" if lines else encode((data or "").encode(errors="surrogateescape"))
    except ValueError as error:
        raise Misuse(f"DATA is {error}") from error
    own_headers = httpx2.Headers({"Accept-Encoding": "identity", "Accept": "application/json"})
    own_headers.update(headers)
    limits = httpx2.Limits(keepalive_expiry=_KEEP_ALIVE)
    try:
        client = default_client(timeout=None, limits=limits, headers=own_headers)
    except ConnectionFailed as error:
        raise click.ClickException(str(error)) from error
    post = partial(_post, client, url)
    report = _Report()
    if lines:
        standard_input = Input()
        reader = LineReader(standard_input.receive_some)
        work = partial(_publish_lines, post, reader, encode, report)
        shows = None if standard_input.is_terminal else lambda: f"{report.published} published"
    else:
        work, shows = partial(_publish_one, post, publication, Output()), None

    async def work_and_close() -> None:
        try:
            await work()
        finally:
            await close(client)  # noqa: ASYNC102 - it shields itself, for a bounded time

    status = run(work_and_close, progress=shows)
    if lines:
        said = f"interrupted: {report}" if status else f"published {report.published}"
        click.echo(f"penstock: {said}", err=True)
    return status


def _encoded(defaults: dict[str, Any], as_json: bool, data: bytes) -> bytes:
    """Return the JSON object to publish for DATA or for a line.

    Raises:
      ValueError: there is none; the message says what the text is instead.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start + 1}") from None
    own: Any = {"data": text}
    if as_json:
        try:
            own = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not JSON: {error}") from None
        if not isinstance(own, dict):
            raise ValueError(f'not a JSON object such as {{"data": "…"}}: {own!r}')
    return json.dumps({**defaults, **own}).encode()


Post = Callable[[Sequence[bytes], bool], Awaitable[list[str]]]


async def _publish_one(post: Post, publication: bytes, output: Output) -> None:
    try:
        (id_,) = await post([publication], False)
    except _NotPublished as error:
        fate = "it may or may not have been published" if error.unknown else "nothing was published"
        raise click.ClickException(f"{error}; {fate}") from error
    await output.write(f"{printable(id_) if output.is_terminal else id_}\n".encode())


@dataclass
class _Report:
    """What became of the lines of the input; its text is for when not all were published."""

    published: int = 0
    unknown: int = 0  # lines after those: they were sent, and the server did not answer

    def __str__(self) -> str:
        first, last = self.published + 1, self.published + self.unknown
        parts = []
        if self.published:
            verb = "was" if self.published == 1 else "were"
            parts.append(f"{_lines(1, self.published)} {verb} published")
        if self.unknown:
            parts.append(f"{_lines(first, last)} may or may not have been published")
        end = "nothing after that was published" if parts else "nothing was published"
        return "; ".join([*parts, end])


def _lines(first: int, last: int) -> str:
    return f"line {first}" if first == last else f"lines {first} to {last}"


async def _publish_lines(
    post: Post, reader: LineReader, encode: Callable[[bytes], bytes], report: _Report
) -> None:
    """Publish the lines of an input, batch after batch.

    Raises:
      click.ClickException: a line was not published; the message says which, and what was.
    """
    bad: Exception | None = None
    try:
        while bad is None and (lines := await reader.batch()):
            publications: list[bytes] = []
            try:
                for line in lines:
                    publications.append(encode(line))
            except ValueError as error:  # what precedes it is published
                bad = error
            if publications:
                report.unknown = len(publications)
                await post(publications, True)
                report.published, report.unknown = report.published + len(publications), 0
    except LineTooLong as error:
        bad = error
    except _NotPublished as error:
        report.unknown = report.unknown if error.unknown else 0
        where = "" if error.line is None else f"line {report.published + error.line}: "
        raise click.ClickException(f"{where}{error}; {report}") from error
    if bad is not None:
        raise click.ClickException(f"line {report.published + 1}: {bad}; {report}") from bad


class _NotPublished(Exception):
    """A request to publish failed; the message says why.

    Attributes:
      line: the line of the batch that is to blame, from 1, if the server named it.
      unknown: whether something may have been published nevertheless.
    """

    def __init__(self, reason: str, *, line: int | None = None, unknown: bool = False) -> None:
        super().__init__(reason)
        self.line: int | None = line
        self.unknown: bool = unknown


async def _post(
    client: httpx2.AsyncClient, url: httpx2.URL, publications: Sequence[bytes], batch: bool
) -> list[str]:
    """Publish events, each a JSON object; return their ids.

    Args:
      client: sends the request.
      url: where to.
      publications: the events.
      batch: whether to send them as a batch, of which all are published or none; otherwise there
        is only one.

    Raises:
      _NotPublished: they were not published, or may or may not have been.
    """
    where = redacted(url)
    body = b"".join(each + b"\n" for each in publications) if batch else publications[0]
    content_type = "application/x-ndjson" if batch else "application/json"
    request = client.build_request(
        "POST", url, content=body, headers={"Content-Type": content_type}
    )
    with trio.move_on_after(_RESPONSE_TIMEOUT):
        try:
            response = await client.send(request, stream=True)
            answer = b""
            try:
                # Read to its end, so that the connection can be used again; kept up to a limit.
                async for chunk in response.aiter_raw():
                    answer += chunk[: _MAX_RESPONSE - len(answer)]
            finally:
                await close(response)  # noqa: ASYNC102 - it shields itself, for a bounded time
        except (httpx2.ConnectError, httpx2.LocalProtocolError) as error:
            raise _NotPublished(f"{where}: {reason_of(error)}") from error
        except (httpx2.TransportError, httpx2.InvalidURL, UnicodeError) as error:
            # The last two are for a redirect's target, which httpx2 looks at.
            raise _NotPublished(f"{where}: {reason_of(error)}", unknown=True) from error
        return _ids_of(response, answer, len(publications), batch)
    raise _NotPublished(f"{where}: no response within {_RESPONSE_TIMEOUT:g} s", unknown=True)


def _ids_of(response: httpx2.Response, answer: bytes, count: int, batch: bool) -> list[str]:
    """Return the ids in a response; or raise what it says is wrong."""
    try:
        said: Any = json.loads(answer)
    except (ValueError, RecursionError):
        said = None
    said = said if isinstance(said, dict) else {}
    answered = f"{redacted(response.url)}: answered {status_of(response)}"
    if not response.is_success:
        line, reason = said.get("line"), said.get("error")
        line = line if type(line) is int and 1 <= line <= count else None
        if not isinstance(reason, str) or not reason.strip():
            reason = answered
        # A server in trouble may have published, and failed to confirm it.
        unknown = response.status_code >= 500 and "error" not in said
        words = " ".join(reason.split()).removeprefix(f"line {line}: ")
        raise _NotPublished(printable(words, limit=500), line=line, unknown=unknown)
    ids: Any = said.get("ids") if batch else [said.get("id")]
    if not isinstance(ids, list) or len(ids) != count or not all(map(_is_id, ids)):
        missing = f"{count} ids" if batch else "an id"
        raise _NotPublished(
            f"{answered} without {missing}: is this a publish endpoint?", unknown=True
        )
    return ids


def _is_id(given: Any) -> bool:
    try:
        ServerSentEvent(id=given)
    except InvalidEvent:
        return False
    return True
