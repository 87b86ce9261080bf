"""The demonstration's hub at its stop and after it: what is kept, and what a browser hears."""

from __future__ import annotations

import itertools
import json
import re
import resource
import signal
import threading
from http.client import HTTPException
from pathlib import Path

import pytest
from hub_clients import JSON, LINES, Listener, ask, publish, refused
from playwright.sync_api import Page
from processes import PENSTOCK, Server, serving, wait_until

from penstock.demo.hub_routes import HISTORY

# The stop


def listening(port: int, count: int) -> list[Listener]:
    return [Listener(port, "?topic=a").greeted() for _ in range(count)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_hubs_streams(demo: Server, number: signal.Signals) -> None:
    """Each has what was published, its own time to come back, and a proper end; the status is 0."""
    streams = listening(demo.port, 30)
    try:
        publish(demo.port, *({"topics": ["a"], "data": str(n)} for n in range(5)))
        assert demo.stop(number) == 0
        retries = set()
        for stream in streams:
            assert [event.data for event in stream.rest()] == ["0", "1", "2", "3", "4"]
            assert re.search(rb"\nretry: \d+\n$", stream.raw)
            retries.add(stream.retry)
        assert len(retries) > 15
        assert min(retry or 0 for retry in retries) >= 500
        assert demo.log.count("draining after") == 30
        assert "Traceback" not in demo.log
    finally:
        for stream in streams:
            stream.__exit__()


@pytest.fixture(params=["memory", "file"])
def history(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str | None:
    """Have the demonstration keep its history in memory, or in a file."""
    if request.param == "memory":
        monkeypatch.delenv(HISTORY, raising=False)
        return None
    path = str(tmp_path / "history.db")
    monkeypatch.setenv(HISTORY, path)
    return path


class Publisher:
    """Publishes batches until the server takes no more, and notes what became of each."""

    def __init__(self, port: int, name: str) -> None:
        self.acknowledged: list[str] = []
        self.refused: list[str] = []
        self._port = port
        self._name = name
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> None:
        """Wait until it has noticed that the server is gone."""
        self._thread.join()

    def _run(self) -> None:
        for count in itertools.count():
            ids = [f"{self._name}-{count}-{number}" for number in range(20)]
            events = ({"topics": ["a"], "data": "x" * 1000, "id": id_} for id_ in ids)
            body = b"".join(json.dumps(event).encode() + b"\n" for event in events)
            try:
                answer = ask(self._port, "POST", "/publish", body, LINES)
            except (OSError, HTTPException):
                return  # nobody knows what became of these
            if answer.status == 200:
                assert answer.said["ids"] == ids
                self.acknowledged += ids
            else:
                refused(answer, 503)
                self.refused += ids


def test_what_is_published_at_the_stop(history: str | None, tmp_path: Path) -> None:
    """It is acknowledged and kept, or refused, or nobody knows; and what is heard was kept."""
    with serving(PENSTOCK, "serve", "--bind", "127.0.0.1:0", folder=tmp_path) as server:
        with Listener(server.port, "?topic=a").greeted() as listener:
            publishers = [Publisher(server.port, name) for name in "abcd"]
            heard = [listener.event().id or "" for _ in range(2000)]
            server.process.send_signal(signal.SIGTERM)
            heard += [event.id or "" for event in listener.rest()]
            status = server.process.wait(timeout=60)
            for publisher in publishers:
                publisher.end()
        assert status == 0
        assert "Traceback" not in server.log
    acknowledged = [id_ for publisher in publishers for id_ in publisher.acknowledged]
    assert len(heard) == len(set(heard))
    print(f"{len(acknowledged)} acknowledged, {len(heard)} heard before the stream ended")
    if history is None:
        return
    with serving(PENSTOCK, "serve", "--bind", "127.0.0.1:0", folder=tmp_path) as server:
        with Listener(server.port, "?topic=a&last_event_id=earliest") as again:
            publish(server.port, {"topics": ["a"], "data": "x", "id": "last"})
            kept: list[str] = []
            while "last" not in kept[-1:]:
                kept.append(again.event().id or "")
    assert len(kept) == len(set(kept))
    assert kept[: len(heard)] == heard
    assert set(acknowledged) <= set(kept)
    assert not {id_ for publisher in publishers for id_ in publisher.refused} & set(kept)


# A file that outlives the server


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the demonstration keep its history in a file."""
    path = tmp_path / "history.db"
    monkeypatch.setenv(HISTORY, str(path))
    return path


def test_a_full_disk_is_told_and_overcome(kept: Path, tmp_path: Path) -> None:
    """503, and nothing was published; with room again it is; what was acknowledged is all there."""
    with serving(PENSTOCK, "serve", "--bind", "127.0.0.1:0", folder=tmp_path) as server:
        port, pid = server.port, server.process.pid
        taken = publish(port, *({"topics": ["a"], "data": "x" * 1000} for _ in range(100)))
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (512 * 1024, before[1]))
        with Listener(port, "?topic=a").greeted() as listener:
            body = json.dumps({"topics": ["a"], "data": "y" * 2**18}).encode()
            refusals = [
                answer
                for answer in (ask(port, "POST", "/publish", body, JSON) for _ in range(5))
                if answer.status != 200
            ]
            assert refusals
            for refusal in refusals:
                said = refused(refusal, 503)["error"]
                assert said.startswith("nothing was published: ")
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
            more = publish(port, {"topics": ["a"], "data": "z"})
            heard = 5 - len(refusals)
            assert [len(data or "") for data in listener.data(heard + 1)] == [2**18] * heard + [1]
        with Listener(port, "?topic=a&last_event_id=earliest") as listener:
            events = [listener.event() for _ in range(101 + heard)]
            assert [event.id for event in events[:100]] == taken
            assert events[-1].id == more[0]
        assert server.stop() == 0
        assert "Traceback" not in server.log


def test_a_file_that_is_not_a_history_is_not_touched(kept: Path, tmp_path: Path) -> None:
    """The server does not start, and the one line that it says tells why."""
    kept.write_text("precious\n" * 1000)
    with serving(PENSTOCK, "serve", "--bind", "127.0.0.1:0", folder=tmp_path) as server:
        assert server.process.wait(timeout=60) == 1
        (line,) = server.log.splitlines()
        assert line.startswith("penstock: penstock.demo.asgi:app did not start: ")
        assert str(kept) in line
    assert kept.read_text() == "precious\n" * 1000


def test_one_goes_on_after_a_restart(kept: Path, tmp_path: Path) -> None:
    """What was acknowledged comes, though the server was killed meanwhile."""
    with serving(PENSTOCK, "serve", "--bind", "127.0.0.1:0", folder=tmp_path) as server:
        ids = publish(server.port, *({"topics": ["a"], "data": str(n)} for n in range(500)))
        with Listener(server.port, "?topic=a&last_event_id=earliest") as listener:
            assert listener.data(100) == [str(n) for n in range(100)]
        server.process.kill()
    with serving(PENSTOCK, "serve", "--bind", "127.0.0.1:0", folder=tmp_path) as server:
        with Listener(server.port, "?topic=a", **{"Last-Event-ID": ids[99]}) as listener:
            assert listener.data(400) == [str(n) for n in range(100, 500)]
            publish(server.port, {"topics": ["a"], "data": "new"})
            assert listener.data(1) == ["new"]


# In a browser

PAGE = """<!doctype html>
<title>Listening</title>
<link rel="icon" href="data:,">
<script>
const heard = [], gaps = [], counts = {open: 0, error: 0};
let source;
function listen(url) {
  source = new EventSource(url);
  source.onopen = () => counts.open++;
  source.onerror = () => counts.error++;
  source.onmessage = (event) => heard.push([event.lastEventId, event.data]);
  source.addEventListener("gap", (event) => gaps.push([event.lastEventId, event.data]));
}
</script>
"""


def listen_in(page: Page, server: Server, url: str) -> None:
    """Have a page of the server's own origin listen."""
    page.route("**/listening", lambda route: route.fulfill(content_type="text/html", body=PAGE))
    page.goto(f"{server.url}/listening")
    page.evaluate("(url) => listen(url)", url)
    page.wait_for_function("counts.open === 1")


def keep_away(page: Page) -> None:
    """Let the page's next requests for a stream fail, as they do while nobody listens."""
    page.route("**/subscribe*", lambda route: route.abort("connectionrefused"))


def let_back(page: Page) -> None:
    """Let the page reach the server again, when it tries the next time."""
    page.unroute("**/subscribe*")


def test_a_browser_hears_of_a_gap(demo: Server, page: Page) -> None:
    """`addEventListener("gap", …)` does; it goes on at the id that the gap told."""
    publish(demo.port, {"topics": ["a"], "data": "missed"})
    listen_in(page, demo, "/subscribe?topic=a&last_event_id=long-gone")
    page.wait_for_function("gaps.length === 1")
    ((there, data),) = page.evaluate("gaps")
    assert there.startswith("urn:penstock:position:")
    assert data == '{"last_event_id":"long-gone"}'
    (new,) = publish(demo.port, {"topics": ["a"], "data": "new"})
    page.wait_for_function("heard.length === 1")
    assert page.evaluate("heard") == [[new, "new"]]
    assert page.evaluate("counts") == {"open": 1, "error": 0}


def test_a_browser_misses_nothing_across_a_restart(kept: Path, page: Page, tmp_path: Path) -> None:
    """Its own reconnection brings what it missed, in order and once; nothing else does."""
    with serving(PENSTOCK, "serve", "--bind", "127.0.0.1:0", folder=tmp_path) as first:
        bind = f"127.0.0.1:{first.port}"
        listen_in(page, first, "/subscribe?topic=a")
        ids = publish(first.port, *({"topics": ["a"], "data": str(n)} for n in range(10)))
        page.wait_for_function("heard.length === 10")
        keep_away(page)
        assert first.stop() == 0
        page.wait_for_function("counts.error >= 1")
    with serving(PENSTOCK, "serve", "--bind", bind, folder=tmp_path) as second:
        assert second.url
        ids += publish(second.port, *({"topics": ["a"], "data": str(n)} for n in range(10, 400)))
        assert page.evaluate("counts.open") == 1
        let_back(page)
        page.wait_for_function("counts.open === 2", timeout=60_000)
        ids += publish(second.port, *({"topics": ["a"], "data": str(n)} for n in range(400, 420)))
        page.wait_for_function("heard.length >= 420", timeout=60_000)
        assert page.evaluate("heard") == [[id_, str(n)] for n, id_ in enumerate(ids)]
        assert page.evaluate("gaps") == []
        keep_away(page)
        errors = page.evaluate("counts.error")
        second.process.kill()
        second.process.wait()
        page.wait_for_function("(before) => counts.error > before", arg=errors)
    with serving(PENSTOCK, "serve", "--bind", bind, folder=tmp_path) as third:
        assert third.url
        ids += publish(third.port, *({"topics": ["a"], "data": str(n)} for n in range(420, 430)))
        let_back(page)
        page.wait_for_function("heard.length >= 430", timeout=60_000)
        assert page.evaluate("heard") == [[id_, str(n)] for n, id_ in enumerate(ids)]
        assert page.evaluate("gaps") == []


def test_a_browser_that_heard_nothing_yet_misses_nothing(
    kept: Path, page: Page, tmp_path: Path
) -> None:
    """The block without data at the beginning told it where to go on."""
    with serving(PENSTOCK, "serve", "--bind", "127.0.0.1:0", folder=tmp_path) as first:
        bind = f"127.0.0.1:{first.port}"
        publish(first.port, {"topics": ["a"], "data": "before"})
        listen_in(page, first, "/subscribe?topic=a")
        wait_until(lambda: page.evaluate("counts.open") == 1)
        keep_away(page)
        assert first.stop() == 0
        page.wait_for_function("counts.error >= 1")
    with serving(PENSTOCK, "serve", "--bind", bind, folder=tmp_path) as second:
        assert second.url
        publish(second.port, {"topics": ["a"], "data": "missed"})
        let_back(page)
        page.wait_for_function("heard.length >= 1", timeout=60_000)
        assert [data for _, data in page.evaluate("heard")] == ["missed"]
