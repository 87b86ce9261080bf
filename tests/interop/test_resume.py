"""Clients that leave at random, miss some, and come back while publishing goes on.

    python -m nox -s resume

is the long form: a thousand of them for each history. The short one is among the tests.

What is published follows from its number, so each client knows what it has to hear, byte by byte,
from its first join on. It compares what comes with that; the first byte that differs is a gap, a
duplicate or worse.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import os
import random
import re
import resource
import socket
import struct
import sys
import tempfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest
import trio
from processes import PENSTOCK, Server, serving

from penstock import ServerSentEvent
from penstock.demo.hub_routes import HISTORY

TOPICS = [f"topic/{n}" for n in range(4)]

# The demonstration's hub without its ticks, which whoever subscribes to every topic would start;
# and in memory it keeps as much as anybody misses: 5,000 on one of four topics are 17,000 in all.
APP = """
import os
from quart_trio import QuartTrio
from penstock.demo.hub_routes import HISTORY, add_hub_routes
from penstock.logs import MemoryLog

app = QuartTrio(__name__)
hub = add_hub_routes(app)
if HISTORY not in os.environ:
    hub.log = MemoryLog(count=100_000)
"""

# What a stream begins with; see the demonstration.
GREETING = b":\nretry: 1000\n"

# Seconds between two batches of what is published.
BATCH = 0.05

# Seconds until all have heard everything, once nothing is published any more.
PATIENCE = 300.0


@dataclass(frozen=True)
class Form:
    """How long and how large it is."""

    clients: int
    rate: int
    """Events published in a second."""
    seconds: float
    misses: int = 5000
    """The most events on its topics that a client misses at a time."""
    seed: int = 1


SHORT = Form(clients=100, rate=1500, seconds=4)
LONG = Form(clients=1000, rate=150, seconds=100)


def topics_of(number: int) -> list[str]:
    """Return the topics of an event: one, or two for each fifth."""
    topics = [TOPICS[number % 4]]
    if number % 5 == 0:
        topics.append(TOPICS[number // 5 % 4])
    return topics


def event_of(number: int) -> ServerSentEvent:
    return ServerSentEvent(f"{number} {'x' * (number * 37 % 120)}", id=str(number))


class Selection:
    """What those hear who subscribe to the same topics: all numbers, and all bytes."""

    def __init__(self, topics: tuple[str, ...], total: int) -> None:
        self.query = "&".join(f"topic={quote(topic)}" for topic in topics)
        self.numbers: list[int] = []
        self.ends: list[int] = []
        wires, size = [], 0
        for number in range(1, total + 1):
            if "*" in topics or set(topics) & set(topics_of(number)):
                wires.append(event_of(number).encode())
                size += len(wires[-1])
                self.numbers.append(number)
                self.ends.append(size)
        self.wire = b"".join(wires)

    def end_of(self, number: int) -> int:
        """Return where the bytes of everything up to a number end."""
        index = bisect_right(self.numbers, number)
        return self.ends[index - 1] if index else 0

    def number_at(self, position: int) -> int:
        """Return the number of the last event that is whole at a position; 0 if none is."""
        index = bisect_right(self.ends, position)
        return self.numbers[index - 1] if index else 0

    def count(self, first: int, last: int) -> int:
        """Return how many events there are behind the first number, up to the last."""
        return bisect_right(self.numbers, last) - bisect_right(self.numbers, first)


def selections(total: int) -> list[Selection]:
    """Return one for each subset of the topics, and one for every topic."""
    subsets = [each for size in range(1, 5) for each in itertools.combinations(TOPICS, size)]
    return [Selection(topics, total) for topics in [*subsets, ("*",)]]


@dataclass
class Tally:
    """What became of everybody."""

    resumes: int = 0
    replayed: int = 0
    """Events that came to somebody who was away when they were published."""
    most: int = 0
    """The most that one who came back had missed."""
    cut: int = 0
    """Times that a client left in the middle of an event."""
    ended: int = 0
    """Streams that the server ended, for a client that was too far behind."""
    wrong: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)


class Wrong(Exception):
    """What came is not what had to come."""

    def __init__(self, what: str, said: str) -> None:
        super().__init__(said)
        self.what = what


class Publishing:
    """All that is published, and who waits for it."""

    def __init__(self, form: Form) -> None:
        self.total = int(form.rate * form.seconds)
        self.number = 0
        self.over = False
        self._rate = form.rate
        self._waiting: list[tuple[int, int, trio.Event]] = []
        self._order = itertools.count()

    async def reached(self, number: int) -> None:
        """Wait until so many are published, or nothing is any more."""
        if number > self.number and not self.over:
            event = trio.Event()
            heapq.heappush(self._waiting, (number, next(self._order), event))
            await event.wait()

    async def run(self, port: int) -> None:
        """Publish at the pace of the form, in batches that are acknowledged."""
        url = f"http://127.0.0.1:{port}/publish"
        begun = trio.current_time()
        async with httpx2.AsyncClient(timeout=60) as client:
            while self.number < self.total:
                await trio.sleep(BATCH)
                due = int((trio.current_time() - begun) * self._rate)
                batch = range(self.number + 1, min(due, self.total) + 1)
                if not batch:
                    continue
                answer = await client.post(
                    url,
                    content=b"".join(map(line_of, batch)),
                    headers={"Content-Type": "application/x-ndjson"},
                )
                assert answer.status_code == 200, answer.text
                assert answer.json()["ids"] == [str(number) for number in batch]
                self._published(batch[-1])
        self.over = True
        self._published(self.total)

    def _published(self, number: int) -> None:
        self.number = number
        while self._waiting and (self.over or self._waiting[0][0] <= number):
            heapq.heappop(self._waiting)[2].set()


def line_of(number: int) -> bytes:
    event = event_of(number)
    said = {"topics": topics_of(number), "data": event.data, "id": event.id}
    return json.dumps(said).encode() + b"\n"


class Client:
    """Somebody who comes and goes."""

    def __init__(
        self, port: int, selection: Selection, publishing: Publishing, tally: Tally, seed: str
    ) -> None:
        self.port = port
        self.selection = selection
        self.publishing = publishing
        self.tally = tally
        self.chance = random.Random(seed)
        self.last: int | None = None  # the last id it knows; None: it has had no event
        self.position_id = b""  # what it was given before its first event
        self.position = 0  # in the bytes of its selection
        self.begun = False  # whether this stream's greeting was read
        self._rest = b""  # of this stream, not read yet
        self._size = 0  # of the chunk that is being read
        self._told = b""  # the beginning of this stream
        self._ended = False
        self._stay = 0.0
        self._patience: trio.CancelScope

    async def live(self, misses: int) -> None:
        """Come and go until everything is published; then come, and hear all of it."""
        try:
            while not self.publishing.over:
                # Some stay for some time, some for some bytes; some leave before anything comes.
                stay = self.chance.choice((0.0, 0.3, 1.0)) * self.chance.random()
                size = self.chance.choice((0, 200, 50_000, sys.maxsize))
                await self.visit(stay, size)
                if self._ended:
                    continue
                # Few miss much: most of the time is theirs in any case.
                away = int(misses * self.chance.random() ** 3)
                numbers = self.selection.numbers
                index = bisect_right(numbers, self.last or 0) + away
                await self.publishing.reached(numbers[min(index, len(numbers) - 1)])
            if self.last is None:
                return  # nothing came while it was there
            with trio.move_on_after(PATIENCE):
                while self.position != self.selection.end_of(self.publishing.total):
                    await self.visit(PATIENCE, sys.maxsize)
                return
            heard = self.selection.number_at(self.position)
            raise Wrong("unheard", f"{heard} was the last that came")
        except Wrong as wrong:
            self.tally.wrong[wrong.what] += 1
            if len(self.tally.examples) < 10:
                self.tally.examples.append(f"{self.selection.query}: {wrong.what}: {wrong}")

    async def visit(self, stay: float, size: int) -> None:
        """Connect, listen for so long or until so many bytes, and leave one way or another."""
        self.begun = self._ended = False
        self._rest = self._told = b""
        self._size = 0
        with trio.socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
            await connection.connect(("127.0.0.1", self.port))
            await connection.send(self.request())
            resumes = self.last is not None
            if self.last is not None:
                self.position = self.selection.end_of(self.last)
                before, newest = self.last, self.publishing.number
            self._stay = stay
            impatient = self.chance.random() < 0.1
            with trio.move_on_after(stay if impatient else PATIENCE) as self._patience:
                await self.listen(connection, size)
            if not self._ended:
                await self.leave(connection)
        if self.begun and self.last is not None:
            whole = self.selection.number_at(self.position)
            if resumes:
                count = self.selection.count
                self.tally.resumes += 1
                self.tally.replayed += max(0, count(before, min(whole, newest)))
                self.tally.most = max(self.tally.most, count(before, newest))
            self.tally.cut += self.position != self.selection.end_of(whole)
            self.tally.ended += self._ended
            self.last = max(self.last, whole) or None

    def request(self) -> bytes:
        """Return what it asks: by header or by query where to go on, if it knows of any event."""
        query = self.selection.query
        header = ""
        known = self.position_id.decode() if self.last is None else str(self.last)
        if known:
            if self.chance.random() < 0.5:
                header = f"Last-Event-ID: {known}\r\n"
            else:
                query += f"&last_event_id={known}"
        return f"GET /subscribe?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n{header}\r\n".encode()

    async def listen(self, connection: trio.socket.SocketType, size: int) -> None:
        """Read until so many bytes, the end of the stream, or the end of everything."""
        head = b""
        while b"\r\n\r\n" not in head:
            data = await connection.recv(4096)
            if not data:
                raise Wrong("broken", f"the connection ended in the head: {head!r}")
            head += data
        head, _, data = head.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise Wrong("broken", repr(head))
        said = re.search(rb"\r\nlast-event-id: ([^\r]*)", head, re.IGNORECASE)
        if said is None:
            raise Wrong("broken", f"no Last-Event-ID: {head!r}")
        asked = self.position_id if self.last is None else b"%d" % self.last
        if asked and said[1] != asked:
            raise Wrong("gap", f"asked for {asked!r}, told {said[1]!r}")
        end = self.selection.end_of(self.publishing.total)
        while True:
            size -= len(data)
            self.take(data, said[1])
            if self._ended or size < 0 or (self.publishing.over and self.position == end):
                return
            # The last read of a visit is small, so that it ends within an event.
            data = await connection.recv(2**16 if size > 2**16 else max(1, size))
            if not data:
                raise Wrong("broken", "the stream ended without its end")

    async def leave(self, connection: trio.socket.SocketType) -> None:
        """Go: properly, at once, or with a reset."""
        match self.chance.choice(("fin", "close", "reset")):
            case "fin":
                connection.shutdown(socket.SHUT_WR)
                with trio.move_on_after(0.5):
                    try:
                        while await connection.recv(2**16):
                            pass
                    except ConnectionResetError:
                        pass
            case "reset":
                # Zero seconds of lingering: closing sends RST in the place of FIN.
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def take(self, data: bytes, goes_on: bytes) -> None:
        """Take bytes of a body that is sent in chunks."""
        rest = self._rest + data
        while rest:
            if not self._size:
                line, found, behind = rest.partition(b"\r\n")
                if not found:
                    break
                if line == b"0":
                    self._ended = True
                    return
                self._size, rest = int(line, 16) + 2, behind
            part, rest = rest[: self._size], rest[self._size :]
            self._size -= len(part)
            # The last two bytes of a chunk are not its data.
            self.hear(part[: len(part) - max(0, 2 - self._size)], goes_on)
        self._rest = rest

    def hear(self, data: bytes, goes_on: bytes) -> None:
        """Compare what came with what had to come."""
        if not self.begun:
            self._told += data
            greeting = GREETING
            if self.last is None and not self.position_id:
                greeting += b"id: %b\n\n" % goes_on
            if len(self._told) < len(greeting):
                return
            if not self._told.startswith(greeting):
                raise Wrong("broken", f"a stream began with {self._told[:100]!r}")
            data = self._told[len(greeting) :]
            self.begun = True
            self._patience.deadline = trio.current_time() + self._stay
            self._told = b""
            if self.last is None:
                self.position_id = goes_on
        if self.last is None:
            # The first event that it has whole says where it was.
            self._told += data
            first = re.search(rb"(?s)id: (\d+)\n.*?\n\n", self._told)
            if first is None:
                return
            data = self._told[first.start() :]
            self.last = int(first[1])
            self.position = self.selection.end_of(self.last - 1)
        if self.selection.wire.startswith(data, self.position):
            self.position += len(data)
            return
        whole = self.selection.number_at(self.position)
        if data == b":\n" and self.position == self.selection.end_of(whole):
            return  # a stream that is silent is kept alive
        start = self.position
        same = next(
            (index for index, each in enumerate(data) if each != self.selection.wire[start + index])
        )
        whole = self.selection.number_at(self.position + same)
        cut = self.selection.end_of(whole) - self.position
        came = re.match(rb"id: (\d+)\n", data[max(0, cut) :])
        if b"event: gap\n" in data:
            raise Wrong("gap", f"told behind {self.last}: {data[max(0, cut) :][:100]!r}")
        if came is None:
            raise Wrong("broken", f"{data[max(0, cut) :][:100]!r} behind {whole}")
        what = "gap" if int(came[1]) > whole else "duplicate"
        raise Wrong(what, f"{int(came[1])} behind {whole}")


async def resume(port: int, form: Form) -> Tally:
    """Have all of them come and go; return what became of them."""
    tally, publishing = Tally(), Publishing(form)
    chance = random.Random(form.seed)
    known = selections(publishing.total)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publishing.run, port)
        for number in range(form.clients):
            seed = f"{form.seed} {number}"
            client = Client(port, chance.choice(known), publishing, tally, seed)
            nursery.start_soon(client.live, form.misses)
            await trio.sleep(1 / form.clients)
    return tally


@contextmanager
def served(history: str, folder: Path) -> Iterator[Server]:
    """Serve the demonstration's hub with a history in memory, or in a file."""
    (folder / "resumed.py").write_text(APP)
    before = os.environ.pop(HISTORY, None)
    if history == "file":
        os.environ[HISTORY] = str(folder / "history.db")
    try:
        command = (PENSTOCK, "serve", "resumed:app", "--bind", "127.0.0.1:0")
        with serving(*command, folder=folder, cwd=folder) as server:
            yield server
    finally:
        os.environ.pop(HISTORY, None)
        if before is not None:
            os.environ[HISTORY] = before


