"""The live part of the demonstration's page, in real Chromium, beside what the server says."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

from live_page import (
    DRAWN,
    client,
    connections,
    live,
    opened,
    quiet,
    told,
    unanswered,
    wait_until_same,
)
from playwright.sync_api import Browser, Page, ViewportSize, expect
from processes import PENSTOCK, Server, serving, wait_until

from figures import figure
from penstock.demo import application

__all__ = ["quiet"]  # a fixture

GO = Path(__file__).parents[2] / "web" / "docs" / "go.md"


def test_the_tree_is_what_the_stream_says(
    shared_demo: Server, page: Page, browser: Browser
) -> None:
    """Every node is drawn under its parent, with its name, while clients come and go."""
    live(page, shared_demo)
    with told(browser, shared_demo) as watcher:
        wait_until_same(page, watcher)
        with client(shared_demo), client(shared_demo, "/ticks") as last:
            name = f"connection {last}"
            wait_until(lambda: name in connections(page))
            wait_until_same(page, watcher)
        wait_until(lambda: name not in connections(page))
        wait_until_same(page, watcher)


def test_this_page_is_marked(shared_demo: Server, page: Page) -> None:
    """The branch of the page's own stream of the tree says so, and no other does."""
    live(page, shared_demo)
    mine = page.locator("li:has(> .row > .badge.you:visible)")
    expect(mine).to_have_count(1)
    expect(mine).to_contain_text("producer of /tree")


def test_a_client_that_goes_is_seen_as_cancelled(demo: Server, page: Page) -> None:
    """Its producer is struck through, and said to be cancelled, for a second; then it is gone."""
    opened(page, demo)
    with client(demo) as address:
        row = page.locator(f'.row:has(.name[title="producer of /sse {address}"])')
        expect(row).to_contain_text("waits for its next turn")
        expect(row.locator(".badge.dead")).to_be_hidden()
        page.evaluate(
            """(title) => {
              const row = document.querySelector(`[title="${title}"]`).closest("li");
              const look = () => {
                const now = performance.now();
                if (row.classList.contains("cancelled") && !window.first) {
                  const name = row.querySelector(".name"), badge = row.querySelector(".badge.dead");
                  window.first = now;
                  window.line = getComputedStyle(name).textDecorationLine;
                  window.badge = badge.checkVisibility();
                }
                if (window.first && !row.isConnected) window.seen ??= now - window.first;
              };
              // At each change, however busy the machine is: a frame, or Playwright, may be late.
              new MutationObserver(look).observe(document.querySelector("#tree"), {
                attributes: true, childList: true, subtree: true,
              });
            }""",
            f"producer of /sse {address}",
        )
    expect(row).to_have_count(0)
    assert page.evaluate("[window.line, window.badge]") == ["line-through", True]
    seen = page.evaluate("window.seen")
    assert seen > 0
    figure(950 <= seen < 4000, f"seen as cancelled for {seen:.0f} ms")
    assert f"connection {address}" not in connections(page)
    said = re.compile(f"cancelled: .*producer of /sse {address}", re.IGNORECASE)
    expect(page.locator("#words")).to_have_text(said)


def test_deadlines_count_down(shared_demo: Server, page: Page) -> None:
    """A request's keep-alive is at most 15 s away, and comes nearer."""
    live(page, shared_demo)
    with client(shared_demo, "/subscribe?topic=t") as address:
        branch = page.locator(f'li:has(> .row > .name[title="connection {address}"])')
        left = branch.locator(".row:has(.name[title='request /subscribe']) .deadline")
        expect(left).to_have_text(re.compile(r"^1[34] s left$"))
        expect(left).to_have_text(re.compile(r"^1[012] s left$"))


def test_the_lesson_is_the_source(shared_demo: Server, page: Page) -> None:
    """The page shows `ping` and its view as they are, and Go's handler as the documentation."""
    live(page, shared_demo)
    assert page.text_content("#ping") == inspect.getsource(application.ping)
    assert page.text_content("#view") == inspect.getsource(application.sse)
    go = re.search(r"```go\n(func .*?\n}\n)", GO.read_text(), re.DOTALL)
    assert go is not None
    assert page.text_content("#go") == go[1]
    loop = page.locator("#ping .line[data-loop]").all_text_contents()
    source = inspect.getsource(application.ping)
    assert "".join(loop) == source[source.index("    while True:") :]


