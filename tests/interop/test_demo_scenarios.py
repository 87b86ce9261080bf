"""The demonstration's scenarios and its crowd, on real servers and sockets."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from demo_actions import ended, post, told
from guarded import config_for, guarded, settled
from hub_clients import Answer, ask, refused
from processes import HYPERCORN, PENSTOCK, Server, serving, wait_until
from quart_trio import QuartTrio

from figures import figure
from penstock.demo.application import ping
from penstock.demo.scenarios import add_scenario_routes, crowd
from penstock.demo.scenarios.catalog import SCENARIOS
from penstock.demo.scenarios.runs import ScenarioRuns
from penstock.hypercorn import Server as Guarded
from penstock.quart import EventSourceResponse

REASONS = {
    "healthy": "finished",
    "closes": "disconnected",
    "resets": "disconnected",
    "stops-reading": "slow",
    "byte-a-second": "slow",
    "vanishes": "disconnected",
    "raises": "failed",
}


# On the server as a user starts it.


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve the demonstration for several tests, with little patience."""
    arguments = ("serve", "--bind", "127.0.0.1:0", "--send-timeout", "2")
    with serving(PENSTOCK, *arguments, folder=tmp_path_factory.mktemp("scenarios")) as server:
        assert server.url
        yield server


def test_each_scenario_ends_as_promised(server: Server) -> None:
    """Right reason, in time, all at once; one traceback in the log, of the producer that raises."""
    port = server.port
    names = [name for name in SCENARIOS if name != "vanishes"]
    for number, name in enumerate(names, 1):
        answer = post(port, f"/scenarios/{name}")
        assert answer.status == 201
        row = answer.said
        assert (row["id"], row["scenario"], row["state"]) == (number, name, "running")
    rows = wait_until(lambda: ended(port))
    assert {row["scenario"]: row["reason"] for row in rows} == {
        name: REASONS[name] for name in names
    }
    assert [row["error"] for row in rows] == [None] * len(names)
    for row in rows:
        # A busy machine may be late for what is promised; and then the page says so.
        within = row["promise"]["within"]
        late = within is not None and row["took"] > within
        assert row["kept"] is not late
        at_once = row["scenario"] in ("stops-reading", "byte-a-second")
        assert row["started"] < row["triggered"] or at_once
        figure(row["took"] < 5000, f"{row['scenario']}: {row['reason']} after {row['took']} ms")
    by_name = {row["scenario"]: row for row in rows}
    assert by_name["healthy"]["received"] == by_name["healthy"]["sent"] == 10
    assert by_name["stops-reading"]["took"] >= 2000
    assert server.log.count("Traceback") == 1
    assert server.log.count("raised on purpose") == 2  # in the traceback: the line, and the error


def test_no_more_than_twenty_at_once(tmp_path: Path) -> None:
    """The next is refused with 429, until one has ended."""
    # Long enough for none to have ended before the last is refused.
    arguments = ("serve", "--bind", "127.0.0.1:0", "--send-timeout", "10")
    with serving(PENSTOCK, *arguments, folder=tmp_path) as server:
        port = server.port
        answers = [post(port, "/scenarios/stops-reading") for _ in range(21)]
        assert [answer.status for answer in answers[:20]] == [201] * 20
        assert "20 scenarios" in refused(answers[20], 429)["error"]
        rows = wait_until(lambda: ended(port))
        assert len(rows) == 20
        assert {row["reason"] for row in rows} == {"slow"}
        assert post(port, "/scenarios/closes").status == 201


def test_who_is_not_the_page_starts_nothing(server: Server) -> None:
    """Neither without an origin nor from another one, nor through a proxy."""
    port = server.port
    wait_until(lambda: ended(port))
    before = told(port)["rows"]
    for path in ("/scenarios/closes", "/crowd", "/drain"):
        refused(ask(port, "POST", path), 403)
        refused(post(port, path, Origin="http://example.org"), 403)
        refused(post(port, path, **{"Sec-Fetch-Site": "cross-site"}), 403)
        refused(post(port, path, **{"X-Forwarded-For": "127.0.0.1"}), 403)
        rebound = {"Host": f"example.org:{port}", "Origin": f"http://example.org:{port}"}
        refused(post(port, path, **rebound), 403)
    after = told(port)
    assert after["rows"] == before
    assert after["crowd"]["wanted"] == 0