async def measured(history: str, form: Form, folder: Path) -> Tally:
    """Run it, and print its line of figures."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, form.clients + 1000), hard))
    with served(history, folder) as server:
        begun = trio.current_time()
        tally = await resume(server.port, form)
        took = trio.current_time() - begun
        status = server.stop()
        if status or "Traceback" in server.log:
            tally.wrong["server"] += 1
            tally.examples.append(f"status {status}: {server.log[-2000:]}")
    print(
        f"{history}: {form.clients:,} clients, {tally.resumes:,} resumes, "
        f"{tally.replayed:,} missed events replayed, up to {tally.most:,} missed at a time, "
        f"{tally.cut:,} left within an event, {tally.ended:,} ended as slow; "
        f"{tally.wrong['gap']} gaps, {tally.wrong['duplicate']} duplicates, "
        f"{tally.wrong.total() - tally.wrong['gap'] - tally.wrong['duplicate']} other faults; "
        f"{form.rate:,} events/s, {took:.1f} s"
    )
    for example in tally.examples:
        print(f"  {example}")
    return tally


@pytest.mark.parametrize("history", ["memory", "file"])
async def test_who_comes_back_misses_nothing(history: str, tmp_path: Path) -> None:
    """A hundred clients leave at random and resume: no gap, no duplicate, for both histories."""
    with trio.fail_after(300):
        tally = await measured(history, SHORT, tmp_path)
    assert not tally.wrong, tally.examples
    assert tally.resumes > SHORT.clients / 2
    assert tally.cut > SHORT.clients / 10
    assert tally.most > 1000


def main() -> int:
    """Run the long form for each history; return the exit status."""
    parser = argparse.ArgumentParser(description="Leave, miss some, come back.")
    parser.add_argument("--clients", type=int, default=LONG.clients)
    parser.add_argument("--rate", type=int, default=LONG.rate, help="events published in a second")
    parser.add_argument("--seconds", type=float, default=LONG.seconds)
    parser.add_argument("--misses", type=int, default=LONG.misses, help="at the most, at a time")
    parser.add_argument("--seed", type=int, default=LONG.seed)
    parser.add_argument("--history", choices=("memory", "file"), action="append")
    options = parser.parse_args()
    form = Form(options.clients, options.rate, options.seconds, options.misses, options.seed)
    wrong = 0
    for history in options.history or ("memory", "file"):
        with tempfile.TemporaryDirectory() as folder:
            wrong += trio.run(measured, history, form, Path(folder)).wrong.total()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