def test_the_line_at_which_it_waits_is_lit(shared_demo: Server, page: Page) -> None:
    """With a stream of /sse, that is `await ticker.tick()`; the loop flashes when it runs."""
    live(page, shared_demo)
    page.emulate_media(reduced_motion="no-preference")
    lit = page.locator("#ping .line.lit")
    expect(lit).to_have_text("await ticker.tick()\n", use_inner_text=False)
    expect(lit).to_have_attribute("aria-current", "true")
    expect(page.locator("#where")).to_contain_text("“await ticker.tick()”")
    page.wait_for_function(
        "() => [...document.querySelectorAll('#ping [data-loop]')]"
        ".filter((line) => line.getAnimations().length).length > 3"
    )
    page.locator("#sse").get_by_role("button", name="Disconnect").click()
    expect(lit).to_have_count(0)
    expect(page.locator("#where")).to_contain_text("No stream of /sse is open")
    page.locator("#sse").get_by_role("button", name="Connect", exact=True).click()
    expect(lit).to_have_text("await ticker.tick()\n", use_inner_text=False)


def test_the_graphs_are_the_figures(demo: Server, page: Page) -> None:
    """Values are said in words, and drawn under an axis that holds them."""
    opened(page, demo)
    streams = page.locator("[data-graph='streams']")
    expect(streams.locator(".value")).to_have_text("3")
    expect(streams.locator(".top")).to_have_text("5")
    events = page.locator("[data-graph='events']")
    expect(events.locator(".value")).to_have_text(re.compile(r"^[1-9]\d*(\.\d)?$"))
    line = page.locator("[data-graph='late'] .line")
    expect(line).to_have_attribute("d", re.compile(r"^M[\d.]+ [\d.]+L"))
    expect(page.locator("#tasks")).to_have_text(re.compile(r"^\d+ tasks$"))


