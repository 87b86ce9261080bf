"""`penstock doctor`: diagnose an event stream, and say what to configure."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import Any, Final, final

import click
import httpx2
import trio

from penstock.cli.request_arguments import DATA, HEADER, REQUEST, URL, with_content_type
from penstock.cli.running import run
from penstock.cli.standard_streams import Output
from penstock.client.request import address_of
from penstock.doctor.finding import Finding, Mark, counted
from penstock.doctor.observation import Observation
from penstock.doctor.origins import NotAnOrigin, parse_origin
from penstock.doctor.probe import observe
from penstock.doctor.report import findings_of

__all__ = ["doctor"]

_STDERR: Final = 2

_EXAMPLES: Final = """\b
Examples:
  penstock doctor https://example.org/events
  penstock doctor --for 70 URL                  see whether a proxy cuts a silent stream
  penstock doctor --origin https://app.example.org --header 'Cookie: id=…' URL
  penstock doctor --data '{"stream": true}' --header 'Authorization: Bearer …' URL
  penstock doctor --json URL | jq '.checks[] | select(.mark == "FAIL")'
"""

# Seconds between two updates of what a terminal shows.
_SHOW: Final = 0.1

_COLORS: Final = {Mark.OK: "green", Mark.WARN: "yellow", Mark.FAIL: "red", Mark.SKIP: None}


@final
class _Origin(click.ParamType[str]):
    name = "ORIGIN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the origin, as a browser writes it."""
        try:
            return parse_origin(str(value))
        except NotAnOrigin as error:
            why = f": {error}" if str(error) else ", such as https://app.example.org"
            self.fail(f"{value!r} is not an origin{why}")


@final
class _Seconds(click.ParamType[float]):
    name = "SECONDS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return a number of seconds that one may wait."""
        try:
            seconds = float(value)
        except ValueError:
            self.fail(f"{value!r} is no number of seconds")
        if not 0 < seconds <= 86400:
            self.fail(f"{value!r} is not above 0, or more than a day")
        return seconds


class _NobodyToAsk(click.ClickException):
    """There was no server, so nothing could be checked."""

    exit_code = 2


@click.command(epilog=_EXAMPLES)
@click.argument("url", type=URL)
@click.option(
    "hold",
    "--for",
    type=_Seconds(),
    default=20.0,
    metavar="SECONDS",
    help="Wait this long for the answer, then hold the stream this long. [default: 20]",
)
@click.option(
    "--origin",
    type=_Origin(),
    metavar="ORIGIN",
    help="Check whether pages of this origin may read the stream (CORS).",
)
@REQUEST
@DATA
@HEADER
@click.option("as_json", "--json", is_flag=True, help="Print a JSON object, for programs.")
def doctor(
    url: httpx2.URL,
    hold: float,
    origin: str | None,
    method: str | None,
    data: bytes | None,
    headers: tuple[tuple[str, str], ...],
    as_json: bool,
) -> int:
    """Check the event stream at URL, of any server, behind any proxies.

    Requests the stream as a browser does, holds it, and reconnects with the id of an event. Prints
    a line for each check: ok, warn, FAIL, or skip where there was no evidence; and what to change.

    With --data it sends a POST, or what --request says. What is not a GET is sent once:
    there is no second request for an uncompressed answer, and none with the id of an event.

    It takes as long as --for says, and up to 10 s more to reconnect. The exit status is 0 when
    nothing failed, 1 when something did, 2 when the server cannot be reached, and for wrong usage;
    after Ctrl-C, which prints what was found so far, it is 130, after SIGTERM 143.
    """
    asked = httpx2.Headers(with_content_type(headers, data))
    method = method or ("GET" if data is None else "POST")
    seen = Observation(address_of(url), hold, origin, method, data)
    output = Output()
    status = run(partial(_watch, url, seen, asked), output=output)
    if seen.stopped and not status:  # nobody reads what would be said
        return 0
    found = [] if seen.unreachable else findings_of(seen)
    form = _json if as_json else _text
    if found or as_json:
        said = form(seen, found, output.is_terminal)
        status = run(partial(output.write, said), output=output) or status
    if seen.unreachable:
        raise _NobodyToAsk(seen.failure or "")
    failed = any(finding.mark is Mark.FAIL for finding in found)
    return status or (1 if failed else 0)


async def _watch(url: httpx2.URL, seen: Observation, headers: httpx2.Headers) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_show_progress, seen)
        await observe(url, seen, headers=headers)
        nursery.cancel_scope.cancel()


async def _show_progress(seen: Observation) -> None:
    """Show what goes on, for who waits at a terminal."""
    if not os.isatty(_STDERR):
        return
    began = trio.current_time()
    try:
        while True:
            await trio.sleep(_SHOW)
            click.echo(
                f"\r{_progress(seen, trio.current_time() - began)}\x1b[K", err=True, nl=False
            )
    finally:
        click.echo("\r\x1b[K", err=True, nl=False)


def _progress(seen: Observation, elapsed: float) -> str:
    if seen.resumption is not None:
        return "coming back with an id"
    if seen.body is None:
        return f"waiting for the answer: {elapsed:.0f} of {seen.hold:g} s"
    held = trio.current_time() - seen.body.opened_at
    return f"holding: {held:.0f} of {seen.hold:g} s, {counted(seen.body.events, 'event')}"


def _text(seen: Observation, found: list[Finding], terminal: bool) -> bytes:
    colored = terminal and not os.environ.get("NO_COLOR")
    width = max(len(finding.check) for finding in found)
    lines = []
    for finding in found:
        mark = f"{finding.mark:<4}"
        color = _COLORS[finding.mark]
        mark = click.style(mark, fg=color) if colored and color else mark
        lines.append(f"{mark}  {finding.check:<{width}}  {finding.said}")
        lines += [f"{'':<{width + 8}}- {hint}" for hint in finding.advice]
    marks = [finding.mark for finding in found]
    failed, warned = marks.count(Mark.FAIL), marks.count(Mark.WARN)
    summary = f"{failed} failed, {counted(warned, 'warning')}"
    if seen.stopped:
        summary = f"interrupted; so far {summary}"
    if len(found) > 1 or seen.stopped:
        lines.append(summary)
    return "".join(f"{line}\n" for line in lines).encode(errors="replace")


def _json(seen: Observation, found: list[Finding], terminal: bool) -> bytes:
    checks = [
        {
            "check": finding.check,
            "mark": str(finding.mark),
            "said": finding.said,
            "advice": list(finding.advice),
            **dict(finding.figures),
        }
        for finding in found
    ]
    marks = [finding.mark for finding in found]
    said = {
        "url": seen.address,
        "method": seen.method,
        "failed": marks.count(Mark.FAIL),
        "warnings": marks.count(Mark.WARN),
        "interrupted": seen.stopped,
        "unreachable": seen.failure if seen.unreachable else None,
        "checks": checks,
    }
    return (json.dumps(said, ensure_ascii=terminal) + "\n").encode(errors="replace")
