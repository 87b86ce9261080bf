"""What the demonstration's hub takes and what it refuses, over real sockets."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator

import pytest
from hub_clients import JSON, LINES, Listener, ask, newest, publish, refused
from processes import PENSTOCK, serving

from penstock.demo.hub_routes import MAX_BODY

# What must be refused, each as the body of one event: a part of the message.
BAD_EVENTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "this is not JSON: "),
    "no JSON": (b"{data: 1}", "this is not JSON: "),
    "cut short": (b'{"topics": ["a"], "data": "x', "this is not JSON: "),
    "two objects": (b'{"data": "x"} {"data": "y"}', "this is not JSON: "),
    "not UTF-8": (b'{"topics": ["a"], "data": "\xff"}', "this is not JSON: "),
    "deep": (b"[" * 100_000, "this is not JSON: "),
    "deep, and closed": (b"[" * 100_000 + b"]" * 100_000, "this is not JSON: "),
    "deep data": (
        b'{"topics": ["a"], "data": ' + b"[" * 500 + b"]" * 500 + b"}",
        "data must be text, not list",
    ),
    "a huge number": (b'{"topics": ["a"], "retry": ' + b"9" * 5000 + b"}", "this is not JSON: "),
    "a list": (b'["a"]', 'this is not a JSON object, such as {"data": "'),
    "text": (b'"a"', "this is not a JSON object"),
    "null": (b"null", "this is not a JSON object"),
    "a number": (b"1", "this is not a JSON object"),
    "NaN alone": (b"NaN", "this is not a JSON object"),
    "NaN as data": (b'{"topics": ["a"], "data": NaN}', "data must be text, not float"),
    "a number as data": (b'{"topics": ["a"], "data": 1}', "data must be text, not int"),
    "an object as data": (b'{"topics": ["a"], "data": {}}', "data must be text, not dict"),
    "true as data": (b'{"topics": ["a"], "data": true}', "data must be text, not bool"),
    "a surrogate as data": (b'{"topics": ["a"], "data": "\\ud800"}', "U+D800 is a lone surrogate"),
    "a surrogate as bytes": (
        b'{"topics": ["a"], "data": "\xed\xa0\x80"}',
        "U+D800 is a lone surrogate",
    ),
    "a surrogate as topic": (
        b'{"topics": ["\\udfff"], "data": "x"}',
        "a topic must be expressible in UTF-8",
    ),
    "a surrogate as field": (b'{"\\ud800": 1, "data": "x"}', "there is no field '\\ud800'"),
    "a surrogate as id": (
        b'{"topics": ["a"], "data": "x", "id": "\\ud800"}',
        "U+D800 is a lone surrogate",
    ),
    "a surrogate as name": (
        b'{"topics": ["a"], "data": "x", "event": "\\ud800\\n"}',
        "event must not contain a line end",
    ),
    "an unknown field": (
        b'{"topics": ["a"], "data": "x", "name": "y"}',
        "there is no field 'name': an event has data, event, id, retry, topics",
    ),
    "a comment": (b'{"topics": ["a"], "data": "x", "comment": "y"}', "there is no field 'comment'"),
    "nothing": (b"{}", "an event needs at least one of"),
    "topics only": (b'{"topics": ["a"]}', "an event needs at least one of"),
    "a name without data": (b'{"topics": ["a"], "event": "e"}', "event 'e' has no data"),
    "no topics": (b'{"data": "x"}', "there must be at least one topic"),
    "no topic": (b'{"topics": [], "data": "x"}', "there must be at least one topic"),
    "topics as text": (b'{"topics": "a", "data": "x"}', "topics must be a list of strings: 'a'"),
    "topics as null": (b'{"topics": null, "data": "x"}', "topics must be a list of strings: None"),
    "topics as object": (b'{"topics": {"a": 1}, "data": "x"}', "topics must be a list of strings"),
    "a topic as number": (b'{"topics": ["a", 1], "data": "x"}', "a topic must be text, not int"),
    "a topic as list": (b'{"topics": [["a"]], "data": "x"}', "a topic must be text, not list"),
    "an empty topic": (b'{"topics": ["a", ""], "data": "x"}', "a topic must not be empty"),
    "every topic": (
        b'{"topics": ["*"], "data": "x"}',
        'the topic "*" is reserved: publish on real topics, and subscribe to all of them with '
        "EVERY_TOPIC",
    ),
    "a control character": (
        b'{"topics": ["a\\u0007"], "data": "x"}',
        "a topic must not contain control characters: U+0007 in 'a\\x07'",
    ),
    "NUL in a topic": (
        b'{"topics": ["\\u0000"], "data": "x"}',
        "a topic must not contain control characters: U+0000",
    ),
    "a line end in a topic": (
        b'{"topics": ["a\\nb"], "data": "x"}',
        "a topic must not contain control characters: U+000A",
    ),
    "DEL in a topic": (
        b'{"topics": ["\\u007f"], "data": "x"}',
        "a topic must not contain control characters: U+007F",
    ),
    "a long topic": (
        json.dumps({"topics": ["é" * 512 + "x"], "data": "x"}).encode(),
        "a topic must not be longer than 1024 bytes: this one has 1025",
    ),
    "a line end in the id": (
        b'{"topics": ["a"], "data": "x", "id": "a\\r\\ndata: b"}',
        "id must not contain a line end",
    ),
    "NUL in the id": (
        b'{"topics": ["a"], "data": "x", "id": "\\u0000"}',
        "id must not contain NUL",
    ),
    "a control character in the id": (
        b'{"topics": ["a"], "data": "x", "id": "a\\u001bb"}',
        "an id must not contain control characters: U+001B",
    ),
    "an empty id": (b'{"topics": ["a"], "data": "x", "id": ""}', 'an id must not be ""'),
    "an id of spaces": (
        b'{"topics": ["a"], "data": "x", "id": " "}',
        "an id must not begin or end",
    ),
    "earliest as id": (
        b'{"topics": ["a"], "data": "x", "id": "earliest"}',
        'the id "earliest" is reserved for the beginning of the history',
    ),
    "a long id": (
        json.dumps({"topics": ["a"], "data": "x", "id": "x" * 1025}).encode(),
        "an id must not be longer than 1024 bytes",
    ),
    "a number as id": (b'{"topics": ["a"], "data": "x", "id": 7}', "id must be text, not int"),
    "a number as name": (b'{"topics": ["a"], "data": "x", "event": 7}', "event must be text, not"),
    "a line end in the name": (
        b'{"topics": ["a"], "data": "x", "event": "e\\ndata: y"}',
        "event must not contain a line end",
    ),
    "retry as text": (b'{"topics": ["a"], "data": "x", "retry": "1"}', "retry must be a whole"),
    "retry as float": (b'{"topics": ["a"], "data": "x", "retry": 1.0}', "retry must be a whole"),
    "retry as true": (b'{"topics": ["a"], "data": "x", "retry": true}', "retry must be a whole"),
    "retry below 0": (b'{"topics": ["a"], "data": "x", "retry": -1}', "retry must be from 0 to"),
    "retry without end": (
        b'{"topics": ["a"], "data": "x", "retry": Infinity}',
        "retry must be a whole",
    ),
    "retry beyond bounds": (
        b'{"topics": ["a"], "data": "x", "retry": 2147483648}',
        "retry must be from 0 to 2147483647 milliseconds",
    ),
}

GOOD = b'{"topics": ["a"], "data": "good"}'

# What must be refused as a batch: the line that is named, and a part of the message.
BAD_BATCHES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 1, "line 1: it is empty"),
    "a line end": (b"\n", 1, "line 1: it is empty"),
    "an empty line first": (b"\n" + GOOD, 1, "line 1: it is empty"),
    "an empty line within": (GOOD + b"\n\n" + GOOD, 2, "line 2: it is empty"),
    "a line of spaces": (GOOD + b"\n \t\r\n" + GOOD, 2, "line 2: it is empty"),
    "an empty line last": (GOOD + b"\n\n", 2, "line 2: it is empty"),
    "the last is cut short": (GOOD + b"\n" + GOOD[:-2], 2, "line 2: this is not JSON"),
    "an object on two lines": (b'{"topics": ["a"],\n"data": "x"}', 1, "line 1: this is not JSON"),
    "a list of events": (b"[" + GOOD + b"]", 1, "line 1: this is not a JSON object"),
    "lines that end in CR": (GOOD + b"\r" + GOOD, 1, "line 1: this is not JSON"),
    "the thousandth": ((GOOD + b"\n") * 999 + b"{}", 1000, "line 1000: an event needs"),
    "the first of two bad ones": (GOOD + b"\n1\n{}", 2, "line 2: this is not a JSON object"),
    "a BOM within a line": (GOOD + b"\n {\xef\xbb\xbf}", 2, "line 2: this is not JSON"),
    **{
        f"second line: {name}": (GOOD + b"\n" + body + b"\n" + GOOD, 2, f"line 2: {said}")
        for name, (body, said) in BAD_EVENTS.items()
        if body
    },
}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Serve the demonstration for all tests of the module, on its loopback address."""
    folder = tmp_path_factory.mktemp("hub")
    with serving(PENSTOCK, "serve", "--bind", "127.0.0.1:0", folder=folder) as server:
        yield server.port
        assert "Traceback" not in server.log


