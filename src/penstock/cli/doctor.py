"""`penstock doctor`: test an event stream, and say what to configure."""

from __future__ import annotations

import json
import os
import re
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import click
import httpx2
import trio

from penstock.cli import Parsed
from penstock.cli.request_options import DATA, HEADER, REQUEST, URL, with_content_type
from penstock.cli.runtime import Output, run
from penstock.client.request import redacted
from penstock.doctor.finding import Finding, Mark
from penstock.doctor.observation import Observation, origin_of
from penstock.doctor.probe import observe
from penstock.doctor.report import findings_of
from penstock.printable import counted

__all__ = ["doctor"]

_EXAMPLES: Final = """\b
Examples:
  penstock doctor https://example.org/events
  penstock doctor --for 70 URL                  does a proxy cut a silent stream?
  penstock doctor --origin https://app.example.org --header 'Cookie: id=…' URL
  penstock doctor --data '{"stream": true}' --header 'Authorization: Bearer …' URL
  penstock doctor --json URL | jq '.checks[] | select(.mark == "FAIL")'
"""

_COLORS: Final = {Mark.OK: "green", Mark.WARN: "yellow", Mark.FAIL: "red", Mark.SKIP: None}

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_HOST: Final = re.compile(r"[A-Za-z0-9.-]+(:[0-9]*)?|\[[0-9A-Fa-f:.]+\](:[0-9]*)?")


def _parse_origin(text: str) -> str:
    """Return an origin as a browser writes it."""
    try:
        parts = urlsplit(text)
        bare = parts.path in ("", "/") and not parts.query and not parts.fragment
        valid = bare and _SCHEME.fullmatch(parts.scheme) and _HOST.fullmatch(parts.netloc)
        origin = origin_of(text) if valid else text
    except ValueError as error:
        raise ValueError(f"{text!r} is not an origin: {error}") from error
    if not valid and text != "null":
        raise ValueError(f"{text!r} is not an origin, such as https://app.example.org")
    return origin


def _parse_seconds(text: str) -> float:
    """Return a number of seconds, up to a day."""
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number of seconds") from None
    if not 0 < seconds <= 86400:
        raise ValueError(f"{text!r} must be more than 0 and at most a day (86400)")
    return seconds


class _Unreachable(click.ClickException):
    """The request could not be sent, so nothing could be checked."""

    exit_code = 2


@click.command(epilog=_EXAMPLES)
@click.argument("url", type=URL)
@click.option(
    "hold",
    "--for",
    type=Parsed("SECONDS", _parse_seconds),
    default=20.0,
    metavar="SECONDS",
    help="How long to wait for the response, and then to hold the stream. [default: 20]",
)
@click.option(
    "--origin",
    type=Parsed("ORIGIN", _parse_origin),
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
    """Test the event stream at URL, of any server, behind any proxies.

    Requests the stream as a browser does, holds it, and reconnects with the id of an event. Prints
    a line for each check (ok, warn, FAIL, or skip if there was no evidence) and what to change.

    With --data, the request is a POST, or what --request says. A request other than GET is sent
    only once: not again for an uncompressed response, nor to reconnect.

    It takes as long as --for says, and up to 10 s more to reconnect. After Ctrl-C it prints what it
    found so far.

    Exit status: 0 if no check failed, 1 if one did, 2 if the server cannot be reached or for wrong
    usage, 130 after Ctrl-C, 143 after SIGTERM.
    """
    sent = httpx2.Headers(with_content_type(headers, data))
    method = method or ("GET" if data is None else "POST")
    seen = Observation(redacted(url), hold, origin, method, data)
    output = Output()
    status = run(
        partial(observe, url, seen, headers=sent),
        output=output,
        progress=lambda: _progress(seen),
    )
    if seen.stopped and not status:  # nobody would read the findings
        return 0
    found = [] if seen.unreachable else findings_of(seen)
    report = _json if as_json else _text
    if found or as_json:
        text = report(seen, found, output.is_terminal)
        status = run(partial(output.write, text), output=output) or status
    if seen.unreachable:
        raise _Unreachable(seen.failure or "")
    failed = any(finding.mark is Mark.FAIL for finding in found)
    return status or (1 if failed else 0)


def _progress(seen: Observation) -> str:
    if seen.resumption is not None:
        return "reconnecting with the id of an event"
    if seen.body is None:
        return f"waiting up to {seen.hold:g} s for the response"
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
        lines.append(f"{mark}  {finding.check:<{width}}  {finding.summary}")
        lines += [f"{'':<{width + 8}}- {line}" for line in finding.advice]
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
            "summary": finding.summary,
            "advice": list(finding.advice),
            **dict(finding.figures),
        }
        for finding in found
    ]
    marks = [finding.mark for finding in found]
    report = {
        "url": seen.address,
        "method": seen.method,
        "failed": marks.count(Mark.FAIL),
        "warnings": marks.count(Mark.WARN),
        "interrupted": seen.stopped,
        "unreachable": seen.failure if seen.unreachable else None,
        "checks": checks,
    }
    return (json.dumps(report, ensure_ascii=terminal) + "\n").encode(errors="replace")
