"""A client that stops reading, beside others: who feels it, and what it sees when it reads on."""

from __future__ import annotations

import json
import resource
import socket
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
import trio
import trustme
from processes import PENSTOCK, Server, serving

from figures import JUDGED, figure
from penstock import EventStreamDecoder

# Clients of each of the two hubs, which behave. A few do where their lateness is not judged; the
# test is then over long before the kernel gives the stalled client up, after `tcp_user_timeout`.
HEALTHY = 20 if JUDGED else 5

# What is published at each of the two hubs: in blocks, in turns, on each of these topics.
TOPICS = 5
ROUNDS = 5 if JUDGED else 4
BLOCK = 30
SIZE = 2000
TOTAL = ROUNDS * TOPICS * BLOCK

# Publications that may wait for the stalled client.
BUFFER = 200

# Bytes: what its kernel takes, which it doubles, before it takes nothing.
RECEIVE_BUFFER = 4096

# In all, each of which would keep 4 MiB waiting if they did not share it.
STALLED = 1000 if JUDGED else 300


@dataclass
class Received:
    """What a client has received."""

    numbers: list[int] = field(default_factory=list)
    topics: list[str] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    last_event_id: str = ""


class Client:
    """A client of one event stream, over HTTP/1.1."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.received = Received()
        self.ended = False
        self._decoder = EventStreamDecoder(max_event_size=2**21)
        self._rest = b""
        self._size = 0

    async def ask(self, path: str, last_event_id: str = "") -> None:
        """Ask for a stream, and read its beginning, no byte more than comes with it."""
        header = f"Last-Event-ID: {last_event_id}\r\n" if last_event_id else ""
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\n{header}\r\n"
        await self.stream.send_all(request.encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += await self.data()
        assert head.startswith(b"HTTP/1.1 200 "), head
        self.take(head.partition(b"\r\n\r\n")[2])

    async def data(self) -> bytes:
        """Return the next bytes; there must be some."""
        data = bytes(await self.stream.receive_some(65536))
        assert data, "the connection was closed within the stream"
        return data

    async def read(self) -> None:
        """Read what comes next."""
        self.take(await self.data())

    async def until(self, number: int) -> Received:
        """Read until an event with this number has come."""
        while number not in self.received.numbers[-1:]:
            await self.read()
            assert not self.ended, self.received.numbers[-10:]
        return self.received

    async def rest(self) -> Received:
        """Read until the end of the stream, which must be a proper one."""
        while not self.ended:
            await self.read()
        return self.received

    def take(self, data: bytes) -> None:
        """Take bytes of a body that is sent in chunks."""
        rest = self._rest + data if self._rest else data
        while rest:
            if not self._size:
                line, found, behind = rest.partition(b"\r\n")
                if not found:
                    break
                if line == b"0":
                    self.ended = True
                    return
                self._size, rest = int(line, 16) + 2, behind
            part, rest = rest[: self._size], rest[self._size :]
            self._size -= len(part)
            self.hear(part[: len(part) - max(0, 2 - self._size)])  # without the CRLF behind it
        self._rest = rest

    def hear(self, data: bytes) -> None:
        """Take bytes of the event stream."""
        for event in self._decoder.feed(data):
            number, at, _ = (event.data or "").split(" ", 2)
            self.received.numbers.append(int(number))
            self.received.topics.append(event.event or "")
            self.received.late.append(time.monotonic() - float(at))
        self.received.last_event_id = self._decoder.last_event_id


class H2Client(Client):
    """The same over HTTP/2, alone on its connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__(stream)
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))

    async def ask(self, path: str, last_event_id: str = "") -> None:
        """Ask for a stream, and read its beginning."""
        self._h2.initiate_connection()
        fields = {":method": "GET", ":path": path, ":scheme": "https", ":authority": "x"}
        if last_event_id:
            fields["last-event-id"] = last_event_id
        self._h2.send_headers(1, list(fields.items()), end_stream=True)
        self._begun = False
        while not self._begun:
            await self.read()

    async def read(self) -> None:
        """Read what comes next, and let as much follow."""
        await self.stream.send_all(self._h2.data_to_send())
        for event in self._h2.receive_data(await self.data()):
            if isinstance(event, h2.events.ResponseReceived):
                headers: Any = event.headers  # text, as configured; its type says bytes
                assert (":status", "200") in headers
            elif isinstance(event, h2.events.DataReceived):
                self._begun = True
                self._h2.acknowledge_received_data(event.flow_controlled_length, 1)
                self.hear(event.data)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended = True
        if not self.ended:
            await self.stream.send_all(self._h2.data_to_send())