@pytest.mark.parametrize("case", BAD_EVENTS)
def test_a_bad_event_is_refused(port: int, case: str) -> None:
    """The answer is 400 with a sentence that says what is wrong, and nothing was published."""
    body, message = BAD_EVENTS[case]
    before = newest(port)
    said = refused(ask(port, "POST", "/publish", body, JSON), 400)
    assert message in said["error"]
    assert said.keys() == {"error"}
    assert newest(port) == before


@pytest.mark.parametrize("case", BAD_BATCHES)
def test_a_batch_with_a_bad_line_is_refused(port: int, case: str) -> None:
    """The answer is 400 and names the line; nothing of the batch was published."""
    body, line, message = BAD_BATCHES[case]
    before = newest(port)
    said = refused(ask(port, "POST", "/publish", body, LINES), 400)
    assert message in said["error"]
    assert said.keys() == {"error", "line"}
    assert said["line"] == line
    assert newest(port) == before


# What is taken, though it is odd: the body of one event, and what is heard of it.
ODD_EVENTS: dict[str, tuple[bytes, str, str | None]] = {
    "the last of two keys counts": (b'{"topics": ["odd"], "data": "x", "data": "y"}', "y", None),
    "empty data": (b'{"topics": ["odd"], "data": ""}', "", None),
    "a BOM": (b'\xef\xbb\xbf{"topics": ["odd"], "data": "x"}', "x", None),
    "white space": (b' \r\n\t{"topics": ["odd"], "data": "x"}\n\n', "x", None),
    "a surrogate pair": (b'{"topics": ["odd"], "data": "\\ud83d\\ude00"}', "😀", None),
    "line ends": (b'{"topics": ["odd"], "data": "a\\r\\nb\\rc\\n"}', "a\nb\nc\n", None),
    "NUL in data": (b'{"topics": ["odd"], "data": "a\\u0000b"}', "a\0b", None),
    "a field in data": (b'{"topics": ["odd"], "data": "a\\nevent: b"}', "a\nevent: b", None),
    "a name": (b'{"topics": ["odd"], "data": "x", "event": "\xc3\xa9"}', "x", "é"),
    "null": (b'{"topics": ["odd"], "data": "x", "id": null, "retry": null}', "x", None),
    "a topic twice": (b'{"topics": ["odd", "odd"], "data": "x"}', "x", None),
    "a topic of 1,024 bytes": (
        json.dumps({"topics": ["odd", "é" * 512], "data": "x"}).encode(),
        "x",
        None,
    ),
}


