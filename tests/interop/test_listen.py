"""`penstock listen` as a process: what ends it, what it cannot listen to, and a terminal."""

from __future__ import annotations

import fcntl
import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from termios import FIONREAD
from uuid import uuid4

import pytest
from cli_steps import end, lines_of, listening, objects_of, publish, running, shown, terminal, topic
from processes import PENSTOCK, Server, free_port, serving, wait_until
from scripted import OPEN, scripted


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_signal_ends_listen(demo: Server, number: signal.Signals, status: int) -> None:
    """It ends silently, both while it reads and while it waits to reconnect."""
    publish(demo, "-t", "a", "x")
    with running("listen", topic(demo)) as listener:
        lines_of(listener, 3)
        assert end(listener, number) == ""
        assert listener.returncode == status
    with running("listen", "http://127.0.0.1:1/") as listener:
        assert listener.stderr is not None
        assert "Connection refused; reconnecting in" in listener.stderr.readline()
        assert end(listener, number) == ""
        assert listener.returncode == status


def test_a_closed_socket_ends_listen(shared_demo: Server) -> None:
    """With the next event, and with status 0."""
    own = str(uuid4())
    reader, writer = socket.socketpair()
    with reader, writer:
        with running("listen", topic(shared_demo, own), stdout=writer.fileno()) as listener:
            publish(shared_demo, "-t", own, "first")
            assert reader.recv(4) == b"id: "
            reader.close()
            publish(shared_demo, "-t", own, "second")
            assert end(listener, None) == ""
            assert listener.returncode == 0


@pytest.mark.parametrize("events", [1, 5])
def test_a_closed_pipe_ends_listen(demo: Server, events: int) -> None:
    """At once, even if no event follows; silently, with status 0."""
    for number in range(events):
        publish(demo, "-t", "a", str(number))
    command = f"'{PENSTOCK}' listen --json '{topic(demo)}' | head -1; echo ${{PIPESTATUS[@]}}"
    ran = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.stderr == ""
    first, status = ran.stdout.splitlines()
    assert json.loads(first)["data"] == "0"
    assert status == "0 0"


def test_a_reader_that_does_not_read_keeps_nobody(demo: Server) -> None:
    """Ctrl-C ends listen even while its pipe takes no more."""
    publish(demo, "-t", "a", "-", stdin=("x" * 1000 + "\n") * 2000)
    with running("listen", topic(demo)) as listener:
        assert listener.stdout is not None
        pipe = listener.stdout.fileno()
        held: list[int] = []

        def full() -> bool:
            """Return whether it holds much data, and does not grow."""
            held.append(int.from_bytes(fcntl.ioctl(pipe, FIONREAD, b"1234"), sys.byteorder))
            return held[-1] > 32768 and held[-20:] == held[-1:] * 20

        wait_until(full)
        assert end(listener) == ""
        assert listener.returncode == 130


async def test_204_ends_listen() -> None:
    """There is no more: status 0."""
    async with scripted() as server:
        ran = await listening(server.url, "-H", "X-Key: k : k", "--last-event-id", "é")
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
        assert server.header("x-key") == ["k : k"]
        assert server.header("last-event-id") == ["é"]


@pytest.mark.parametrize(
    ("answer", "options", "says"),
    [
        ([b"HTTP/1.1 404 X\r\n\r\n"], [], "/events: answered 404 X, not 200"),
        ([b"HTTP/1.1 200 X\r\n\r\n"], [], "answered with no content type instead of text/ev"),
        ([OPEN, b"data: " + b"x" * 99], ["--max-event-size", "50"], "larger than max_event_size"),
        ([b"HTTP/1.1 503 X\r\n\r\n"], ["--max-attempts", "1"], "503 X; gave up after 1 attempt"),
        ([OPEN, 30.0], ["--max-attempts", "1", "--max-silence", "0.1"], "no data for 0.1 s"),
    ],
)
async def test_what_cannot_be_listened_to(
    answer: list[bytes | float], options: list[str], says: str
) -> None:
    """One line says why, and the status is 1."""
    async with scripted(answer) as server:
        ran = await listening(server.url, *options)
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert says in ran.stderr.decode()
    assert ran.stderr.startswith(b"penstock: ")
    assert ran.stderr.count(b"\n") == 1


def test_a_server_that_is_restarted(tmp_path: Path) -> None:
    """A line on stderr says so; then the events of the new one arrive, with a gap."""
    bind = f"127.0.0.1:{free_port()}"
    with serving(
        PENSTOCK, "serve", "--bind", bind, "--reconnect-spread", "0", folder=tmp_path
    ) as server:
        publish(server, "-t", "a", "before")
        url = f"{server.url}/subscribe?topic=a"
        with running("listen", "--json", "--last-event-id", "earliest", url) as listener:
            (before,) = objects_of(listener, 1)
            assert server.stop() == 0
            with serving(PENSTOCK, "serve", "--bind", bind, folder=tmp_path) as again:
                (gap,) = objects_of(listener, 1)
                publish(again, "-t", "a", "after")
                (after,) = objects_of(listener, 1)
            told = end(listener)
    assert [before["data"], after["data"]] == ["before", "after"]
    assert gap["event"] == "gap"
    assert json.loads(gap["data"]) == {"last_event_id": before["id"]}
    assert re.match(r"penstock: http://\S+/subscribe: .*; reconnecting in \d+\.\d s\n", told)


def test_a_terminal_shows_control_characters(demo: Server) -> None:
    """An event can neither clear the screen nor type for somebody."""
    publish(demo, "-t", "a", "\x1b[2J\x9b5n\x07\tx\r\ny")
    with terminal() as (person, program):
        with running("listen", "--count", "1", topic(demo), stdout=program) as listener:
            text = shown(person, "y")
            assert "data: \\x1b[2J\\x9b5n\\x07\tx\r\ndata: y" in text
            assert "\x1b" not in text
            assert listener.wait(timeout=60) == 0
