"""From what was observed to what is said of it: a function, without a clock or a network."""

from __future__ import annotations

from dataclasses import replace

from penstock.doctor.advice import meant_for
from penstock.doctor.finding import Finding
from penstock.doctor.head_checks import (
    answered,
    cached,
    compressed,
    cross_origin,
    negotiated,
    redirected,
)
from penstock.doctor.observation import Observation
from penstock.doctor.resume_checks import resumed
from penstock.doctor.stream_checks import begun, delivered, formed, held

__all__ = ["findings_of"]


def findings_of(seen: Observation) -> list[Finding]:
    """Return a finding for each check that could be made, in the order in which they matter."""
    found = [redirected(seen), answered(seen)]
    answer, body = seen.answer, seen.body
    if answer is not None:
        found.append(cross_origin(seen, answer))
        if answer.is_stream:
            found += [negotiated(answer), cached(answer), compressed(seen)]
            if body is not None:
                found += [check(seen, answer, body) for check in (begun, delivered, formed)]
                found += [held(seen, answer, body), resumed(seen, answer, body)]
    named = "" if answer is None else f"{answer.header('server')} {answer.header('via')}"
    return [
        replace(finding, advice=meant_for(finding.advice, named))
        for finding in found
        if finding is not None
    ]
