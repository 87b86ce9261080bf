"""Signals to `penstock` as a process: while it starts, as process 1, twice, and to its workers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import HYPERCORN, PENSTOCK, CurlFixture, Server, serving, wait_until

from require import require

APP = """
import trio
from quart_trio import QuartTrio
from penstock.hypercorn import install
from penstock.quart import EventSourceResponse

install()
app = QuartTrio(__name__)

async def wait(events):
    try:
        await trio.sleep_forever()
    finally:
        print("finally", flush=True)

@app.get("/")
async def stream():
    return EventSourceResponse(wait)
"""


@contextmanager
def holding(port: int) -> Iterator[None]:
    """Have a stream whose client keeps its connection, so that a stop takes the drain window."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /sse HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(10)
        yield


@pytest.mark.parametrize("module", ["click", "hypercorn"])
def test_ctrl_c_while_modules_are_imported(module: str, tmp_path: Path) -> None:
    """It exits with 130 and says nothing, whatever is being imported."""
    (tmp_path / f"{module}.py").write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(30)\n"
    )
    process = subprocess.Popen(
        [PENSTOCK, "serve"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"importing\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, b"")


def test_a_hang_up_is_a_stop(tmp_path: Path, curl: CurlFixture) -> None:
    """SIGHUP, as of a terminal that closes: streams end properly, each `finally` runs."""
    (tmp_path / "hung.py").write_text(APP)
    command = (PENSTOCK, "serve", "hung:app", "-b", "127.0.0.1:0")
    with serving(*command, folder=tmp_path, cwd=tmp_path) as server:
        client = curl(server.url)
        assert client.lines.readline() == b":\n"
        assert server.stop(signal.SIGHUP) == 0
        assert client.status() == 0
        assert "finally\n" in server.output


def test_a_second_hang_up_ends_it_at_once(demo: Server) -> None:
    """As a second signal of the other kinds does."""
    with holding(demo.port):
        demo.process.send_signal(signal.SIGHUP)
        demo.wait_for_log("a second signal stops at once")
        assert demo.stop(signal.SIGHUP) == -signal.SIGHUP


def test_nohup(tmp_path: Path) -> None:
    """Whoever had SIGHUP ignored has it ignored."""
    nohup = require("nohup", install="apt-get install coreutils")
    command = (nohup, PENSTOCK, "serve", "-b", "127.0.0.1:0")
    with serving(*command, folder=tmp_path) as server:
        assert server.url
        server.process.send_signal(signal.SIGHUP)
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /-/ready HTTP/1.0\r\n\r\n")
            assert b"200" in client.recv(100)
        assert server.stop() == 0
        assert server.log.count("Stopping") == 1


def catches(pid: int, number: signal.Signals) -> bool:
    """Tell whether a process handles a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("command", ["listen", "publish"])
def test_a_hang_up_ends_the_other_commands(command: str, demo: Server) -> None:
    """Their status is 128 and the signal's number; only what was not published is said."""
    path = {"listen": "sse", "publish": "publish"}[command]
    options = {"listen": [], "publish": ["--topic", "a"]}[command]
    process = subprocess.Popen(
        [PENSTOCK, command, f"{demo.url}/{path}", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        if command == "listen":
            assert process.stdout is not None
            process.stdout.readline()
        else:
            wait_until(lambda: catches(process.pid, signal.SIGHUP), within=30)
        process.send_signal(signal.SIGHUP)
        process.wait(timeout=20)  # before stdin is closed, which would end it, too
        _, said = process.communicate(timeout=20)
    said_of = {"listen": b"", "publish": b"penstock: interrupted: nothing was published\n"}
    assert (process.returncode, said) == (129, said_of[command])


# As process 1.


@contextmanager
def as_process_1(*arguments: str, folder: Path, cwd: Path | None = None) -> Iterator[Server]:
    """Run `penstock` as the first process of a namespace, as in a container."""
    unshare = require("unshare", install="apt-get install util-linux")
    namespace = [unshare, "--pid", "--fork", "--kill-child"]
    if os.geteuid() != 0:
        namespace += ["--user", "--map-root-user"]
    tried = subprocess.run([*namespace, "true"], capture_output=True, check=False, text=True)
    if tried.returncode:
        pytest.skip(f"no namespaces of processes here: {tried.stderr.strip()}")
    with serving(*namespace, PENSTOCK, *arguments, folder=folder, cwd=cwd) as server:
        yield server


def first_of(server: Server) -> int:
    """Return the number that process 1 has outside of its namespace."""
    outer = server.process.pid
    children = Path(f"/proc/{outer}/task/{outer}/children")
    return int(wait_until(lambda: children.read_text().split())[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_process_1_ends_at_the_second_signal(tmp_path: Path, number: signal.Signals) -> None:
    """The kernel ignores a signal to process 1 that nobody handles; the log's promise holds."""
    window = ("--drain-window", "60")
    command = ("serve", "-b", "127.0.0.1:0", *window)
    with as_process_1(*command, folder=tmp_path) as server:
        with holding(server.port):
            os.kill(first_of(server), number)
            server.wait_for_log("a second signal stops at once")
            os.kill(first_of(server), number)
            assert server.process.wait(timeout=20) == 128 + number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_process_1_ends_at_the_first_signal_while_modules_are_imported(
    tmp_path: Path, number: signal.Signals
) -> None:
    """A container that is stopped as soon as it starts need not be killed."""
    (tmp_path / "slow.py").write_text("import time\nprint('x', flush=True)\ntime.sleep(60)\n")
    command = ("serve", "slow:app", "-b", "127.0.0.1:0")
    with as_process_1(*command, folder=tmp_path, cwd=tmp_path) as server:
        wait_until(lambda: server.output, within=30)
        os.kill(first_of(server), number)
        assert server.process.wait(timeout=20) == 128 + number


# Hypercorn's own command line, with several workers.


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "worked.py").write_text(APP)
    (tmp_path / "hypercorn.toml").write_text("[penstock]\ndrain_window = 2\n")
    options = ("-k", "trio", "-w", "2", "-c", "hypercorn.toml", "-b", "127.0.0.1:0")
    command = (HYPERCORN, *options, "worked:app")
    with serving(*command, folder=tmp_path, cwd=tmp_path) as server:
        wait_until(lambda: (server.output + server.log).count("Running on") == 2, within=30)
        yield server


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers_end_their_streams_whatever_is_sent_twice(
    workers: Server, curl: CurlFixture, number: signal.Signals
) -> None:
    """Hypercorn's master sends SIGTERM again itself, so a worker's drain is not cut by a second."""
    clients = [curl(workers.url) for _ in range(4)]
    for client in clients:
        assert client.lines.readline() == b":\n"
    workers.process.send_signal(number)
    time.sleep(0.3)
    # The master may be about to end when the second one comes: then it ends it.
    assert workers.stop(number) in (0, -number)
    assert [client.status() for client in clients] == [0] * 4
    assert workers.output.count("finally\n") == 4


def test_a_hang_up_of_a_terminal_reaches_the_workers_too(
    workers: Server, curl: CurlFixture
) -> None:
    """A worker that gets SIGHUP itself ends its streams properly, and each `finally` runs."""
    client = curl(workers.url)
    assert client.lines.readline() == b":\n"
    master = workers.process.pid
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    for each in children:
        if b"resource_tracker" not in Path(f"/proc/{each}/cmdline").read_bytes():
            os.kill(int(each), signal.SIGHUP)
    assert client.status() == 0
    wait_until(lambda: "finally\n" in workers.output)
    workers.stop()


def test_a_signal_while_the_work_ends() -> None:
    """What nobody was left to take is the status, too, and no death by the signal."""
    program = (
        "import os, signal, sys\n"
        "from penstock.cli.runtime import run\n"
        "async def work():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.exit(run(work))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 143
