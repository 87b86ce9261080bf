"""An application that does not start or stop, or fails between: one line, and status 1."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import forked
import pytest
from processes import HYPERCORN, PENSTOCK, CurlFixture, Server, serving, wait_until

# What each application does, in a lifespan of Quart or of its own.
QUART = """
import sys, trio
from quart_trio import QuartTrio
from penstock import ServerSentEvent
from penstock.hypercorn import install
from penstock.quart import EventSourceResponse

install()
app = QuartTrio(__name__)
app.config["BACKGROUND_TASK_SHUTDOWN_TIMEOUT"] = 0.2

async def wait(events):
    await trio.sleep_forever()

@app.get("/")
async def stream():
    return EventSourceResponse(wait)
"""

APPS = {
    "raises": """
@app.after_serving
async def stop():
    raise LookupError("no such\\nledger")
""",
    "exits": """
@app.after_serving
async def stop():
    sys.exit(3)
""",
    "interrupts": """
@app.after_serving
async def stop():
    raise KeyboardInterrupt
""",
    "is_cut": """
@app.after_serving
async def stop():
    await trio.sleep_forever()
""",
    "dies": """
async def die():
    raise LookupError("the database is away")

@app.get("/die")
async def die_view():
    app.nursery.start_soon(die)
    return "dying"
""",
    "says_failed": """
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "the disk is full"})
""",
    "has_none": """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})
""",
    "returns": """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
""",
    "starts_not": """
@app.before_serving
async def start():
    raise LookupError("the database is away")
""",
    "exits_at_once": """
@app.before_serving
async def start():
    sys.exit(4)
""",
    "raises_its_own": """
class Gone(BaseException):
    pass

@app.before_serving
async def start():
    raise Gone
""",
}

CUT = "it ended without a shutdown message (Quart cancels"

WAYS = {
    "penstock serve": (PENSTOCK, "serve"),
    "hypercorn -w 0": (HYPERCORN, "-k", "trio", "-w", "0"),
    "hypercorn -w 2": (HYPERCORN, "-k", "trio", "-w", "2"),
}


@contextmanager
def started(name: str, folder: Path, way: str = "penstock serve") -> Iterator[Server]:
    (folder / f"{name}.py").write_text(QUART + APPS[name])
    command = (*WAYS[way], "-b", "127.0.0.1:0", f"{name}:app")
    with serving(*command, folder=folder, cwd=folder) as server:
        yield server


def lines_of_ours(server: Server) -> list[str]:
    return [line for line in server.log.splitlines() if line.startswith("penstock: ")]


STOPS = {
    "raises": "raises:app did not stop properly: no such ledger",
    "exits": "exits:app did not stop properly: SystemExit(3)",
    "interrupts": "interrupts:app did not stop properly: KeyboardInterrupt()",
    "is_cut": f"is_cut:app did not stop properly: {CUT}",
    "says_failed": "says_failed:app did not stop properly: the disk is full",
}
STARTS = {
    "starts_not": "the database is away",
    "exits_at_once": "SystemExit(4)",
    "raises_its_own": "Gone()",
}


def everywhere(*names: str, workers: str) -> list[tuple[str, str]]:
    """Return each name for each way; several workers do as one does, and one name shows that."""
    return [
        (name, way) for way in WAYS for name in names if way != "hypercorn -w 2" or name == workers
    ]


@pytest.mark.parametrize(("name", "way"), everywhere(*STOPS, workers="interrupts"))
def test_a_shutdown_that_fails(name: str, way: str, tmp_path: Path) -> None:
    """It says which and why; each worker does, of several."""
    with started(name, tmp_path, way) as server:
        workers = 2 if way == "hypercorn -w 2" else 1
        running = "Listening on" if way == "penstock serve" else "Running on"
        wait_until(lambda: (server.output + server.log).count(running) == workers, within=60)
        status = server.stop(within=60)
        assert [line.startswith(f"penstock: {STOPS[name]}") for line in lines_of_ours(server)] == (
            [True] * workers
        ), server.log
        assert name == "raises" or "Traceback" not in server.log
        if workers == 1:  # Hypercorn's master forgets a worker's status where several end
            assert status == 1


@pytest.mark.parametrize("name", ["has_none", "returns"])
def test_an_application_without_a_shutdown(name: str, tmp_path: Path) -> None:
    """None is missed where there is no lifespan, or where it has ended before."""
    with started(name, tmp_path) as server:
        assert server.url
        assert server.stop() == 0
        assert lines_of_ours(server) == []


def test_a_lifespan_that_dies_while_it_is_served(tmp_path: Path, curl: CurlFixture) -> None:
    """What the application keeps running is gone, so streams end properly and the process ends."""
    with started("dies", tmp_path) as server:
        stream = curl(server.url)
        assert stream.lines.readline() == b":\n"
        assert curl(f"{server.url}/die").lines.read() == b"dying"
        assert server.process.wait(timeout=60) == 1
        assert stream.status() == 0
        assert lines_of_ours(server) == [
            "penstock: dies:app failed while serving: LookupError('the database is away')"
        ]
        assert server.log.count("Traceback") >= 1


@pytest.mark.parametrize(("name", "way"), everywhere(*STARTS, workers="exits_at_once"))
def test_a_start_that_fails(name: str, way: str, tmp_path: Path) -> None:
    """One line, where Hypercorn has the traceback of its own error."""
    with started(name, tmp_path, way) as server:
        status = server.process.wait(timeout=60)
        assert status == 1 or way == "hypercorn -w 2"
        (said, *_) = lines_of_ours(server)
        assert said == f"penstock: {name}:app did not start: {STARTS[name]}"
        assert "LifespanFailureError" not in server.log
        assert name == "starts_not" or "Traceback" not in server.log


SLOW = """
import sys, trio
from hypercorn.config import Config
from penstock.hypercorn import serve

async def app(scope, receive, send):
    await receive()
    if sys.argv[1] == "startup":
        await trio.sleep_forever()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await trio.sleep_forever()

async def at_once():
    pass

config = Config()
config.bind = ["127.0.0.1:0"]
config.startup_timeout = config.shutdown_timeout = 0.1
trio.run(lambda: serve(app, config, mode="asgi", shutdown_trigger=at_once))
"""


@pytest.mark.parametrize(
    ("stage", "says"), [("startup", "did not start"), ("shutdown", "did not stop properly")]
)
def test_a_program_whose_application_takes_too_long(stage: str, says: str) -> None:
    """It gets an exception that says which of both, and for how long it was waited."""
    command = [sys.executable, "-c", SLOW, stage]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1
    last = f"the application {says}: it took longer than 0.1 s ({stage}_timeout)"
    assert ran.stderr.splitlines()[-1].endswith(f"LifespanFailed: {last}")


CTRL_C = """
import os, signal, time, trio
from hypercorn.config import Config
from penstock.hypercorn import serve

async def app(scope, receive, send):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)

config = Config()
config.bind = ["127.0.0.1:0"]
try:
    trio.run(lambda: serve(app, config, mode="asgi", shutdown_trigger=trio.sleep_forever))
except* KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_is_no_failure_of_the_application() -> None:
    """A program that handles no signal has its KeyboardInterrupt, wherever Trio raises it."""
    ran = forked.run(sys.executable, "-c", CTRL_C)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"interrupted\n", b"")
