"""Going on behind an id at the demonstration's hub, over real sockets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hub_clients import Listener, publish
from processes import PENSTOCK, Server, serving


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Serve the demonstration for all tests of the module, on its loopback address."""
    folder = tmp_path_factory.mktemp("hub")
    with serving(PENSTOCK, "serve", "--bind", "127.0.0.1:0", folder=folder) as server:
        yield server.port
        assert "Traceback" not in server.log


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[int]:
    """Serve the demonstration with a hub of the test's own."""
    with serving(PENSTOCK, "serve", "--bind", "127.0.0.1:0", folder=tmp_path) as server:
        yield server.port
        assert "Traceback" not in server.log


def test_how_a_stream_begins(fresh: int) -> None:
    """A comment at once, when to come back, and where to go on; from an empty hub, with all."""
    with Listener(fresh, "?topic=a") as empty:
        position = empty.response.headers["Last-Event-ID"]
        assert position.startswith("urn:penstock:position:")
        while not empty.last_event_id:
            empty.read()
        assert empty.raw == b":\nretry: 1000\nid: %b\n\n" % position.encode()
    (first,) = publish(fresh, {"topics": ["elsewhere"], "data": "x"})
    with Listener(fresh, "?topic=a") as listener:
        position = listener.response.headers["Last-Event-ID"]
        assert position.startswith("urn:penstock:position:")
        assert first not in str(listener.response.headers)
        assert listener.response.headers["Content-Type"] == "text/event-stream"
        assert listener.response.headers["Cache-Control"] == "no-cache"
        while not listener.last_event_id:
            listener.read()
        assert listener.raw == b":\nretry: 1000\nid: %b\n\n" % position.encode()


By = Callable[[str], tuple[str, dict[str, str]]]


def by_header(id_: str) -> tuple[str, dict[str, str]]:
    return "", {"Last-Event-ID": id_.encode().decode("latin-1")}


def by_query(id_: str) -> tuple[str, dict[str, str]]:
    return f"&last_event_id={quote(id_)}", {}


def resume(port: int, query: str, by: By, id_: str) -> Listener:
    more, headers = by(id_)
    return Listener(port, f"{query}{more}", **headers)


@pytest.mark.parametrize("by", [by_header, by_query])
def test_one_goes_on_behind_an_id(port: int, by: By) -> None:
    """What was published behind it on one's topics comes, in its order, and then what is new."""
    topics = ["a", "b", "c"]
    ids = publish(port, *({"topics": [topics[n % 3]], "data": str(n)} for n in range(900)))
    for id_, number in ((ids[0], 0), (ids[500], 500), (ids[-1], 899)):
        with resume(port, "?topic=a&topic=c", by, id_) as listener:
            assert listener.response.headers["Last-Event-ID"] == id_
            expected = [str(n) for n in range(number + 1, 900) if n % 3 != 1]
            assert listener.data(len(expected)) == expected
            publish(port, {"topics": ["b"], "data": "b"}, {"topics": ["c"], "data": "new"})
            assert listener.data(1) == ["new"]
            publish(port, {"topics": ["a"], "data": "newer"})
            assert listener.data(1) == ["newer"]
            assert listener.raw.startswith(b":\nretry: 1000\nid: ")


@pytest.mark.parametrize("by", [by_header, by_query])
def test_earliest_is_all_there_is(fresh: int, by: By) -> None:
    """And with `*`, on every topic."""
    publish(fresh, *({"topics": [f"t{n}"], "data": str(n)} for n in range(600)))
    with resume(fresh, "?topic=*", by, "earliest") as listener:
        assert "Last-Event-ID" not in listener.response.headers
        assert listener.data(600) == [str(n) for n in range(600)]
    with resume(fresh, "?topic=t7&topic=none", by, "earliest") as listener:
        assert listener.data(1) == ["7"]
        assert listener.silent(0.1)


def test_the_header_counts_before_the_query(port: int) -> None:
    """A browser's EventSource repeats its URL, and adds the header when it comes back."""
    ids = publish(port, *({"topics": ["a"], "data": str(n)} for n in range(3)))
    with Listener(port, f"?topic=a&last_event_id={ids[0]}", **{"Last-Event-ID": ids[1]}) as again:
        assert again.data(1) == ["2"]


@pytest.mark.parametrize(
    "id_", ["é漢😀", "a b", "a+b&c=d%20", "1" * 1024, "é" * 512, "a: b", '"', "null", "*"]
)
def test_an_id_of_any_shape_comes_back(port: int, id_: str) -> None:
    """What was taken as an id is found by it, and is in the header."""
    publish(port, {"topics": ["a"], "data": "1", "id": id_}, {"topics": ["a"], "data": "2"})
    for by in (by_header, by_query):
        with resume(port, "?topic=a", by, id_) as listener:
            assert listener.response.headers["Last-Event-ID"].encode("latin-1").decode() == id_
            assert listener.data(1) == ["2"]


