"""Attack a server beside a good client, and print what each attack bought.

    python attacks.py [--server-python PATH] [--seconds N] [--connections 1,50] [NAME ...]

PATH is the Python of an environment in which a Penstock is installed, also an older one: so before
and after are measured by the same program. NAME chooses attacks by a part of their names.

Ten good clients, in a process of their own, have an event each 50 ms over HTTP/1.1. The times are
from when an event was due until its client had it. This measures, and judges nothing: the tests
that judge are in `tests/interop/test_floods.py`, and count what does not depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import attacks_bytes as made
import trio
import trustme

HERE: Final = Path(__file__).parent

GOOD: Final = """
import selectors, socket, sys, time
clients = selectors.DefaultSelector()
for _ in range(10):
    client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    client.sendall(b"GET /sse HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    clients.register(client, selectors.EVENT_READ)
    time.sleep(0.005)
while True:
    for key, _ in clients.select():
        for line in key.fileobj.recv(65536).splitlines():
            if line.startswith(b"data: "):
                print(time.monotonic() - float(line[6:]), time.monotonic(), flush=True)
"""


@dataclass
class Attacked:
    """A server under attack."""

    process: subprocess.Popen[bytes]
    port: int
    tls_port: int

    def figures(self) -> dict[str, float]:
        """Ask the server what it holds; it may be busy."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=120) as client:
            client.sendall(b"GET /figures HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        figures: dict[str, float] = json.loads(answer.partition(b"\r\n\r\n")[2])
        return figures

    def connect(self, *, tls: bool = False) -> socket.socket:
        """Return a connection."""
        port = self.tls_port if tls else self.port
        return socket.create_connection(("127.0.0.1", port), timeout=100)


@dataclass
class Result:
    """One row of the table."""

    name: str
    late: list[float]
    grown: float | None = None
    note: str = ""

    def __str__(self) -> str:
        late = sorted(self.late)
        times = " " * 20
        if late:
            figures = (late[len(late) // 2], late[int(len(late) * 0.99)], late[-1])
            times = " ".join(f"{figure * 1000:6.0f}" for figure in figures)
        grown = "      -" if self.grown is None else f"{self.grown:+7.1f}"
        return f"{self.name:45} {times} {grown}  {self.note}"


@contextmanager
def attacked(python: str) -> Iterator[Attacked]:
    """Serve while the block runs."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        identity = trustme.CA().issue_cert("127.0.0.1")
        files = [str(Path(folder, name)) for name in ("cert.pem", "key.pem")]
        identity.cert_chain_pems[0].write_to_path(files[0])
        identity.private_key_pem.write_to_path(files[1])
        process = stack.enter_context(
            subprocess.Popen(
                [python, str(HERE / "attacks_server.py"), *files],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        )
        try:
            assert process.stdout is not None
            yield Attacked(process, *json.loads(process.stdout.readline()))
        finally:
            process.kill()


@contextmanager
def beside_a_good_client(server: Attacked) -> Iterator[list[float]]:
    """Run a good client while the block runs; then its list has how late its events were."""
    late: list[float] = []
    with subprocess.Popen(
        [sys.executable, "-c", GOOD, str(server.port)], stdout=subprocess.PIPE
    ) as good:
        time.sleep(1)
        begun = time.monotonic()
        try:
            yield late
        finally:
            good.kill()
            assert good.stdout is not None
            for line in good.stdout.read().decode().splitlines():
                with suppress(ValueError):  # it was killed while it wrote
                    lateness, at = map(float, line.split())
                    if at > begun:
                        late.append(lateness)


def flood(python: str, name: str, seconds: float, connections: int) -> Result:
    """Send something again and again on so many connections; those that are closed come back."""
    first, again = made.FLOODS[name]()
    closed = 0
    calm = False

    async def attack(port: int) -> None:
        nonlocal closed
        while True:
            with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    await stream.send_all(first)
                    if first == made.HANDSHAKE:
                        await stream.receive_some()
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(listen, stream, nursery.cancel_scope)
                        with suppress(trio.BrokenResourceError):
                            while True:
                                await stream.send_all(again)
                        nursery.cancel_scope.cancel()
            closed += 1
            await trio.sleep(0.01)

    async def listen(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        nonlocal calm
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in stream:
                # GOAWAY with ENHANCE_YOUR_CALM
                calm = calm or (b"\x07\0\0\0\0\0" in data and data.endswith(b"\0\0\0\x0b"))
        scope.cancel()

    async def all_attack(port: int) -> None:
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for _ in range(connections):
                    nursery.start_soon(attack, port)

    with attacked(python) as server:
        before = server.figures()
        with beside_a_good_client(server) as late:
            trio.run(all_attack, server.port)
        grown = server.figures()["resident"] - before["resident"]
    note = f"closed {closed} times" + (", ENHANCE_YOUR_CALM" if calm else "")
    return Result(f"{name}, {connections} at once", late, grown, note)


def stopped_in_a_flood(python: str) -> Result:
    """SIGTERM while eight clients send 1-byte chunks."""
    first, again = made.FLOODS["1-byte chunks"]()
    with attacked(python) as server:
        senders = [
            subprocess.Popen(
                [
                    *(sys.executable, "-c"),
                    "import socket, sys\n"
                    f"client = socket.create_connection(('127.0.0.1', {server.port}))\n"
                    f"client.sendall({first!r})\n"
                    f"while True: client.sendall({again[:6]!r} * 10000)",
                ],
                stderr=subprocess.DEVNULL,
            )
            for _ in range(8)
        ]
        time.sleep(2)
        told = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)
        took = time.monotonic() - told
        for sender in senders:
            sender.kill()
            sender.wait()
    note = f"gone after {took:.1f} s, status {server.process.returncode}"
    return Result("SIGTERM in a flood of eight", [], None, note)


def held(python: str, name: str, hold: Callable[[Attacked, ExitStack], str]) -> Result:
    """Do something that makes the server keep memory, and look how much, beside a good client."""
    with attacked(python) as server, ExitStack() as stack:
        before = server.figures()
        with beside_a_good_client(server) as late:
            note = hold(server, stack)
            time.sleep(1)
            after = server.figures()
    tasks = after["tasks"] - before["tasks"] - 30  # of the good clients
    grown = after["resident"] - before["resident"]
    return Result(name, late, grown, f"{note}; {tasks:+.0f} tasks")


def ends(client: socket.socket, within: float) -> str:
    """Read until the server closes, and return what it said and when."""
    begun, received = time.monotonic(), b""
    client.settimeout(within)
    try:
        while data := client.recv(65536):
            received = (received + data)[-10_000:]
    except TimeoutError:
        return f"{status_of(received)}, open after {within} s"
    except OSError:
        pass
    return f"{status_of(received)}, closed after {time.monotonic() - begun:.2f} s"


def status_of(received: bytes) -> str:
    """Return the status of what may be an answer of HTTP/1.1."""
    return received[9:12].decode() if received.startswith(b"HTTP/") else "no answer"


def references(server: Attacked, stack: ExitStack) -> str:
    """100 streams of 1,800 fields of a byte."""
    client = stack.enter_context(server.connect())
    client.sendall(made.headers_by_reference(1800))
    return "1 connection"


def many_fields(server: Attacked, stack: ExitStack) -> str:
    """Ten heads of 16,000 fields, each in one write."""
    notes = set()
    for _ in range(10):
        client = stack.enter_context(server.connect())
        client.sendall(b"GET /sse HTTP/1.1\r\nHost: x\r\n" + b"x:\r\n" * 15_000 + b"\r\n")
        notes.add(status_of(client.recv(100)))
    return "10 connections: " + ", ".join(sorted(notes))


def bodies(server: Attacked, stack: ExitStack) -> str:
    """Thirty GETs of a stream with a body of 15.9 MB."""
    size = 15_900_000
    for _ in range(30):
        client = stack.enter_context(server.connect())
        client.sendall(b"GET /sse HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        client.sendall(bytes(size))
    return "30 connections"


def bombs(server: Attacked, stack: ExitStack) -> str:
    """Ten WebSocket messages of 194 kB that inflate to 200 MB."""
    begun = time.monotonic()
    message = made.bomb(200_000_000)
    said = []
    for _ in range(10):
        client = stack.enter_context(server.connect())
        client.sendall(made.HANDSHAKE)
        client.recv(4096)
        with suppress(OSError):
            client.sendall(message)
        said.append(client)
    return f"10 of {len(message) // 1000} kB in {time.monotonic() - begun:.1f} s"


def early(server: Attacked, stack: ExitStack) -> str:
    """A WebSocket's handshake with bytes right behind it."""
    client = stack.enter_context(server.connect())
    client.sendall(made.HANDSHAKE + made.fragment(0x81, b"hello"))
    return ends(client, 8)


def early_on_http2(server: Attacked, stack: ExitStack) -> str:
    """The same on 600 streams of one connection."""
    client = stack.enter_context(server.connect())
    client.sendall(made.PREFACE)
    for each in made.early_websockets(600):
        with suppress(OSError):
            client.sendall(each)
        time.sleep(0.002)
    return "600 streams"


def handshakes(server: Attacked, stack: ExitStack) -> str:
    """A hundred handshakes of TLS that never end."""
    clients = [stack.enter_context(server.connect(tls=True)) for _ in range(100)]
    for client in clients:
        client.sendall(b"\x16\x03\x01")
    return ends(clients[0], 70)


def both_lengths(server: Attacked, stack: ExitStack) -> str:
    """Content-Length and Transfer-Encoding on one request."""
    client = stack.enter_context(server.connect())
    client.sendall(
        b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    return ends(client, 2)


def siblings(what: bytes, *, requests: int) -> Callable[[Attacked, ExitStack], str]:
    """Return an attack that sends this on a connection with a live stream."""

    def attack(server: Attacked, stack: ExitStack) -> str:
        client = stack.enter_context(server.connect())
        client.sendall(made.PREFACE + made.request(1, made.SSE))
        for number in range(3, 2 * requests + 3, 2):
            client.sendall(made.request(number, made.SSE[:5] + made.literal(4, b"/")))
            if number % 50 == 1:
                time.sleep(0.1)
        time.sleep(0.5)
        client.sendall(what)
        time.sleep(0.3)
        client.settimeout(0.3)
        with suppress(TimeoutError):
            while client.recv(65536):
                if time.monotonic() > begun + 5:
                    break
            else:
                return "the connection is torn"
        return "its sibling lives"

    begun = time.monotonic() + 20
    return attack


HELD: Final[dict[str, Callable[[Attacked, ExitStack], str]]] = {
    "100 streams of 1,800 references": references,
    "heads of 15,000 fields": many_fields,
    "GET of a stream with 15.9 MB": bodies,
    "RST_STREAM with its HEADERS": siblings(made.TAKEN_BACK, requests=1000),
    "a path that is not ASCII, and RST_STREAM": siblings(
        made.request(3, made.NOT_ASCII) + b"\x00\x00\x04\x03\x00\x00\x00\x00\x03\x00\x00\x00\x08",
        requests=0,
    ),
    "deflate bombs": bombs,
    "an early WebSocket": early,
    "early WebSockets on HTTP/2": early_on_http2,
    "TLS handshakes that never end": handshakes,
    "Content-Length and Transfer-Encoding": both_lengths,
}


def rows(options: Any) -> Iterator[tuple[str, Callable[[], Result]]]:
    """Return the attacks, each with its name."""
    python = options.server_python
    for name in made.FLOODS:
        for connections in map(int, options.connections.split(",")):

            def run(name: str = name, connections: int = connections) -> Result:
                return flood(python, name, options.seconds, connections)

            yield name, run
    yield "SIGTERM in a flood", lambda: stopped_in_a_flood(python)
    for name, hold in HELD.items():

        def look(name: str = name, hold: Callable[[Attacked, ExitStack], str] = hold) -> Result:
            return held(python, name, hold)

        yield name, look


def main() -> None:
    """Run the attacks that were asked for."""
    parser = argparse.ArgumentParser(description="Attack a server beside a good client.")
    parser.add_argument("--server-python", default=sys.executable, metavar="PATH")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", default="1,50")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    print(f"{'attack':45} {'p50 ms':>6} {'p99 ms':>6} {'max ms':>6} {'MB':>7}", flush=True)
    for name, run in rows(options):
        if not options.names or any(part in name for part in options.names):
            try:
                print(run(), flush=True)
            except (OSError, ssl.SSLError, AssertionError, ValueError) as error:
                print(f"{name:45} the server did not answer: {error!r}", flush=True)


if __name__ == "__main__":
    main()
