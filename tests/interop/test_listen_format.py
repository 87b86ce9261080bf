"""`penstock listen --json` reads the examples of the specification, and our own cases."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
from cli_steps import listening
from scripted import CHUNKED, OPEN, scripted

from wire import DECODED

# How many listeners share the cases.
LISTENERS = 12

SPECIFIED: dict[str, tuple[bytes, list[dict[str, str | None]]]] = {
    "the stock ticker": (
        b"data: YHOO\ndata: +2\ndata: 10\n\n",
        [{"id": None, "event": None, "data": "YHOO\n+2\n10"}],
    ),
    "a comment and ids": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\n"
        b"data:  third event\n\n",
        [
            {"id": "1", "event": None, "data": "first event"},
            {"id": None, "event": None, "data": "second event"},
            {"id": None, "event": None, "data": " third event"},
        ],
    ),
    "empty data, and data of one line end": (
        b"data\n\ndata\ndata\n\ndata:",
        [
            {"id": None, "event": None, "data": ""},
            {"id": None, "event": None, "data": "\n"},
        ],
    ),
    "a space after the colon": (
        b"data:test\n\ndata: test\n\n",
        [{"id": None, "event": None, "data": "test"}] * 2,
    ),
    "event types": (
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
        [
            {"id": None, "event": "add", "data": "73857293"},
            {"id": None, "event": "remove", "data": "2153"},
            {"id": None, "event": "add", "data": "113411"},
        ],
    ),
}


def _fixtures() -> dict[str, tuple[bytes, list[dict[str, str | None]]]]:
    """Return the specification's examples, and our table of wire cases."""
    table: dict[str, tuple[bytes, list[dict[str, str | None]]]] = dict(SPECIFIED)
    for name, case in DECODED.items():
        events: list[dict[str, str | None]] = [
            {
                "id": each.last_event_id or None,
                "event": None if each.type == "message" else each.type,
                "data": each.data,
            }
            for each in case.heard
        ]
        # A case that sets the reconnection time would be waited for: it is set back.
        table[name] = (case.wire + (b"\n\nretry: 1\n" if case.retry else b""), events)
    return table


def _whole(wire: bytes) -> Sequence[bytes | float]:
    return [OPEN, wire]


def _byte_by_byte(wire: bytes) -> Sequence[bytes | float]:
    return [CHUNKED, b"".join(b"1\r\n%c\r\n" % byte for byte in wire[:20_000]), b"0\r\n\r\n"]


async def _listen(
    fixtures: dict[str, tuple[bytes, list[dict[str, str | None]]]],
    cut: Callable[[bytes], Sequence[bytes | float]],
    heard: dict[str, list[Any]],
) -> None:
    """Have `penstock listen` read each of these streams, one behind the other."""
    answers: list[Sequence[bytes | float]] = []
    for name, (wire, _) in fixtures.items():
        # Between two streams: no id is left of the one before, and the next is asked for soon.
        mark = json.dumps(name)
        answers += [[OPEN, f"id\nretry: 1\ndata: {mark}\nevent: case\n\n".encode()], cut(wire)]
    async with scripted(*answers) as server:
        ran = await listening(server.url, "--json")
    assert ran.returncode == 0
    current: list[Any] = []
    for line in ran.stdout.decode().split("\n")[:-1]:
        event = json.loads(line)
        if event["event"] == "case":
            heard[json.loads(event["data"])] = current = []
            continue
        if event["event"] == "message":  # a name as any other; a browser's default, too
            event["event"] = None
        current.append(event)


@pytest.mark.parametrize("cut", [_whole, _byte_by_byte])
async def test_a_public_format(cut: Callable[[bytes], Sequence[bytes | float]]) -> None:
    """The specification's examples and our own cases are printed correctly."""
    fixtures = _fixtures()
    if cut is _byte_by_byte:
        fixtures = {name: case for name, case in fixtures.items() if len(case[0]) < 20_000}
    names = list(fixtures)
    heard: dict[str, list[Any]] = {}
    async with trio.open_nursery() as nursery:
        # Side by side: between two streams there is the shortest reconnection time.
        for first in range(LISTENERS):
            part = {name: fixtures[name] for name in names[first::LISTENERS]}
            nursery.start_soon(_listen, part, cut, heard)
    assert heard == {name: events for name, (_, events) in fixtures.items()}
