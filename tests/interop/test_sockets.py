"""The sockets that a server listens on: who inherits them, Unix sockets, and those of systemd."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import trio
from guarded import config_for, guarded
from processes import HYPERCORN, PENSTOCK, CurlFixture, Server, serving, wait_until
from quart_trio import QuartTrio

from penstock.hypercorn import serve
from penstock.hypercorn.server.listeners import reserved_paths

APP = """
import os
from quart_trio import QuartTrio
from penstock import ServerSentEvent
from penstock.hypercorn import install
from penstock.quart import EventSourceResponse

install()
app = QuartTrio(__name__)

@app.get("/child")
async def child():
    os.system("ls -l /proc/self/fd > files; sleep 60 & echo $! > child")
    return "started"

@app.get("/passed")
async def passed():
    return str([name for name in os.environ if name.startswith("LISTEN_")])

async def once(events):
    await events.send(ServerSentEvent("x"))

@app.get("/once")
async def stream():
    return EventSourceResponse(once)
"""

PENSTOCK_SERVE = (PENSTOCK, "serve", "socketed:app")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "socketed.py").write_text(APP)
    return tmp_path


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "penstock.sock"


def asked(path: Path, target: str = "/-/ready") -> bytes:
    """Return the answer to a request by a Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(f"GET {target} HTTP/1.0\r\n\r\n".encode())
        return client.makefile("rb").read()


@pytest.mark.parametrize(
    "command",
    [
        PENSTOCK_SERVE,
        (HYPERCORN, "-k", "trio", "-w", "0", "socketed:app"),
        (HYPERCORN, "-k", "trio", "-w", "2", "socketed:app"),
    ],
    ids=["penstock serve", "hypercorn -w 0", "hypercorn -w 2"],
)
def test_a_child_keeps_nothing(command: tuple[str, ...], folder: Path, curl: CurlFixture) -> None:
    """A program that a view starts has none of the server's sockets."""
    with serving(*command, "-b", "127.0.0.1:0", folder=folder, cwd=folder) as server:
        port = server.port
        answer = wait_until(lambda: curl(f"{server.url}/child").lines.read(), within=30)
        assert answer == b"started"
        child = int(wait_until(lambda: (folder / "child").read_text()))
        try:
            assert "socket:" not in (folder / "files").read_text()
            assert server.stop(within=30) == 0
            assert Path(f"/proc/{child}").exists()
            socket.create_server(("127.0.0.1", port)).close()
        finally:
            os.kill(child, signal.SIGKILL)


# Unix sockets.


@pytest.fixture
def listening(folder: Path, path: Path) -> Iterator[Server]:
    command = (*PENSTOCK_SERVE, "--bind", f"unix:{path}")
    with serving(*command, folder=folder, cwd=folder) as server:
        wait_until(lambda: "Listening" in server.output, within=30)
        yield server


def test_penstock_serve_on_a_unix_socket(listening: Server, path: Path) -> None:
    """It says where it listens, its clients are `local` in the log, and its file goes with it."""
    assert listening.output == f"Listening on http://unix:{path}\n"
    assert b"data: x\n\n" in asked(path, "/once")
    listening.wait_for_log(r"INFO /once local finished after", within=20)
    assert listening.stop() == 0
    assert not path.exists()


def test_a_path_that_is_not_printable(tmp_path: Path) -> None:
    """What says where it listens is one line, and nothing that a terminal obeys."""
    bind = os.fsdecode(f"unix:{tmp_path}/".encode() + b"a\n\x1b[31m\xff")
    with serving(PENSTOCK, "serve", "--bind", bind, folder=tmp_path) as server:
        wait_until(lambda: server.output.endswith("\n"), within=30)
        assert server.output == (f"Listening on http://unix:{tmp_path}/a\\n\\x1b[31m\\udcff\n")


