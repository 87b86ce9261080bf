"""The check of resuming: a second connection, with the id of an event of the first one."""

from __future__ import annotations

from typing import Final

from penstock.doctor import advice
from penstock.doctor.body import Examination
from penstock.doctor.decompression import can_unpack, codings_of
from penstock.doctor.finding import Figure, Finding, Mark, quoted, seconds
from penstock.doctor.head_checks import why_not_a_stream
from penstock.doctor.observation import Answer, Observation, Resumption, StreamEnd

__all__ = ["resumed", "to_send"]

# Events. A history has so many, and who comes back after so many has missed something.
_BACK: Final = 4

_IDS: Final = ("the server: give each event an id of its own, and a history to go on from",)
_ANY_ID: Final = ("the server: take any Last-Event-ID; what is unknown begins anew",)
_LOG: Final = ("the server's log says why",)


def to_send(body: Examination) -> tuple[str, str | None] | None:
    """Return the id to go on from, and that of the event that should follow; None if there is none.

    It is one a little before the last: of what comes after the last one, nobody knows what it
    should be, and of what comes right before, ids made of the clock may give it by chance. Nor is
    it the first one: who begins anew would seem to send it again.
    """
    ids = list(body.ids)[-_BACK:]
    if len(ids) > 2 and ids[0] == body.first_id:
        del ids[0]
    if not ids or not ids[0].isprintable():  # a browser would send it; h11 refuses to
        return None
    return (ids[0], ids[1]) if len(ids) > 1 else (ids[0], None)


def resumed(seen: Observation, answer: Answer, body: Examination) -> Finding | None:
    """Check whether a client that reconnects gets what it missed; None if that was not tried."""
    if not seen.is_get:
        said = f"not tried: a {seen.method} is not sent twice, as it may do its work twice"
        return Finding("resume", Mark.SKIP, said)
    if not body.ids:
        if not body.events:
            return Finding("resume", Mark.SKIP, "no event came, and so no id")
        said = "no ids: a client that reconnects loses what was sent meanwhile"
        return Finding("resume", Mark.WARN, said, _IDS, {"ids": 0})
    tried = seen.resumption
    if tried is None:
        if seen.stopped:
            return None
        said = f"not tried: {quoted(body.ids[-1])} is among ids that a header cannot have here"
        return Finding("resume", Mark.SKIP, said)
    again = tried.answer
    figures: dict[str, Figure] = {
        "sent": tried.sent,
        "expected": tried.expected,
        "first": tried.first,
        "status": None if again is None else again.status,
        "content_type": None if again is None else again.header("content-type") or None,
    }
    mark, said, hints = _outcome(seen, tried, body)
    if body.repeated_id is not None and again is not None and again.is_stream:
        mark, hints = Mark.WARN, _IDS
        said = f"several events have the id {quoted(body.repeated_id)}: nothing can go on after it"
    return Finding("resume", mark, said, hints, figures)


def _outcome(
    seen: Observation, tried: Resumption, body: Examination
) -> tuple[Mark, str, tuple[str, ...]]:
    asked = f"after {quoted(tried.sent)}"
    if tried.failure is not None:
        return Mark.FAIL, f"asked to go on {asked}: {tried.failure}", _LOG
    if (answer := tried.answer) is None:
        return Mark.SKIP, "not waited for", ()
    if answer.status == 204:
        return _no_more(seen, tried, asked)
    if (refused := why_not_a_stream(answer)) is not None:
        said, hints = refused
        return Mark.FAIL, f"asked to go on {asked}, it answered {said}", (*_ANY_ID, *hints)
    if not can_unpack(codings_of(answer.header("content-encoding"))):
        coding = quoted(answer.header("content-encoding"))
        return Mark.SKIP, f"asked to go on {asked}, it answered compressed as {coding}", ()
    if (first := tried.first) is None:
        if tried.expected is None or not tried.done:
            waited = seconds(tried.waited)
            return Mark.SKIP, f"{asked} nothing came within {waited} to compare", ()
        said = f"{asked}, {quoted(tried.expected)} did not come again: what is missed is lost"
        return Mark.WARN, said, advice.RESUMING
    if first == tried.expected:
        return Mark.OK, f"{asked} it went on with {quoted(first)}, as before", ()
    if first == tried.sent:
        said = f"{asked} that one came again: clients have it twice"
        return Mark.WARN, said, advice.RESUMING
    before = list(body.ids)[:-_BACK]
    if first == body.first_id or first in before:
        said = f"{asked} it began again with {quoted(first)}: Last-Event-ID does not count"
        return Mark.FAIL, said, advice.RESUMING
    if tried.expected is None:
        said = f"{asked} it went on with {quoted(first)}; what is in between cannot be seen"
        return Mark.SKIP, said, ()
    said = f"{asked} came {quoted(first)}, not {quoted(tried.expected)}: what is missed is lost"
    return Mark.WARN, said, advice.RESUMING


def _no_more(seen: Observation, tried: Resumption, asked: str) -> tuple[Mark, str, tuple[str, ...]]:
    """Judge a 204, after which a browser does not come back."""
    if tried.expected is None:
        return Mark.OK, f"{asked} there is no more (204)", ()
    followed = f"though {quoted(tried.expected)} had followed"
    if seen.end is StreamEnd.HELD:
        said = f"{asked} it answered 204, {followed}, and a browser stays away for good"
        return Mark.FAIL, said, advice.RESUMING
    said = f"{asked} there is no more (204), {followed}: what is missed is lost"
    return Mark.WARN, said, advice.RESUMING