def test_an_unknown_scenario(server: Server) -> None:
    """It is 404, with those that there are; and a client that nobody started gets no stream."""
    assert "byte-a-second" in refused(post(server.port, "/scenarios/none"), 404)["error"]
    refused(ask(server.port, "GET", "/scenarios/1000000"), 404)


def crowd_of(port: int) -> Any:
    return told(port)["crowd"]


def processes_of(parent: int) -> list[int]:
    """Return the processes that a process has started, in any of its threads."""
    children = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(pid) for path in children for pid in path.read_text().split()]


def test_a_crowd_comes_and_goes(server: Server) -> None:
    """All of it is there, in a process of its own; a second is refused; then it is gone."""
    port = server.port
    for _ in range(2):
        assert post(port, "/crowd", {"on": True, "count": 200}).said["wanted"] == 200
        wait_until(lambda: crowd_of(port)["open"] == 200)
        assert len(processes_of(server.process.pid)) == 1
        assert "crowd is running" in refused(post(port, "/crowd", {"on": True}), 429)["error"]
        assert post(port, "/crowd", {"on": False}).said["wanted"] == 0
        wait_until(lambda: not crowd_of(port)["open"])
        wait_until(lambda: not processes_of(server.process.pid))
    assert crowd_of(port) == {"count": 1000, "wanted": 0, "open": 0, "error": None}
    wait_until(lambda: server.log.count("/sse ") == 400)  # a thread writes the log


