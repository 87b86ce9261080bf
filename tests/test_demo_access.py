"""Who may use the demonstration's destructive actions, and its restart."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import trio
from quart_trio import QuartTrio

from demo_requests import ELSEWHERE, HERE, PAGE, answer_to
from penstock.demo.access_control import ACTIONS
from penstock.demo.restart import Restart
from penstock.demo.scenarios import add_scenario_routes
from penstock.hypercorn import Settings
from penstock.hypercorn.settings import SETTINGS
from penstock.testing import FakeClient

# Access. A scenario that does not exist is started: clients with access get 404.


@pytest.mark.parametrize(
    ("client", "headers", "here", "everywhere"),
    [
        (HERE, PAGE, 404, 404),
        (HERE, {**PAGE, "sec-fetch-site": "same-origin"}, 404, 404),
        (("::1", 1), {"host": "[::1]:81", "origin": "http://[::1]:81"}, 404, 404),
        (HERE, {"host": "localhost", "origin": "http://localhost"}, 404, 404),
        # Not of the page.
        (HERE, {"host": "127.0.0.1:8080"}, 403, 403),
        (HERE, {**PAGE, "origin": "null"}, 403, 403),
        (HERE, {**PAGE, "origin": ""}, 403, 403),
        (HERE, {**PAGE, "origin": "http://127.0.0.1:8081"}, 403, 403),
        (HERE, {**PAGE, "origin": "https://127.0.0.1:8080"}, 403, 403),
        (HERE, {**PAGE, "origin": "http://localhost:8080"}, 403, 403),
        (HERE, {**PAGE, "origin": "http://example.org"}, 403, 403),
        (HERE, {**PAGE, "sec-fetch-site": "cross-site"}, 403, 403),
        (HERE, {**PAGE, "sec-fetch-site": "same-site"}, 403, 403),
        (HERE, {**PAGE, "sec-fetch-site": "none"}, 403, 403),
        # Of a page, which is not of this machine.
        (ELSEWHERE, PAGE, 403, 404),
        (HERE, {"host": "example.org", "origin": "http://example.org"}, 403, 404),
        (HERE, {**PAGE, "x-forwarded-for": "127.0.0.1"}, 403, 404),
        (HERE, {**PAGE, "Via": "1.1 localhost"}, 403, 404),
        (None, PAGE, 403, 404),
    ],
)
@pytest.mark.parametrize("path", ["/scenarios/none", "/crowd", "/drain"])
async def test_who_has_access(
    path: str,
    client: Any,
    headers: dict[str, str],
    here: int,
    everywhere: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The page's own origin: on this machine, everywhere if it is switched on, else nowhere."""
    allowed = {"/scenarios/none": 404, "/crowd": 400, "/drain": 409}[path]
    for switch, expected in (("", here), ("1", everywhere), ("0", 403), ("yes", 403)):
        monkeypatch.setenv(ACTIONS, switch)
        app = QuartTrio(__name__)
        add_scenario_routes(app)
        status, said = await answer_to(app, "POST", path, client=client, headers=headers)
        assert status == (403 if expected == 403 else allowed)
        assert said["error"]
        status, said = await answer_to(app, "GET", "/scenarios", client=client, headers=headers)
        assert status == 200
        assert said["allowed"] == (said["why"] is None)
        if switch in ("0", "yes"):
            assert ACTIONS in said["why"]
            buttons = [*said["scenarios"], said["drain"]]
            assert {each["why_not"] for each in buttons} == {"switched off"}
        if expected == 404:
            assert said["allowed"]


@pytest.mark.parametrize("path", ["/scenarios/healthy", "/crowd", "/drain"])
async def test_only_post_starts_anything(path: str) -> None:
    """Other methods than POST start nothing."""
    app = QuartTrio(__name__)
    runs, _ = add_scenario_routes(app)
    for method in ("GET", "PUT", "DELETE"):
        client = FakeClient(app, path, method=method, client=HERE, headers=PAGE)
        await client.run()
        assert client.status in (404, 405)
    assert runs.rows() == []


@pytest.mark.parametrize(
    "body", [b"", b"on", b"[]", b'{"on": 1}', b'{"on": true, "count": 0}', b'{"count": 5}']
)
async def test_a_crowd_is_asked_for_in_json(body: bytes) -> None:
    """Anything else than on and off is 400, and says what is right."""
    app = QuartTrio(__name__)
    _, crowd = add_scenario_routes(app)
    client = FakeClient(app, "/crowd", method="POST", client=HERE, headers=PAGE)
    told = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        for message in told:
            return message
        return await trio.sleep_forever()

    client._receive = receive  # type: ignore[method-assign]  # which sends no body
    await client.run()
    assert client.status == 400
    assert '{"on": true}' in json.loads(client.body)["error"]
    assert crowd.state() == {"count": 1000, "wanted": 0, "open": 0, "error": None}


# The drain.


async def test_a_drain_needs_a_command_that_restarts() -> None:
    """Without one it is refused with the reason; with one it is requested."""

    def demonstration(restart: Restart | None) -> QuartTrio:
        app = QuartTrio(__name__)
        add_scenario_routes(app, restart)
        return app

    status, said = await answer_to(demonstration(None), "POST", "/drain")
    assert status == 409
    assert "penstock serve" in said["error"]
    port = Restart(why_not="its port is not its own")
    status, said = await answer_to(demonstration(port), "POST", "/drain")
    assert (status, said["error"]) == (409, "its port is not its own")
    assert not port.requested.is_set()
    restart = Restart()
    app, offered = demonstration(restart), {SETTINGS: Settings(drain_window=2)}
    status, said = await answer_to(app, "GET", "/scenarios", extensions=offered)
    assert said["drain"]["why_not"] is None
    assert not restart.due
    status, said = await answer_to(app, "POST", "/drain", extensions=offered)
    assert status == 202
    assert "within 2 s" in said["text"]
    assert restart.due


def test_a_restart_that_cannot_be_is_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A program that is no longer there ends the process with a line of the log and status 1."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    restart = Restart()
    restart.request()
    with pytest.raises(SystemExit) as caught:
        restart.execute()
    assert caught.value.code == 1
    *_, record = caplog.records
    assert record.getMessage() == "Cannot start again: /nowhere/python: No such file or directory"
    assert record.exc_info is None


def test_a_restart_that_is_not_due_does_nothing() -> None:
    """Not asked for, or asked for at the moment at which a signal said that it is for good."""
    restart = Restart()
    restart.execute()
    restart.request()
    restart.why_not = "the server is stopping permanently"
    assert not restart.due
    restart.execute()