@pytest.mark.parametrize("case", ODD_EVENTS)
def test_an_odd_event_is_taken(port: int, case: str) -> None:
    """What JSON and the wire can carry is delivered once, as it was given."""
    body, data, name = ODD_EVENTS[case]
    with Listener(port, "?topic=odd").greeted() as listener:
        answer = ask(port, "POST", "/publish", body, JSON)
        assert answer.status == 200, answer.body
        assert answer.said["id"].startswith("urn:uuid:")
        event = listener.event()
        assert (event.data, event.event, event.id) == (data, name, answer.said["id"])
        (last,) = publish(port, {"topics": ["odd"], "data": "last"})
        assert (event := listener.event()).data == "last"
        assert event.id == last


def test_lines_may_end_in_crlf(port: int) -> None:
    """As may the whole, with or without a line end; and a BOM in front is none of it."""
    for index, body in enumerate(
        (
            GOOD + b"\r\n" + GOOD + b"\r\n",
            GOOD + b"\r\n" + GOOD,
            GOOD + b"\n" + GOOD,
            b"\xef\xbb\xbf" + GOOD + b"\n" + GOOD + b"\n",
        )
    ):
        answer = ask(port, "POST", "/publish", body, LINES)
        assert answer.status == 200, (index, answer.body)
        assert len(set(answer.said["ids"])) == 2