def is_running(pid: int) -> bool:
    """Tell whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_crowd_goes_with_its_server(number: signal.Signals, tmp_path: Path) -> None:
    """Also when that is killed, and can end nothing any more."""
    with serving(PENSTOCK, "serve", "--bind", "127.0.0.1:0", folder=tmp_path) as server:
        port = server.port
        assert post(port, "/crowd", {"on": True, "count": 20}).status == 200
        assert post(port, "/scenarios/stops-reading").status == 201
        wait_until(lambda: crowd_of(port)["open"] == 20)
        (process,) = processes_of(server.process.pid)
        assert is_running(process)
        status = server.stop(number)
        assert status == (0 if number is signal.SIGINT else -number)
        wait_until(lambda: not is_running(process))
        assert "Traceback" not in server.log


def test_a_crowd_ends_with_who_started_it(server: Server) -> None:
    """It counts itself, a number on each line; and goes when its standard input ends."""
    command = [sys.executable, crowd.__file__, f"{server.url}/sse", "5", "0.2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        try:
            said = [0]
            while said[-1] != 5:
                said.append(int(program.stdout.readline()))
            assert said == sorted(said)
            program.stdin.close()
            assert program.wait(timeout=60) == 0
        finally:
            program.kill()


def test_another_server_promises_nothing(tmp_path: Path) -> None:
    """Under the stock Hypercorn one sees what happens, and is not offered a drain."""
    arguments = ("-k", "trio", "-b", "127.0.0.1:0", "penstock.demo.asgi:app")
    with serving(HYPERCORN, *arguments, folder=tmp_path) as server:
        port = server.port
        assert post(port, "/scenarios/healthy").status == 201
        assert "penstock serve" in refused(post(port, "/drain"), 409)["error"]
        (row,) = wait_until(lambda: ended(port))
        assert (row["reason"], row["received"], row["kept"]) == ("finished", 10, None)
        assert row["promise"]["text"].startswith("no promise")


# In this Trio run, where the kernel can be told to be impatient, and tasks can be counted.


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[tuple[Guarded, int, ScenarioRuns]]:
    """Serve an application with the scenarios, while the block runs."""
    app = QuartTrio(__name__)
    runs, _ = add_scenario_routes(app)

    @app.get("/sse")
    async def sse() -> EventSourceResponse:
        return EventSourceResponse(ping)

    async with guarded(app, **settings) as (server, port):
        yield server, port, runs


async def posted(port: int, path: str, said: Any = None, **headers: str) -> Answer:
    def post_() -> Answer:
        return post(port, path, said, **headers)

    return await trio.to_thread.run_sync(post_)


async def rows_when_ended(runs: ScenarioRuns) -> list[dict[str, Any]]:
    while any(row["state"] == "running" for row in runs.rows()):  # noqa: ASYNC110 - no event
        await trio.sleep(0.01)
    return runs.rows()


async def test_who_vanishes_is_found_by_the_kernel() -> None:
    """It never said a word: no FIN and no RST; the time-out for what is unacknowledged ends it."""
    async with served(tcp_user_timeout=1.5) as (_, port, runs):
        assert (await posted(port, "/scenarios/vanishes")).status == 201
        (row,) = await rows_when_ended(runs)
        print(f"vanished: {row['took']} ms")
        assert (row["reason"], row["error"], row["kept"]) == ("disconnected", None, True)
        # Before the filter, a FIN or RST would have ended it in a millisecond.
        assert row["took"] >= 1500
        assert row["promise"]["within"] == 16500


async def test_nothing_is_left_of_any() -> None:
    """After one of each, there are as many tasks and connections as before."""
    # On a busy machine the server may look late at who reads nothing: the kernel must not be first.
    async with served(tcp_user_timeout=6, send_timeout=1) as (server, port, runs):
        # The first also starts Trio's threads, and imports what is imported late.
        await posted(port, "/scenarios/healthy")
        await rows_when_ended(runs)
        await settled(server, connections_open=0)
        before = server.statistics().tasks
        files = len(os.listdir("/proc/self/fd"))
        for name in SCENARIOS:
            assert (await posted(port, f"/scenarios/{name}")).status == 201
        rows = await rows_when_ended(runs)
        assert {row["scenario"]: row["reason"] for row in rows} == REASONS
        await settled(server, connections_open=0, tasks=before)
        assert len(os.listdir("/proc/self/fd")) == files


@pytest.mark.parametrize("name", ["byte-a-second", "vanishes", "healthy"])
async def test_the_servers_stop_ends_them(name: str) -> None:
    """In the middle of it; it is no breach of the promise, and the application's own."""
    async with served() as (_, port, runs):
        assert (await posted(port, f"/scenarios/{name}")).status == 201
        while not runs.rows()[0]["sent"] and name != "byte-a-second":  # noqa: ASYNC110
            await trio.sleep(0.01)
        await trio.sleep(0.1)
    (row,) = runs.rows()
    assert (row["state"], row["kept"]) == ("ended", None)
    assert row["reason"] == "draining"


async def test_over_tls(tmp_path: Path) -> None:
    """The clients speak it, and look at no certificate: it is the server's own."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    config = config_for()
    config.certfile, config.keyfile = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    certificate.private_key_pem.write_to_path(config.keyfile)
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(config.certfile, append=True)
    app = QuartTrio(__name__)
    runs, _ = add_scenario_routes(app)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with guarded(app, config=config, send_timeout=1, tcp_user_timeout=6) as (_, port):
        for name in SCENARIOS:
            stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", port, ssl_context=context)
            async with stream:
                authority_ = f"127.0.0.1:{port}"
                await stream.send_all(
                    f"POST /scenarios/{name} HTTP/1.1\r\nHost: {authority_}\r\n"
                    f"Origin: https://{authority_}\r\nContent-Length: 0\r\n\r\n".encode()
                )
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 201 ")
        rows = await rows_when_ended(runs)
        assert {row["scenario"]: (row["reason"], row["error"]) for row in rows} == {
            name: (reason, None) for name, reason in REASONS.items()
        }
