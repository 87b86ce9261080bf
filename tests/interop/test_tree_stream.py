"""The live tree's stream, as it comes over HTTP from a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import Any

from processes import Server

from penstock import EventStreamDecoder, ServerSentEvent


@contextmanager
def watching(server: Server, after: str | None = None) -> Iterator[Iterator[ServerSentEvent]]:
    """Watch for the length of the block; gives the events as they come."""
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("GET", "/tree", headers={"Last-Event-ID": after} if after else {})
        response = connection.getresponse()

        def events() -> Iterator[ServerSentEvent]:
            decoder = EventStreamDecoder()
            while chunk := response.read1():
                yield from decoder.feed(chunk)

        yield events()


def told(event: ServerSentEvent) -> Any:
    return json.loads(event.data or "")


def test_it_tells_all_and_then_what_differs(demo: Server) -> None:
    """Who comes is told who they are, then everything; they find themselves, and are counted."""
    with watching(demo) as events:
        you, snapshot = next(events), next(events)
        assert (you.event, snapshot.event) == ("you", "snapshot")
        names = [node["name"] for node in told(snapshot)["nodes"]]
        assert f"connection {you.data}" in names
        assert f"producer of /tree {you.data}" in names
        assert told(snapshot)["facts"]["figures"]["streams"] >= 1
        change = next(events)
        assert change.event == "change"
        assert change.id != snapshot.id


def test_who_comes_back_is_told_the_difference(demo: Server) -> None:
    """One event makes of what was seen before what is there now: the first connection has gone."""
    with watching(demo) as events:
        me, snapshot = next(events), next(events)
    nodes = {node["id"]: node for node in told(snapshot)["nodes"]}
    with watching(demo, snapshot.id) as events:
        you, change = next(events), next(events)
        assert change.event == "change"
        for node in told(change)["put"]:
            nodes[node["id"]] = node
        for number in told(change)["gone"]:
            del nodes[number]
        while f"connection {me.data}" in [node["name"] for node in nodes.values()]:
            change = next(events)
            for number in told(change)["gone"]:
                del nodes[number]
        assert f"connection {you.data}" in [node["name"] for node in nodes.values()]
        assert change.event == "change"


def test_an_id_of_another_server_is_answered_with_everything(demo: Server) -> None:
    """A server that was started again knows nothing of what was told before."""
    with watching(demo, "0badcafe-12") as events:
        assert [next(events).event for _ in range(2)] == ["you", "snapshot"]