def test_a_second_server_does_not_take_the_path(listening: Server, path: Path) -> None:
    """It says who is in the way, and the first goes on."""
    ran = subprocess.run(
        [PENSTOCK, "serve", "--bind", f"unix:{path}"], capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == (
        f"penstock: cannot listen on unix:{path}: Address already in use: stop the program that "
        "listens there, or choose another path, with --bind\n"
    )
    assert b"200" in asked(path)


def test_a_socket_that_a_killed_server_left_is_replaced(
    listening: Server, folder: Path, path: Path
) -> None:
    """Nobody listens on it."""
    listening.process.kill()
    listening.process.wait()
    assert path.is_socket()
    command = (*PENSTOCK_SERVE, "--bind", f"unix:{path}")
    with serving(*command, folder=folder, cwd=folder) as server:
        wait_until(lambda: "Listening" in server.output, within=30)
        assert b"200" in asked(path)
        assert server.stop() == 0
    assert not path.exists()


async def test_a_program_on_a_unix_socket(path: Path) -> None:
    """`serve` takes no path on which somebody listens, and removes its own file."""
    app = QuartTrio(__name__)
    config = config_for(f"unix:{path}")
    with pytest.RaisesGroup(OSError, flatten_subgroups=True) as refused:
        with socket.socket(socket.AF_UNIX) as first:
            first.bind(str(path))
            first.listen()
            async with trio.open_nursery() as nursery:
                async with guarded(app, config=config):
                    nursery.cancel_scope.cancel()
    (error,) = refused.value.exceptions
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, OSError)
    assert (error.errno, error.filename) == (errno.EADDRINUSE, str(path))
    assert os.path.exists(path)  # noqa: ASYNC240 - without its owner, so that it is replaced
    stop = trio.Event()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            run = partial(serve, app, config, shutdown_trigger=stop.wait)
            (url,) = await nursery.start(run)
            assert url == f"http://unix:{path}"
            stop.set()
    assert not os.path.exists(path)  # noqa: ASYNC240 - it is a test


def test_a_path_is_claimed_by_one_at_a_time(path: Path) -> None:
    """What was bound but does not listen yet is not taken for what a killed server has left."""
    with reserved_paths([str(path)]):
        code = (
            "import sys\nfrom penstock.hypercorn.server.listeners import reserved_paths\n"
            "with reserved_paths([sys.argv[1]]): pass"
        )
        ran = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60
        )
    assert ran.returncode == 1
    assert "Another process holds the directory's lock" in ran.stderr


# Sockets that somebody else has opened.

PASS = """
import os, socket, sys
listening = socket.create_server(("127.0.0.1", 0))
assert listening.fileno() == 3
listening.set_inheritable(True)
if sys.argv[1] == "systemd":
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="web")
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("way", ["systemd", "--bind fd://3"])
def test_a_socket_that_was_passed(way: str, folder: Path, curl: CurlFixture) -> None:
    """It is served, and neither it nor what names it reaches the application's children."""
    bind = way.split()[1:] and way.split()
    command = (sys.executable, "-c", PASS, way, *PENSTOCK_SERVE, *bind)
    with serving(*command, folder=folder, cwd=folder) as server:
        assert curl(f"{server.url}/passed").lines.read() == b"[]"
        assert curl(f"{server.url}/child").lines.read() == b"started"
        os.kill(int((folder / "child").read_text()), signal.SIGKILL)
        assert "socket:" not in (folder / "files").read_text()
        assert server.stop() == 0


def test_what_was_passed_to_another_process_is_left_alone(folder: Path) -> None:
    """LISTEN_PID names the process that is meant."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    env = ("env", "LISTEN_PID=1", "LISTEN_FDS=1")
    command = (*env, *PENSTOCK_SERVE, "--bind", f"127.0.0.1:{port}")
    with serving(*command, folder=folder, cwd=folder) as server:
        assert server.port == port
        assert server.stop() == 0


def test_a_restart_keeps_a_socket_that_was_passed(folder: Path) -> None:
    """The demonstration that starts itself again listens where it did."""
    command = (sys.executable, "-c", PASS, "systemd", PENSTOCK, "serve")
    with serving(*command, folder=folder, cwd=folder) as server:
        url = server.url
        ran = subprocess.run(
            ["curl", "-sSf", "-X", "POST", f"{url}/drain", "-H", f"Origin: {url}"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ran.returncode == 0, ran.stderr
        wait_until(lambda: server.output.count("Listening on") == 2, within=60)
        assert server.stop() == 0