def test_a_task_that_moves_to_another_nursery(shared_demo: Server, page: Page) -> None:
    """As `nursery.start` moves it: it stays, with all that is in it, and only its nursery goes."""
    parts = [
        {"id": 1, "kind": "task", "name": "root"},
        {"id": 2, "parent": 1, "kind": "nursery", "name": ""},
        {"id": 3, "parent": 2, "kind": "task", "name": "connection 127.0.0.1:1"},
        {"id": 4, "parent": 3, "kind": "nursery", "name": ""},
        {"id": 5, "parent": 4, "kind": "task", "name": "starts", "shielded": True},
        {"id": 6, "parent": 5, "kind": "nursery", "name": "", "cancelled": True},
        {"id": 7, "parent": 6, "kind": "task", "name": "within", "cancelled": True},
    ]
    moved = {**parts[4], "parent": 2}
    first = {"now": 0, "nodes": parts, "facts": {}}
    then = {"now": 0, "put": [moved], "gone": [4], "cancelled": [4], "facts": {}}
    body = "".join(
        f"retry: 60000\nid: x-{number}\nevent: {event}\ndata: {json.dumps(data)}\n\n"
        for number, (event, data) in enumerate((("snapshot", first), ("change", then)))
    )
    page.route("**/tree", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    page.goto(shared_demo.url)
    expect(page.locator("[data-node]")).to_have_count(6)
    expect(page.locator(".gone")).to_have_count(0)  # what was there for a second
    assert sorted(page.evaluate(DRAWN)) == [
        [1, None, "root"],
        [2, 1, ""],
        [3, 2, "connection 127.0.0.1:1"],
        [5, 2, "starts"],
        [6, 5, ""],
        [7, 6, "within"],
    ]
    page.locator("#fold").click()
    expect(page.locator("[data-node='5'] > .row")).to_contain_text("shielded")
    expect(page.locator("[data-node='7'] > .row")).to_contain_text("cancelled")


def test_the_live_region_is_polite_and_can_be_switched_off(demo: Server, page: Page) -> None:
    """By its switch, and from the keyboard."""
    opened(page, demo)
    words, switch = page.locator("#words"), page.get_by_role("switch", name="announce changes")
    expect(words).to_have_attribute("aria-live", "polite")
    switch.focus()
    page.keyboard.press("Space")
    expect(words).to_have_attribute("aria-live", "off")
    with client(demo) as address:
        expect(page.locator(f'[title="producer of /sse {address}"]')).to_be_visible()
    said = re.compile(f"cancelled: producer of /sse {address}", re.IGNORECASE)
    expect(words).to_have_text(said)  # it is still written


# Gives what is said of tasks that were opened together, for each list of their names; where it is
# to be forgotten, after it was told that they were another process's.
SAID = """
async (cases) => {
  const { Words } = await import("/static/words.js");
  const all = cases.map(([names, forgotten]) => {
    const said = document.createElement("p");
    const words = new Words(said, document.createElement("input"));
    const fresh = names.map((name, id) => ({ id, kind: "task", name }));
    words.note({ fresh, gone: [], cancelled: new Set() }, { nodes: new Map() });
    if (forgotten) words.forget();
    return said;
  });
  await new Promise((resolve) => setTimeout(resolve, 2100));
  return all.map((said) => said.textContent);
}
"""

SENTENCES = {
    ("connection a",): "Opened: connection a.",
    ("connection a", "connection b"): "Opened: 2 connections, such as connection a.",
    ("healthy client 1", "healthy client 2"): "Opened: 2 tasks, such as healthy client 1.",
    ("client a", "behaviour of b"): "Opened: 2 tasks, such as client a.",
    ("connection a", "producer p of a"): "Opened: producer p of a.",
    ("what waits", "request GET /scenarios"): "",
}


def test_the_words(shared_demo: Server, page: Page) -> None:
    """One is named; of many, how many and one of them; what works for no client is left out.

    Of another process nothing is said: what was about to be told is forgotten with it.
    """
    blank = "<!doctype html><title>Words</title>"
    page.route("**/blank", lambda route: route.fulfill(content_type="text/html", body=blank))
    page.goto(f"{shared_demo.url}/blank")
    *said, forgotten = page.evaluate(
        SAID, [*([names, False] for names in SENTENCES), [["connection a"], True]]
    )
    assert dict(zip(SENTENCES, said, strict=True)) == SENTENCES
    assert forgotten == ""


def test_tasks_that_are_no_clients_are_folded(shared_demo: Server, page: Page) -> None:
    """They are away until they are asked for, and the button says how many they are."""
    opened(page, shared_demo)
    fold = page.locator("#fold")
    with client(shared_demo) as address:
        wait_until(lambda: f"connection {address}" in connections(page))
    wait_until(lambda: f"connection {address}" not in connections(page))
    lifespan = page.locator(".row:has(.name[title='lifespan'])")
    expect(lifespan).to_be_hidden()
    expect(page.locator(".row:has(.name[title='server'])")).to_be_visible()
    expect(fold).to_have_attribute("aria-expanded", "false")
    fold.focus()
    page.keyboard.press("Enter")
    expect(fold).to_have_attribute("aria-expanded", "true")
    expect(lifespan).to_be_visible()
    hidden = page.locator("li.task[data-role='quiet']").count()
    assert hidden > 3
    expect(fold).to_contain_text(f"{hidden} more tasks")


def test_goes_on_when_the_server_is_back(tmp_path: Path, page: Page, browser: Browser) -> None:
    """It says that it reconnects, and then draws the new server's tasks and none of the old."""
    with serving(PENSTOCK, "serve", "--bind", "127.0.0.1:0", folder=tmp_path) as first:
        opened(page, first)
        bind = f"127.0.0.1:{first.port}"
        assert first.stop() == 0
        expect(page.locator("#live .state-text")).to_have_text("reconnecting")
    with serving(PENSTOCK, "serve", "--bind", bind, folder=tmp_path) as second:
        expect(page.locator("#live .state-text")).to_have_text("live", timeout=60_000)
        with told(browser, second) as watcher:
            wait_until_same(page, watcher)


def test_a_stream_that_is_closed_for_good_can_be_opened_again(
    shared_demo: Server, page: Page
) -> None:
    """After a 204 the browser gives up: a button is there."""
    page.route("**/tree", lambda route: route.fulfill(status=204))
    page.goto(shared_demo.url)
    expect(page.locator("#live .state-text")).to_have_text("closed permanently")
    page.unroute("**/tree")
    page.get_by_role("button", name="Reconnect").click()
    expect(page.locator("#live .state-text")).to_have_text("live")


def test_a_stream_that_gets_no_answer_is_explained(shared_demo: Server, page: Page) -> None:
    """The seventh connection of a browser to a host waits: the page says why."""
    with unanswered(page, "**/tree"):
        page.goto(shared_demo.url)
        expect(page.locator("#live .state-text")).to_have_text(re.compile("six connections"))


def test_it_can_be_paused(demo: Server, page: Page) -> None:
    """The picture stays, the stream is closed, and both go on."""
    opened(page, demo)
    page.get_by_role("button", name="Pause").click()
    demo.wait_for_log("/tree .* disconnected after")
    expect(page.locator("#live .state-text")).to_have_text("paused")
    assert connections(page)
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#live .state-text")).to_have_text("live")


def test_a_hidden_tab_holds_no_stream_of_the_tree(demo: Server, page: Page) -> None:
    """It is closed when the tab is hidden, and opened when it is seen again."""
    opened(page, demo)
    see(page, False)
    demo.wait_for_log("/tree .* disconnected after")
    assert "/sse" not in demo.log
    see(page, True)
    expect(page.locator("#live .state-text")).to_have_text("live")


def see(page: Page, seen: bool) -> None:
    """Say to the page what a browser says of a tab that is in front, or is not."""
    # Playwright shows all its tabs at once.
    page.evaluate(
        """(seen) => {
          const state = seen ? "visible" : "hidden";
          Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        seen,
    )


def test_nothing_is_wider_than_the_window(shared_demo: Server, browser: Browser) -> None:
    """Also with all tasks shown, and one of them cancelled."""
    page = browser.new_page(viewport=ViewportSize(width=360, height=800), reduced_motion="reduce")
    opened(page, shared_demo)
    page.locator("#fold").click()
    for width in (360, 1280, 1920):
        page.set_viewport_size(ViewportSize(width=width, height=800))
        with client(shared_demo) as address:
            producer = page.locator(f'[title="producer of /sse {address}"]')
            expect(producer).to_be_visible()
        expect(page.locator("li.gone.cancelled", has=producer)).to_be_visible()
        assert page.evaluate("innerWidth") == width
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        box = page.locator(".scroll")
        assert box.evaluate("(box) => box.scrollWidth <= box.clientWidth")
    page.close()


def test_nothing_is_empty_beside_something_taller(shared_demo: Server, browser: Browser) -> None:
    """Both halves of a pair reach its end where they are side by side, with outcomes or without."""
    page = browser.new_page(reduced_motion="reduce")
    opened(page, shared_demo)
    for _ in range(2):
        for width in (1024, 1280, 1920):
            page.set_viewport_size(ViewportSize(width=width, height=800))
            below: list[float] = page.evaluate(
                """() => [...document.querySelectorAll(".pair")].flatMap((pair) =>
                  [...pair.children].map((half) => {
                    const last = half.matches(".column") ? half.lastElementChild : half;
                    const [end, its] = [pair, last].map((each) => each.getBoundingClientRect());
                    return end.bottom - its.bottom;
                  }))"""
            )
            assert len(below) == 4
            assert max(below) < 1
        page.locator("button[data-scenario='closes']").click()
        expect(page.locator("#outcomes li")).not_to_have_count(0)
    page.close()


def test_nothing_moves_for_those_who_ask(shared_demo: Server, browser: Browser) -> None:
    """With less motion asked for nothing is animated, while clients come and go; else it is."""
    for motion, moves in (("reduce", False), ("no-preference", True)):
        with browser.new_context(reduced_motion=motion) as context:  # type: ignore[arg-type]
            page = context.new_page()
            opened(page, shared_demo)
            page.evaluate(
                """() => {
                  window.moved = 0;
                  const look = () => {
                    window.moved += document.getAnimations().length;
                    requestAnimationFrame(look);
                  };
                  look();
                }"""
            )
            with client(shared_demo) as address:
                producer = page.locator(f'[title="producer of /sse {address}"]')
                expect(producer).to_be_visible()
            expect(page.locator("li.gone.cancelled")).not_to_have_count(0)
            expect(page.locator("li.gone")).to_have_count(0)
            assert bool(page.evaluate("window.moved")) is moves
