"""From an observation to findings: all checks in order, and the check of resumption.

Rule: a finding is a function of the observation, without a clock or a network.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from penstock.doctor.body import Examination, can_unpack
from penstock.doctor.body_checks import delivery, first_byte, held, well_formed
from penstock.doctor.finding import RESUMING, Figure, Finding, Mark, applicable, quoted, seconds
from penstock.doctor.head_checks import (
    caching,
    compression,
    cors,
    protocol,
    redirects,
    response,
    why_not_a_stream,
)
from penstock.doctor.observation import RESUME_BACK, Observation, Resumption, StreamEnd

__all__ = ["findings_of"]

_UNIQUE_IDS: Final = ("the server: give each event a unique id, and keep a history to resume from",)
_ANY_ID: Final = (
    "the server: accept any Last-Event-ID; with an unknown one, start from the beginning",
)
_LOG: Final = ("the reason is in the server's log",)


def findings_of(seen: Observation) -> list[Finding]:
    """Return a finding for each check that could be made, in order of importance."""
    found = [redirects(seen), response(seen)]
    answer, body = seen.answer, seen.body
    if answer is not None:
        found.append(cors(seen, answer))
        if answer.is_stream:
            found += [protocol(answer), caching(answer), compression(seen)]
            if body is not None:
                found += [check(seen, answer, body) for check in (first_byte, delivery)]
                found += [well_formed(seen, body), held(seen, answer, body), resume(seen, body)]
    named = "" if answer is None else f"{answer.header('server')} {answer.header('via')}"
    return [
        replace(finding, advice=applicable(finding.advice, named))
        for finding in found
        if finding is not None
    ]


def resume(seen: Observation, body: Examination) -> Finding | None:
    """Check whether a client that reconnects gets what it missed; None if that was not tried."""
    if not seen.is_get:
        text = f"not tried: a {seen.method} is not sent twice, as it might do its work twice"
        return Finding("resume", Mark.SKIP, text)
    if not body.ids:
        if not body.events:
            return Finding("resume", Mark.SKIP, "no events, so no ids")
        text = "no ids: a client that reconnects misses what was sent in between"
        return Finding("resume", Mark.WARN, text, _UNIQUE_IDS, {"ids": 0})
    tried = seen.resumption
    if tried is None:
        if seen.stopped:
            return None
        text = f"not tried: {quoted(body.ids[-1])} is among ids that cannot be sent in a header"
        return Finding("resume", Mark.SKIP, text)
    again = tried.answer
    figures: dict[str, Figure] = {
        "sent": tried.sent,
        "expected": tried.expected,
        "first": tried.first,
        "status": None if again is None else again.status,
        "content_type": None if again is None else again.header("content-type") or None,
    }
    mark, text, advice = _judge(seen, tried, body)
    if body.repeated_id is not None and again is not None and again.is_stream:
        mark, advice = Mark.WARN, _UNIQUE_IDS
        text = f"several events have the id {quoted(body.repeated_id)}: resuming is ambiguous"
    return Finding("resume", mark, text, advice, figures)


def _judge(
    seen: Observation, tried: Resumption, body: Examination
) -> tuple[Mark, str, tuple[str, ...]]:
    """Return the mark, what to say, and the advice for a reconnection."""
    after = f"after {quoted(tried.sent)}"
    if tried.failure is not None:
        return Mark.FAIL, f"reconnecting {after}: {tried.failure}", _LOG
    if (answer := tried.answer) is None:
        return Mark.SKIP, "interrupted", ()
    if answer.status == 204:
        return _judge_no_more(seen, tried, after)
    if (refused := why_not_a_stream(answer)) is not None:
        text, advice = refused
        return Mark.FAIL, f"reconnecting {after}, it answered {text}", (*_ANY_ID, *advice)
    if not can_unpack(answer.coding):
        text = f"reconnecting {after}, the response was compressed as {quoted(answer.coding)}"
        return Mark.SKIP, text, ()
    if (first := tried.first) is None:
        if tried.expected is None or not tried.done:
            return Mark.SKIP, f"{after}, no event with an id within {seconds(tried.waited)}", ()
        text = f"{after}, {quoted(tried.expected)} was not sent again: missed events are lost"
        return Mark.WARN, text, RESUMING
    if first == tried.expected:
        return Mark.OK, f"{after}, it continued with {quoted(first)}, as before", ()
    if first == tried.sent:
        return Mark.WARN, f"{after}, that event was sent again: clients get it twice", RESUMING
    before = list(body.ids)[:-RESUME_BACK]
    if first == body.first_id or first in before:
        text = f"{after}, it began again with {quoted(first)}: Last-Event-ID is ignored"
        return Mark.FAIL, text, RESUMING
    if tried.expected is None:
        text = f"{after}, it continued with {quoted(first)}; events in between would not be noticed"
        return Mark.SKIP, text, ()
    text = (
        f"{after}, {quoted(first)} followed, not {quoted(tried.expected)}: missed events are lost"
    )
    return Mark.WARN, text, RESUMING


def _judge_no_more(
    seen: Observation, tried: Resumption, after: str
) -> tuple[Mark, str, tuple[str, ...]]:
    """Judge a 204, after which a browser does not reconnect."""
    if tried.expected is None:
        return Mark.OK, f"{after}, there are no more events (204)", ()
    followed = f"though {quoted(tried.expected)} had followed"
    if seen.end is StreamEnd.HELD:
        text = f"{after}, it answered 204, {followed}: a browser never reconnects"
        return Mark.FAIL, text, RESUMING
    text = f"{after}, there are no more events (204), {followed}: missed events are lost"
    return Mark.WARN, text, RESUMING
