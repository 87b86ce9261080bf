"""The page of the demonstration, and the seed's own JavaScript, in real Chromium."""

from __future__ import annotations

import itertools
import re
import sys
import time
from pathlib import Path
from typing import Literal

from chromium import chromium
from live_page import unanswered
from playwright.sync_api import Browser, Page, Playwright, Route, ViewportSize, expect
from processes import PENSTOCK, Server, serving

from figures import figure

# The client of the Go program's page: a named listener, and `onmessage`, which a named event
# never reaches.
SEED = """<!doctype html>
<title>The seed</title>
<script>
const heard = {open: 0, ping: [], message: [], error: 0};
const source = new EventSource("URL_OF_STREAM");
source.onopen = () => heard.open++;
source.addEventListener("ping", (event) => heard.ping.push([event.lastEventId, event.data]));
source.onmessage = (event) => heard.message.push([event.lastEventId, event.data]);
source.onerror = () => heard.error++;
</script>
"""


def count(page: Page, stream: str, handler: str) -> int:
    return int(page.locator(f'[data-count="{stream} {handler}"]').inner_text())


def wait_for_count(
    page: Page, stream: str, handler: str, least: int, *, within: float = 10
) -> None:
    page.wait_for_function(
        "([name, least]) => Number(document.querySelector(`[data-count='${name}']`).textContent)"
        " >= least",
        arg=[f"{stream} {handler}", least],
        timeout=within * 1000,
    )


def test_named_and_unnamed(shared_demo: Server, page: Page) -> None:
    """A named event never reaches onmessage, and an unnamed one never the listener."""
    page.goto(shared_demo.url)
    wait_for_count(page, "sse", "ping", 4)
    wait_for_count(page, "ticks", "message", 2)
    assert count(page, "sse", "message") == 0
    assert count(page, "ticks", "ping") == 0
    for stream in ("sse", "ticks"):
        assert count(page, stream, "open") == 1
        assert count(page, stream, "error") == 0
        card = page.locator(f"#{stream}")
        expect(card.locator(".state-text")).to_have_text("open")
        shown = int(card.locator(".last-id").inner_text())
        assert abs(shown - time.time()) < 120
    assert re.search(r"/sse\s*listener \"ping\": \d{10}", page.inner_text("#log"))
    assert re.search(r"/ticks\s*onmessage: \d{10}", page.inner_text("#log"))


def test_onopen_fires_before_the_first_event(shared_demo: Server, page: Page) -> None:
    """It fires on a stream on which nothing is ever sent."""
    page.goto(shared_demo.url)
    for stream in ("sse", "ticks"):
        after = opened_after(page, stream)
        figure(after < 300, f"/{stream}: onopen after {after} ms")
    heard = page.evaluate(
        """() => new Promise((resolve) => {
          const source = new EventSource("/subscribe?topic=nobody-publishes-here");
          source.onopen = () => { source.close(); resolve("open"); };
          source.onmessage = source.onerror = (event) => resolve(event.type);
        })"""
    )
    assert heard == "open"


def test_the_time_until_onopen_is_measured(shared_demo: Server, page: Page) -> None:
    """A response that is held back for 400 ms is shown as late as it is."""

    def late(route: Route) -> None:
        time.sleep(0.4)
        route.continue_()

    page.route("**/ticks", late)
    page.goto(shared_demo.url)
    assert opened_after(page, "ticks") >= 400


def opened_after(page: Page, stream: str) -> int:
    wait_for_count(page, stream, "open", 1)
    said = re.search(rf"/{stream}\s*onopen, (\d+) ms", page.inner_text("#log"))
    assert said is not None
    return int(said[1])


def test_counts_are_the_servers(demo: Server, page: Page) -> None:
    """What a page counted of a stream is what the server says that it sent."""
    page.goto(demo.url)
    wait_for_count(page, "ticks", "message", 1)
    for stream, handler in (("sse", "ping"), ("ticks", "message")):
        page.locator(f"#{stream}").get_by_role("button", name="Disconnect").click()
        sent = demo.wait_for_log(rf"/{stream} .* (\d+) events? sent")
        # Events that were on their way when the button was pressed are not counted by the page.
        assert 0 <= int(sent[1]) - count(page, stream, handler) <= 20
        line = {"ping": 'listener "ping"', "message": "onmessage"}[handler]
        assert count(page, stream, handler) == page.inner_text("#log").count(line)