def test_topics_of_the_url_are_for_events_without(port: int) -> None:
    """An event's own topics count alone."""
    with (
        Listener(port, "?topic=url/1").greeted() as first,
        Listener(port, "?topic=url/2&topic=url/1").greeted() as both,
        Listener(port, "?topic=url/own").greeted() as own,
    ):
        publish(
            port,
            {"data": "1"},
            {"topics": ["url/own"], "data": "2"},
            {"data": "3"},
            query="?topic=url/1&topic=url/2",
        )
        assert first.data(2) == ["1", "3"]
        assert both.data(2) == ["1", "3"]
        assert own.data(1) == ["2"]
        answer = ask(port, "POST", "/publish?topic=url/own", b'{"data": "4"}', JSON)
        assert answer.status == 200
        assert own.data(1) == ["4"]
        assert first.silent(0.1)
        assert both.silent(0.1)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "application/json, text/plain",
        "text/plain; application/json",
    ],
)
def test_another_content_type_is_refused(port: int, content_type: str | None) -> None:
    """Among them all that a page of another origin may send without asking."""
    before = newest(port)
    headers = {"Content-Type": content_type} if content_type else {}
    said = refused(ask(port, "POST", "/publish", GOOD, headers), 415)
    assert "application/json" in said["error"]
    assert "application/x-ndjson" in said["error"]
    assert newest(port) == before


def test_parameters_of_the_content_type_do_not_matter(port: int) -> None:
    """Nor does its case."""
    for content_type in ("application/json; charset=utf-8", "Application/JSON"):
        answer = ask(port, "POST", "/publish", GOOD, {"Content-Type": content_type})
        assert answer.status == 200, answer.body


def test_a_body_that_is_too_large_is_refused(port: int) -> None:
    """16 MiB are taken, and 413 is the answer to a byte more, however its size is told."""
    line = json.dumps({"topics": ["large"], "data": "x" * 2**20}).encode()[:-2]
    line = line[: 2**20 - 200] + b'"}\n'
    body = line * (MAX_BODY // len(line))
    body += b" " * (MAX_BODY - len(body) - len(GOOD)) + GOOD
    assert len(body) == MAX_BODY
    answer = ask(port, "POST", "/publish", body, LINES)
    assert answer.status == 200, answer.body
    before = newest(port)
    refused(ask(port, "POST", "/publish", body + b"\n", LINES), 413)
    chunked = ask_in_chunks(port, body + b"\n")
    assert chunked.startswith(b"HTTP/1.1 413 ")
    assert newest(port) == before


def ask_in_chunks(port: int, body: bytes) -> bytes:
    """Publish a body whose size is not told before; return the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(
            b"POST /publish HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        answer = bytearray()

        def read() -> None:
            while b"\r\n\r\n" not in answer and (data := client.recv(65536)):
                answer.extend(data)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for start in range(0, len(body), 2**16):
                part = body[start : start + 2**16]
                client.sendall(b"%x\r\n%b\r\n" % (len(part), part))
            client.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # the answer is there already
        reader.join()
        return bytes(answer)


def test_an_announced_size_is_refused_before_it_comes(port: int) -> None:
    """Nobody has to send 17 MB to be told that they are too many."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(
            b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1)
        )
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("headers", [JSON, LINES])
def test_an_event_that_is_too_large_is_refused(port: int, headers: dict[str, str]) -> None:
    """An event has 1 MiB at most, as it goes over the wire."""
    before = newest(port)
    body = json.dumps({"topics": ["large"], "data": "x" * 2**20}).encode()
    said = refused(ask(port, "POST", "/publish", body, headers), 413)
    assert re.search(r"larger than 1,048,576 bytes: this one has 1,0\d\d,\d\d\d", said["error"])
    assert ("line" in said) == (headers is LINES)
    assert newest(port) == before


def test_other_methods(port: int) -> None:
    """One publishes with POST and subscribes with GET."""
    assert ask(port, "GET", "/publish").status == 405
    assert ask(port, "POST", "/subscribe?topic=a", b"").status == 405
    head = ask(port, "HEAD", "/subscribe?topic=a")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Type"] == "text/event-stream"


BAD_SUBSCRIPTIONS = {
    "": "topic: there must be at least one topic",
    "?topic=": "topic: a topic must not be empty",
    "?topic=a&topic=": "topic: a topic must not be empty",
    "?topics=a": "topic: there must be at least one topic",
    "?topic=a%00": "topic: a topic must not contain control characters: U+0000",
    "?topic=a%0Ab": "topic: a topic must not contain control characters: U+000A",
    "?topic=a%C2%85": "topic: a topic must not contain control characters: U+0085",
    f"?topic={'x' * 1025}": "topic: a topic must not be longer than 1024 bytes: this one has 1025",
    "?topic=*&topic=": "topic: a topic must not be empty",
}


@pytest.mark.parametrize("query", BAD_SUBSCRIPTIONS)
def test_a_bad_subscription_is_refused(port: int, query: str) -> None:
    """The answer is 400 with a sentence that says what is wrong."""
    said = refused(ask(port, "GET", f"/subscribe{query}"), 400)
    assert BAD_SUBSCRIPTIONS[query] in said["error"]