class Hub:
    """The server of `hub_app`, and how to get to it."""

    def __init__(self, server: Server, transport: str, trusted: trustme.CA | None) -> None:
        self.server = server
        self.transport = transport
        self._tls: ssl.SSLContext | None = None
        if trusted is not None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["h2" if transport == "h2" else "http/1.1"])
            trusted.configure_trust(self._tls)

    @asynccontextmanager
    async def client(
        self, query: str, last_event_id: str = "", *, receive_buffer: int | None = None
    ) -> AsyncIterator[Client]:
        """Connect a client for the length of the block, and have its stream begin."""
        stream = await self.connect(receive_buffer)
        try:
            client = H2Client(stream) if self.transport == "h2" else Client(stream)
            await client.ask(f"/subscribe?{query}", last_event_id)
            yield client
        finally:
            await trio.aclose_forcefully(stream)

    async def connect(self, receive_buffer: int | None = None) -> trio.abc.Stream:
        """Return a connection; its socket's buffer is set before, as it must be to be small."""
        connection = trio.socket.socket()
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await connection.connect(("127.0.0.1", self.server.port))
        stream = trio.SocketStream(connection)
        if self._tls is None:
            return stream
        tls = trio.SSLStream(stream, self._tls, server_hostname="127.0.0.1", https_compatible=True)
        await tls.do_handshake()
        return tls

    async def ask(self, method: str, path: str, plan: Any = None) -> Any:
        """Ask for JSON, on a connection of its own; over HTTP/1.1 always."""
        if self._tls is not None:
            self._tls.set_alpn_protocols(["http/1.1"])
        stream = await self.connect()
        if self._tls is not None and self.transport == "h2":
            self._tls.set_alpn_protocols(["h2"])
        async with stream:
            body = b"" if plan is None else json.dumps(plan).encode()
            await stream.send_all(
                f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            answer = b""
            while data := bytes(await stream.receive_some(65536)):
                answer += data
        head, _, said = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        return json.loads(said)

    async def figures(self) -> dict[str, Any]:
        """Return what the application tells of its hub and of the stalled subscriptions."""
        figures: dict[str, Any] = await self.ask("GET", "/figures")
        return figures

    async def publish(
        self, topic: str, count: int, *, size: int = SIZE, pause: float = 0.0005
    ) -> list[float]:
        """Have the application publish so many events on a topic; return how long each took."""
        plan = {"topic": topic, "count": count, "size": size, "pause": pause}
        took: list[float] = await self.ask("POST", "/publish", plan)
        return took


@contextmanager
def hub_served(transport: str, folder: Path) -> Iterator[Hub]:
    """Serve `hub_app` for the length of the block, over TLS where the transport needs it."""
    folder.mkdir()
    options = ["--bind", "127.0.0.1:0", "--send-timeout", "60"]
    authority = None
    if transport != "http":
        authority = trustme.CA()
        identity = authority.issue_cert("127.0.0.1")
        identity.private_key_pem.write_to_path(str(folder / "key.pem"))
        for blob in identity.cert_chain_pems:
            blob.write_to_path(str(folder / "cert.pem"), append=True)
        options += ["--certfile", str(folder / "cert.pem")]
        options += ["--keyfile", str(folder / "key.pem")]
    command = (PENSTOCK, "serve", "hub_app:app", *options)
    with serving(*command, folder=folder, cwd=Path(__file__).parent) as server:
        yield Hub(server, transport, authority)
        assert "Traceback" not in server.log


def topics() -> str:
    return "&".join(f"topic=t/{number}" for number in range(TOPICS))


def p99_of_rounds(lists: list[list[float]]) -> float:
    """Return the median of the rounds' 99th percentiles: one round may have been others' fault."""
    count = TOTAL // ROUNDS
    rounds = [
        [value for values in lists for value in values[n * count : (n + 1) * count]]
        for n in range(ROUNDS)
    ]
    return statistics.median(statistics.quantiles(values, n=100)[98] for values in rounds)


POLICIES = [
    ("http", "disconnect"),
    ("http", "drop_oldest"),
    ("http", "latest"),
    ("tls", "disconnect"),
    ("tls", "drop_oldest"),
    ("h2", "disconnect"),
    ("h2", "drop_oldest"),
    ("h2", "latest"),
]


@pytest.mark.parametrize(("transport", "policy"), POLICIES)
async def test_a_stalled_client_is_its_own_trouble(
    transport: str, policy: str, tmp_path: Path
) -> None:
    """No publisher and no other client feels it, and it then sees what its policy says."""
    query = f"{topics()}&overflow={policy}&buffer={BUFFER}&stalls"
    with (
        trio.fail_after(300),
        hub_served(transport, tmp_path / "beside") as hub,
        hub_served(transport, tmp_path / "without") as other,
    ):
        async with hub.client(query, receive_buffer=RECEIVE_BUFFER) as stalled:
            before = await hub.figures()
            healthy: dict[Hub, list[Received]] = {hub: [], other: []}
            took: dict[Hub, list[float]] = {hub: [], other: []}

            async def run(
                which: Hub, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
            ) -> None:
                async with which.client(topics()) as client:
                    task_status.started()
                    healthy[which].append(await client.until(TOTAL))

            async with trio.open_nursery() as nursery:
                for which in (hub, other) * HEALTHY:
                    await nursery.start(run, which)
                for _ in range(ROUNDS):
                    for topic in range(TOPICS):
                        for which in (other, hub):  # in turns, so that both have the same machine
                            took[which] += await which.publish(f"t/{topic}", BLOCK)
                with trio.fail_after(60):  # all of it, soon after the last one was published
                    while sum(map(len, healthy.values())) < 2 * HEALTHY:  # noqa: ASYNC110
                        await trio.sleep(0.01)
            await trio.sleep(0.05)
            after = await hub.figures()

            publishing = [p99_of_rounds([took[which]]) for which in (hub, other)]
            late = [p99_of_rounds([each.late for each in healthy[which]]) for which in (hub, other)]
            grown = (after["resident"] - before["resident"]) / 2**20
            figure(
                publishing[0] <= 2 * publishing[1] + 0.001 and late[0] <= 2 * late[1] + 0.02,
                f"{transport}, {policy}: await publish p99 {publishing[0] * 1000:.2f} ms beside a "
                f"stalled client, {publishing[1] * 1000:.2f} ms without; the healthy p99 "
                f"{late[0] * 1000:.1f} and {late[1] * 1000:.1f} ms late; "
                f"{grown:+.1f} MB, {after['waiting'][0]} wait, {after['dropped'][0]} dropped",
            )
            for each in healthy[hub] + healthy[other]:
                assert each.numbers == list(range(1, TOTAL + 1))
            assert after["waiting"][0] <= BUFFER
            # The history keeps 1.5 MB of these events.
            assert grown < 16
            assert len(stalled.received.numbers) == 0
            await SEES[policy](hub, stalled, after)


async def sees_its_end(hub: Hub, stalled: Client, figures: dict[str, Any]) -> None:
    """It has a proper end, and goes on where it was."""
    assert figures["reasons"] == ["slow"]
    assert figures["waiting"] == [0]
    assert figures["closed"]["slow"] == 1
    first = await stalled.rest()
    assert first.numbers == list(range(1, len(first.numbers) + 1))
    assert 3 < len(first.numbers) < TOTAL
    assert first.last_event_id == str(first.numbers[-1])
    async with hub.client(topics(), first.last_event_id) as again:
        await again.until(TOTAL)
        assert first.numbers + again.received.numbers == list(range(1, TOTAL + 1))
    hub.server.wait_for_log(r"/subscribe \S+ slow after")


async def sees_the_newest(hub: Hub, stalled: Client, figures: dict[str, Any]) -> None:
    """First what was on its way, then as many of the newest as were allowed to wait."""
    assert figures["reasons"] == [None]
    assert figures["waiting"] == [BUFFER]
    received = await stalled.until(TOTAL)
    first, newest = received.numbers[:-BUFFER], received.numbers[-BUFFER:]
    assert newest == list(range(TOTAL - BUFFER + 1, TOTAL + 1))
    assert first == list(range(1, len(first) + 1))
    assert len(first) > 3
    assert figures["dropped"] == [TOTAL - BUFFER - len(first)]
    await goes_on(hub, stalled)


async def sees_the_latest(hub: Hub, stalled: Client, figures: dict[str, Any]) -> None:
    """First what was on its way, then the newest of each topic."""
    assert figures["reasons"] == [None]
    assert figures["waiting"] == [TOPICS]
    received = await stalled.until(TOTAL)
    first, newest = received.numbers[:-TOPICS], received.numbers[-TOPICS:]
    assert newest == [TOTAL - BLOCK * behind for behind in reversed(range(TOPICS))]
    assert received.topics[-TOPICS:] == [f"t/{topic}" for topic in range(TOPICS)]
    assert len(first) > 3
    assert first == sorted(set(first))
    assert figures["dropped"] == [TOTAL - TOPICS - len(first)]
    await goes_on(hub, stalled)


async def goes_on(hub: Hub, stalled: Client) -> None:
    """Now that it reads, it receives what is published as others do."""
    count = len(stalled.received.numbers)
    # One by one: of two that follow at once, `latest` may well leave the first out.
    for number in range(TOTAL + 1, TOTAL + 7):
        await hub.publish(f"t/{number % 2}", 1)
        await stalled.until(number)
    assert stalled.received.numbers[count:] == list(range(TOTAL + 1, TOTAL + 7))
    assert (await hub.figures())["waiting"] == [0]


SEES = {"disconnect": sees_its_end, "drop_oldest": sees_the_newest, "latest": sees_the_latest}


@pytest.mark.parametrize("policy", ["disconnect", "drop_oldest", "latest"])
async def test_many_stalled_clients(policy: str, tmp_path: Path) -> None:
    """What waits for all of them is in memory once, and nobody else waits for them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, STALLED + 1000), hard))
    events, size = 8, 2**20 - 100
    bounds = f"overflow={policy}&buffer=4&buffer_size={4 * 2**20}&stalls"
    with trio.fail_after(300), hub_served("http", tmp_path / "hub") as hub:
        at_first = await hub.figures()
        async with (
            hub.client("topic=large&buffer_size=16777216") as healthy,
            trio.open_nursery() as nursery,
        ):

            async def run(
                topic: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
            ) -> None:
                query = f"topic={topic}&{bounds}"
                async with hub.client(query, receive_buffer=RECEIVE_BUFFER):
                    task_status.started()
                    await trio.sleep_forever()

            nursery.start_soon(healthy.until, events)
            for _ in range(STALLED):
                await nursery.start(run, "large")
            before = await hub.figures()
            took = await hub.publish("large", events, size=size, pause=0.05)
            with trio.fail_after(60):
                while len(healthy.received.numbers) < events:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            after = await hub.figures()
            grown = (after["resident"] - before["resident"]) / 2**20
            figure(
                max(took) < 1,
                f"{policy}: {STALLED} stalled clients, {events} events of 1 MiB: "
                f"{sum(after['waiting'])} wait, {sum(after['dropped'])} dropped; "
                f"{before['resident'] / 2**20:.0f} MB before, {grown:+.1f} MB; "
                f"publish took {max(took) * 1000:.1f} ms at the most, "
                f"the healthy one was {max(healthy.received.late) * 1000:.0f} ms late",
            )
            assert healthy.received.numbers == list(range(1, events + 1))
            # The events themselves, a task for each client's bytes, and some slack.
            assert grown < 100
            nursery.cancel_scope.cancel()
        while (await hub.figures())["tasks"] != at_first["tasks"]:  # noqa: ASYNC110 - no event
            await trio.sleep(0.05)