def test_id_and_data_are_told_apart(shared_demo: Server, page: Page) -> None:
    """The last id is the id's field, and the last data is the data's."""
    body = "id: 7\nevent: ping\ndata: x\n\n"
    page.route("**/sse", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    page.goto(shared_demo.url)
    wait_for_count(page, "sse", "ping", 1)
    expect(page.locator("#sse .last-id")).to_have_text("7")
    expect(page.locator("#sse .last-data")).to_have_text("x")


def test_a_connection_that_gets_no_answer_is_explained(shared_demo: Server, page: Page) -> None:
    """The seventh connection of a browser to a host waits: the page says why."""
    with unanswered(page, "**/ticks"):
        page.goto(shared_demo.url)
        wait_for_count(page, "sse", "ping", 7)
        log = page.inner_text("#log")
        assert re.search(r"/ticks\s*still connecting: .* six connections", log)
        assert not re.search(r"/sse\s*still connecting", log)
        expect(page.locator("#ticks .state-text")).to_have_text("connecting")


def test_the_log_stays_short(shared_demo: Server, page: Page) -> None:
    """A page that is open for days does not grow."""
    page.goto(shared_demo.url)
    page.evaluate(
        "() => { for (let n = 0; n < 250; n++) document.querySelector('#log')"
        ".append(document.createElement('li')); }"
    )
    before = count(page, "sse", "ping")
    wait_for_count(page, "sse", "ping", before + 1)
    assert page.locator("#log li").count() == 200


def test_a_closed_page_is_a_disconnect(demo: Server, browser: Browser) -> None:
    """The log names the reason, and says that the producer was cancelled."""
    page = browser.new_page(reduced_motion="reduce")
    page.goto(demo.url)
    wait_for_count(page, "sse", "ping", 1)
    start = time.monotonic()
    page.close()
    for stream in ("sse", "ticks"):
        demo.wait_for_log(f"/{stream} .* disconnected after .*, producer cancelled")
    seconds = time.monotonic() - start
    figure(seconds < 1, f"both disconnects logged after {seconds:.3f} s")


def test_buttons(demo: Server, page: Page) -> None:
    """Disconnect closes one stream on the server, and connect opens a new one; by keyboard, too."""
    page.goto(demo.url)
    card = page.locator("#sse")
    wait_for_count(page, "sse", "ping", 1)
    card.get_by_role("button", name="Disconnect").click()
    expect(card.locator(".state-text")).to_have_text("closed")
    demo.wait_for_log("/sse .* disconnected after")
    assert "/ticks" not in demo.log
    expect(card.get_by_role("button", name="Connect", exact=True)).to_be_focused()
    heard = count(page, "sse", "ping")
    page.keyboard.press("Enter")
    wait_for_count(page, "sse", "open", 2)
    wait_for_count(page, "sse", "ping", heard + 1)
    expect(card.get_by_role("button", name="Disconnect")).to_be_focused()


def test_copy(shared_demo: Server, browser: Browser) -> None:
    """The three lines are copied, or where the browser forbids it selected, for Ctrl-C."""
    with browser.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        page = context.new_page()
        page.goto(shared_demo.url)
        copy = page.get_by_role("button", name="Copy")
        copy.click()
        expect(page.locator("#copy")).to_have_text("Copied")
        copied = page.evaluate("() => navigator.clipboard.readText()")
        context.clear_permissions()
        page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(); }")
        page.locator("#copy").click()
        expect(page.locator("#copy")).to_have_text(re.compile("Selected"))
        selected = page.evaluate("() => String(getSelection())")
    for said in (copied, selected):
        lines = said.strip().splitlines()
        assert len(lines) == 3
        assert lines[0] == 'const source = new EventSource("/sse");'


