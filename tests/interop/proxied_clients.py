"""Clients of an application behind a proxy, over HTTP/1.1 and HTTP/2, and what serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import h2.connection
import h2.events
import httpx2
from processes import PENSTOCK, Server, serving
from proxied import Proxy

from penstock import EventStreamDecoder, ServerSentEvent

APP = ("proxied_app:app", Path(__file__).parent)
DEMO = ("penstock.demo.asgi:app", None)


@contextmanager
def penstock(
    folder: Path, port: int = 0, app: tuple[str, Path | None] = APP, *options: str
) -> Iterator[Server]:
    """Serve an application with `penstock serve`."""
    name, cwd = app
    command = (PENSTOCK, "serve", name, "--bind", f"127.0.0.1:{port}", *options)
    with serving(*command, folder=folder, cwd=cwd) as server:
        assert server.port == (port or server.port)  # it listens
        yield server


@contextmanager
def client_of(proxy: Proxy, version: str = "HTTP/2") -> Iterator[httpx2.Client]:
    two = version == "HTTP/2"
    trusted = proxy.place.certificate.trusted()
    limits = httpx2.Limits(max_connections=None)
    with httpx2.Client(
        http1=not two, http2=two, verify=trusted, base_url=proxy.url, timeout=60, limits=limits
    ) as client:
        assert client.get("/headers").http_version == version
        yield client


class Stream:
    """Reads one event stream."""

    def __init__(self, response: httpx2.Response) -> None:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        self.response = response
        self._parts = response.iter_raw()
        self._decoder = EventStreamDecoder()
        self._heard: list[ServerSentEvent] = []
        self.raw = b""

    def read(self) -> bool:
        """Read what there is, at least something; tell whether the stream goes on."""
        part = next(self._parts, b"")
        self.raw += part
        self._heard += self._decoder.feed(part)
        return bool(part)

    def event(self) -> ServerSentEvent:
        """Return the next event, waiting for it."""
        while not self._heard:
            assert self.read(), self.raw
        return self._heard.pop(0)

    def rest(self) -> list[ServerSentEvent]:
        """Return all that comes until the stream's end, which httpx2 takes only if it is proper."""
        while self.read():
            pass
        return self._heard

    @property
    def retry(self) -> int | None:
        return self._decoder.retry


@contextmanager
def listening(client: httpx2.Client, path: str, **headers: str) -> Iterator[Stream]:
    given = {"Accept": "text/event-stream", **headers}
    with client.stream("GET", path, headers=given) as response:
        yield Stream(response)


def opened(proxy: Proxy, protocol: str, path: str) -> Any:
    """Return a connection on which a stream has begun."""
    connection: Any = proxy.connect(alpn=protocol)
    if protocol == "h2":
        http = connection.h2 = h2.connection.H2Connection()
        http.initiate_connection()
        names = {":method": "GET", ":path": path, ":scheme": "https", ":authority": "localhost"}
        http.send_headers(1, list(names.items()), end_stream=True)
        connection.sendall(http.data_to_send())
    else:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    received = b""
    while b"hello" not in received:
        data = connection.recv(65536)
        assert data, received
        received += data
    return connection


class One:
    """A stream on an HTTP/1.1 connection of its own."""

    def __init__(self, proxy: Proxy, path: str) -> None:
        context = proxy.place.certificate.trusted()
        self._connection = HTTPSConnection(
            "localhost", proxy.place.https, timeout=60, context=context
        )
        self._connection.request("GET", path)
        self._response = self._connection.getresponse()
        self._decoder = EventStreamDecoder()
        self._heard: list[str | None] = []

    def read(self, enough: Callable[[list[str | None]], bool]) -> None:
        while not enough(self._heard):
            part = self._response.read1(65536)
            assert part, self._heard
            self._heard += [event.data for event in self._decoder.feed(part)]

    def close(self) -> None:
        self._response.close()
        self._connection.close()


class Fifty:
    """Fifty streams on one HTTP/2 connection."""

    def __init__(self, proxy: Proxy, path: str) -> None:
        self._connection = proxy.connect(alpn="h2")
        self._http = h2.connection.H2Connection()
        self._http.initiate_connection()
        names = {":method": "GET", ":path": path, ":scheme": "https", ":authority": "localhost"}
        self._decoders = {number: EventStreamDecoder() for number in range(1, 101, 2)}
        self._heard: dict[int, list[str | None]] = {number: [] for number in self._decoders}
        for number in self._decoders:
            self._http.send_headers(number, list(names.items()), end_stream=True)
        self._connection.sendall(self._http.data_to_send())

    def read(self, enough: Callable[[list[str | None]], bool]) -> None:
        while not all(map(enough, self._heard.values())):
            part = self._connection.recv(65536)
            assert part, self._heard
            for event in self._http.receive_data(part):
                if isinstance(event, h2.events.DataReceived):
                    events = self._decoders[event.stream_id].feed(event.data)
                    self._heard[event.stream_id] += [each.data for each in events]
                    self._http.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id
                    )
            self._connection.sendall(self._http.data_to_send())

    def close(self) -> None:
        self._connection.close()
