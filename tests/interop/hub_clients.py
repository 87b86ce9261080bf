"""Clients of a hub over HTTP, for tests that are no tasks of Trio's: one asks, one listens."""

from __future__ import annotations

import json
import time
from collections import deque
from http.client import HTTPConnection, HTTPResponse
from typing import Any, Self

from penstock import EventStreamDecoder, ServerSentEvent

JSON = {"Content-Type": "application/json"}
LINES = {"Content-Type": "application/x-ndjson"}


class Answer:
    """What a server said to a request."""

    def __init__(self, response: HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def said(self) -> Any:
        """The JSON of the body."""
        return json.loads(self.body)


def ask(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    *,
    host: str = "127.0.0.1",
) -> Answer:
    """Make one request, on a connection of its own."""
    connection = HTTPConnection(host, port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        with connection.getresponse() as response:
            return Answer(response)
    finally:
        connection.close()


def publish(port: int, *events: dict[str, Any], query: str = "") -> list[str]:
    """Publish events as a batch, which must be taken; return their ids."""
    body = b"".join(json.dumps(event).encode() + b"\n" for event in events)
    answer = ask(port, "POST", f"/publish{query}", body, LINES)
    assert answer.status == 200, answer.body
    ids: list[str] = answer.said["ids"]
    assert len(ids) == len(events)
    return ids


def refused(answer: Answer, status: int) -> Any:
    """Return the JSON of a refusal, whose sentence is one line."""
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/json"
    said = answer.said
    assert said["error"]
    assert "\n" not in said["error"]
    assert len(said["error"]) < 300
    return said


class Listener:
    """Reads one event stream; leave its block to make it go away."""

    def __init__(self, port: int, query: str, **headers: str) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._heard: deque[ServerSentEvent] = deque()
        self._decoder = EventStreamDecoder()
        self._connection.request("GET", f"/subscribe{query}", headers=headers)
        self.response = self._connection.getresponse()
        self.raw = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.response.close()
        self._connection.close()

    @property
    def last_event_id(self) -> str:
        """What it would send to go on."""
        return self._decoder.last_event_id

    @property
    def retry(self) -> int | None:
        """When the server wants it back, in milliseconds."""
        return self._decoder.retry

    def read(self) -> bool:
        """Read what there is, at least something; tell whether the stream goes on."""
        data = self.response.read1(65536)
        self.raw += data
        self._heard += self._decoder.feed(data)
        return bool(data)

    def greeted(self) -> Self:
        """Wait until the stream has begun."""
        while not self.raw.startswith(b":\n"):
            assert self.read(), self.raw
        return self

    def event(self) -> ServerSentEvent:
        """Return the next event, waiting for it."""
        while not self._heard:
            assert self.read(), self.raw
        return self._heard.popleft()

    def data(self, count: int) -> list[str | None]:
        """Return the data of the next events."""
        return [self.event().data for _ in range(count)]

    def rest(self) -> list[ServerSentEvent]:
        """Return all that comes until the stream's end, which must be a proper one."""
        while self.read():  # raises IncompleteRead where the last chunk is missing
            pass
        return list(self._heard)

    def silent(self, seconds: float) -> bool:
        """Tell whether nothing more is heard for so long; nothing can be read after that."""
        until = time.monotonic() + seconds
        while not self._heard and (left := until - time.monotonic()) > 0:
            self._connection.sock.settimeout(left)
            try:
                if not self.read():
                    break
            except TimeoutError:
                break
        return not self._heard


def newest(port: int) -> str | None:
    """Return the id of the newest position, which is the same as long as nothing is published."""
    with Listener(port, "?topic=nobody-publishes-here") as listener:
        assert listener.response.status == 200
        return listener.response.headers["Last-Event-ID"]