def test_a_page_that_is_left_is_a_disconnect(demo: Server, playwright: Playwright) -> None:
    """A browser may keep it for the way back: its streams end, and come back with it."""
    with chromium(playwright, keep_pages=True) as browser:
        page = browser.new_page()
        page.goto(demo.url)
        wait_for_count(page, "sse", "ping", 1)
        page.goto(f"{demo.url}/nothing")
        for stream in ("sse", "ticks"):
            demo.wait_for_log(f"/{stream} .* disconnected after")
        page.evaluate("() => { history.back(); }")
        # A page that was loaded anew would not come to a second `onopen`.
        wait_for_count(page, "sse", "open", 2)
        wait_for_count(page, "sse", "ping", count(page, "sse", "ping") + 1)
        page.close()


def test_reconnects_when_the_server_is_back(tmp_path: Path, page: Page) -> None:
    """The browser waits for its `retry`, tries again, and goes on; onerror tells of the gap."""
    with serving(PENSTOCK, "serve", "--bind", "127.0.0.1:0", folder=tmp_path) as first:
        bind, url = f"127.0.0.1:{first.port}", first.url
        page.goto(url)
        wait_for_count(page, "sse", "ping", 2)
        wait_for_count(page, "ticks", "open", 1)
        assert first.stop() == 0
        wait_for_count(page, "sse", "error", 1)
        expect(page.locator("#sse .state-text")).to_have_text("reconnecting")
        heard = count(page, "sse", "ping")
    with serving(PENSTOCK, "serve", "--bind", bind, folder=tmp_path) as second:
        assert second.url == url
        wait_for_count(page, "sse", "open", 2)
        wait_for_count(page, "ticks", "open", 2)
        wait_for_count(page, "sse", "ping", heard + 1)
        expect(page.locator("#sse .state-text")).to_have_text("open")


def test_the_seeds_javascript_from_another_origin(
    shared_demo: Server, tmp_path: Path, page: Page
) -> None:
    """`new EventSource`, `addEventListener("ping")` and `onmessage` work across origins."""
    static = (sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1")
    with serving(*static, folder=tmp_path, cwd=tmp_path) as elsewhere:
        assert shared_demo.url != elsewhere.url
        for path, handler, other in (("sse", "ping", "message"), ("ticks", "message", "ping")):
            seed = SEED.replace("URL_OF_STREAM", f"{shared_demo.url}/{path}")
            (tmp_path / f"{path}.html").write_text(seed)
            page.goto(f"{elsewhere.url}/{path}.html")
            page.wait_for_function(f"heard.{handler}.length >= 2")
            heard = page.evaluate("heard")
            assert (heard["open"], heard["error"], heard[other]) == (1, 0, [])
            for last_event_id, data in heard[handler]:
                assert last_event_id == data
                assert abs(int(data) - time.time()) < 10


def test_fits_and_is_legible(shared_demo: Server, browser: Browser) -> None:
    """No sideways scrolling at 360 px, and text that stands off its ground, light and dark."""
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    page = browser.new_page(viewport=ViewportSize(width=360, height=800), reduced_motion="reduce")
    page.goto(shared_demo.url)
    wait_for_count(page, "ticks", "message", 1)
    for width, scheme in itertools.product((360, 1280), schemes):
        page.set_viewport_size(ViewportSize(width=width, height=800))
        page.emulate_media(color_scheme=scheme)
        shown = page.evaluate("[innerWidth, matchMedia('(prefers-color-scheme: dark)').matches]")
        assert shown == [width, scheme == "dark"]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 20
        assert min(contrasts.values()) >= 4.5, contrasts
    page.close()


# WCAG 2.2, "contrast ratio", of every text on the page against the ground it stands on.
CONTRASTS = """
() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const result = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const element = walker.currentNode.parentElement;
    if (!text || element.disabled) continue;
    const [a, b] = [parse(getComputedStyle(element).color), ground(element)].map(light);
    result[text.slice(0, 40)] = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }
  return result;
}
"""


def test_everything_comes_from_the_server(shared_demo: Server, browser: Browser) -> None:
    """The browser asks nobody else for anything, and gets all it asks for."""
    page = browser.new_page(reduced_motion="reduce")
    asked: list[tuple[str, int]] = []
    page.on("response", lambda response: asked.append((response.url, response.status)))
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.goto(shared_demo.url)
    wait_for_count(page, "ticks", "message", 1)
    assert len(asked) >= 5
    assert all(url.startswith(shared_demo.url) and status == 200 for url, status in asked), asked
    assert not failed
    page.close()