UNKNOWN_IDS = ["x", "urn:uuid:0", "😀漢é", "1" * 8000, "earliest ", "EARLIEST", "a\tb", "'--"]


@pytest.mark.parametrize("id_", UNKNOWN_IDS)
@pytest.mark.parametrize("by", [by_header, by_query])
def test_an_id_that_is_not_there_is_a_gap(port: int, by: By, id_: str) -> None:
    """The stream begins with an event that says so, goes on with what is new, and has one gap."""
    publish(port, {"topics": ["a"], "data": "missed"})
    if by is by_header:
        id_ = id_.strip()  # which is no part of a header's value
    if id_ == "earliest":
        return
    with resume(port, "?topic=a", by, id_) as listener:
        there = listener.response.headers["Last-Event-ID"]
        assert there.startswith("urn:penstock:position:")
        gap = listener.event()
        assert gap.event == "gap"
        assert json.loads(gap.data or "") == {"last_event_id": id_}
        assert gap.id == there
        publish(port, {"topics": ["a"], "data": "new"})
        assert listener.data(1) == ["new"]
    with resume(port, "?topic=a", by, there) as again:
        assert again.data(1) == ["new"]


@pytest.mark.parametrize(
    "value", ["%00", "%0A", "%0D%0Adata:%20x%0A%0A", "%FF", "%ED%A0%80", "%C2%80", "%7F", "%20"]
)
def test_an_id_that_nobody_could_have_is_a_gap_too(port: int, value: str) -> None:
    """Whatever a query can carry; nothing of it gets into the stream but as JSON."""
    publish(port, {"topics": ["a"], "data": "missed"})
    with Listener(port, f"?topic=a&last_event_id={value}") as listener:
        assert listener.response.status == 200
        position = listener.response.headers["Last-Event-ID"]
        assert position.startswith("urn:penstock:position:")
        assert listener.event().event == "gap"
        publish(port, {"topics": ["a"], "data": "new"})
        assert listener.data(1) == ["new"]


def test_an_empty_id_is_none(port: int) -> None:
    """As EventSource has it: who knows of no event begins with what is new."""
    publish(port, {"topics": ["a"], "data": "missed"})
    for query, headers in (("&last_event_id=", {}), ("", {"Last-Event-ID": ""})):
        with Listener(port, f"?topic=a{query}", **headers).greeted() as listener:
            publish(port, {"topics": ["a"], "data": "new"})
            event = listener.event()
            assert (event.event, event.data) == (None, "new")


def test_an_id_that_is_not_utf_8_is_refused(port: int) -> None:
    """No EventSource sends one."""
    with Listener(port, "?topic=a", **{"Last-Event-ID": "\xff"}) as listener:
        assert listener.response.status == 400


def test_what_the_history_has_lost_is_a_gap(fresh: int) -> None:
    """The demonstration's memory keeps 10,000: an id before them is not known any more."""
    (old,) = publish(fresh, {"topics": ["a"], "data": "old"})
    ids = publish(fresh, *({"topics": ["a"], "data": str(n)} for n in range(10_000)))
    with Listener(fresh, "?topic=a", **{"Last-Event-ID": old}) as listener:
        assert listener.data(10_000) == [str(n) for n in range(10_000)]  # nothing behind it is lost
    publish(fresh, {"topics": ["a"], "data": "new"})
    with Listener(fresh, "?topic=a", **{"Last-Event-ID": old}) as listener:
        assert listener.response.headers["Last-Event-ID"] != old
        assert listener.event().event == "gap"
    with Listener(fresh, "?topic=a", **{"Last-Event-ID": ids[0]}) as listener:
        assert listener.data(10_000) == [*(str(n) for n in range(1, 10_000)), "new"]
    with Listener(fresh, "?topic=a&last_event_id=earliest") as listener:
        assert listener.data(10_000) == [*(str(n) for n in range(1, 10_000)), "new"]


# The topic with a producer


def test_ticks_are_made_while_somebody_listens(demo: Server) -> None:
    """One producer for all: each hears the same ticks, and who comes back goes on behind his."""
    with (
        Listener(demo.port, "?topic=ticks").greeted() as first,
        Listener(demo.port, "?topic=ticks&topic=other").greeted() as second,
    ):
        ticks = [first.event(), first.event()]
        assert [second.event(), second.event()] == ticks
        for tick in ticks:
            assert tick.data == tick.id
            assert abs(int(tick.data or "") - time.time()) < 3
        assert int(ticks[1].data or "") - int(ticks[0].data or "") in (1, 2, 3)
    with Listener(demo.port, "?topic=ticks", **{"Last-Event-ID": ticks[0].id or ""}) as again:
        assert again.event() == ticks[1]
        assert int(again.event().data or "") > int(ticks[1].data or "")
    with Listener(demo.port, "?topic=other").greeted() as other:
        assert other.silent(2.5)
