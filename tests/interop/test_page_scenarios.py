"""The scenarios on the demonstration's page, in real Chromium, and what the page says of them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo_actions import post
from live_page import opened, quiet, told, unanswered, wait_until_same
from playwright.sync_api import Browser, Locator, Page, expect
from processes import PENSTOCK, Server, serving, wait_until

__all__ = ["quiet"]  # a fixture

SCENARIOS = {
    "healthy": "finished",
    "closes": "disconnected",
    "resets": "disconnected",
    "stops-reading": "slow",
    "byte-a-second": "slow",
    "vanishes": "disconnected",
    "raises": "failed",
}

# `penstock serve`, but for the time after which a client that vanishes is given up.
IMPATIENT = """
import sys
import trio
from functools import partial
from hypercorn.config import Config
from penstock.demo.asgi import app
from penstock.hypercorn import Server, Settings

async def main():
    config = Config()
    config.bind = ["127.0.0.1:0"]
    settings = Settings(send_timeout=2, tcp_user_timeout=8, keep_alive_timeout=5)
    server = Server(app, config, settings=settings, mode="asgi")
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(partial(server.serve, shutdown_trigger=trio.sleep_forever))
        print(url, flush=True)

trio.run(main)
"""


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve the demonstration, for several tests, with time-outs that one can wait for."""
    folder = tmp_path_factory.mktemp("impatient")
    with serving(sys.executable, "-c", IMPATIENT, folder=folder) as server:
        yield server


@pytest.fixture
def restarting(tmp_path: Path) -> Iterator[Server]:
    """Serve the demonstration on a port that it can come back on."""
    with serving(PENSTOCK, "serve", "--bind", "127.0.0.1:0", folder=tmp_path) as first:
        bind = f"127.0.0.1:{first.port}"
        assert first.stop() == 0
    short = ("--drain-window", "0.5", "--reconnect-spread", "0.5", "--keep-alive-timeout", "5")
    with serving(PENSTOCK, "serve", "--bind", bind, *short, folder=tmp_path) as server:
        yield server


@pytest.fixture
def demo(shared_demo: Server) -> Server:
    """Use one server for all tests that do not stop it, nor count what is in its log."""
    return shared_demo


def outcome(page: Page, scenario: str) -> Locator:
    """Return the newest row of a scenario."""
    return rows(page, scenario).first


def rows(page: Page, scenario: str) -> Locator:
    """Return all rows of a scenario; some may be of another test's clients."""
    return page.locator(f"#outcomes li[data-scenario='{scenario}']")


def click(page: Page, scenario: str) -> None:
    """Start a scenario, and wait for its row."""
    before = rows(page, scenario).count()
    button(page, scenario).click()
    expect(rows(page, scenario)).to_have_count(before + 1)


def button(page: Page, scenario: str) -> Locator:
    """Return the button of a scenario."""
    return page.locator(f"button[data-scenario='{scenario}']")


def tasks(page: Page) -> list[str] | None:
    """Return the names of all tasks drawn, or None while a connection idles.

    Without addresses: a page that a busy machine keeps from reading is let go, and comes back from
    another port.
    """
    names: list[str] | None = page.evaluate(
        """() => {
          const tasks = [...document.querySelectorAll("li.task[data-node]")];
          const name = (task) => task.querySelector(":scope > .row > .name").title;
          const idle = (task) => name(task).startsWith("connection ") && !task.querySelector("li");
          return tasks.some(idle) ? null : tasks.map(name).sort();
        }"""
    )
    return names and sorted(re.sub(r"127\.0\.0\.1:\d+", "client", name) for name in names)


def tasks_alone(page: Page) -> list[str] | None:
    """Return the names of all tasks when the page's three streams are all that is open."""
    names = tasks(page) or []
    producers = [name.split()[2] for name in names if name.startswith("producer of ")]
    return names if sorted(producers) == ["/sse", "/ticks", "/tree"] else None


def test_each_scenario_by_its_button(impatient: Server, page: Page, browser: Browser) -> None:
    """The page says how each ended and that the promise was kept; the tree is what it was."""
    opened(page, impatient)
    expect(page.locator("button.scenario")).to_have_count(len(SCENARIOS))
    before = wait_until(lambda: tasks_alone(page))
    for scenario in SCENARIOS:
        click(page, scenario)
        expect(outcome(page, scenario)).to_be_visible()
    # What is promised may come late on a machine that is busy; then the page says so.
    for scenario, reason in SCENARIOS.items():
        row = outcome(page, scenario)
        expect(row).to_have_attribute("data-kept", re.compile("kept"), timeout=60_000)
        happened = row.inner_text()
        print(re.sub(r"\s+", " ", happened))
        assert f"Happened: {reason};" in happened
        took = row.locator(".took").inner_text()
        within = re.search(r"within ([\d.]+ m?s)", happened)
        late = within is not None and milliseconds(took) > milliseconds(f"after {within[1]}")
        assert row.get_attribute("data-kept") == ("not kept" if late else "kept")
        assert row.locator(".verdict").inner_text() == row.get_attribute("data-kept")
    wait_until(lambda: tasks(page) == before)
    with told(browser, impatient) as watcher:
        wait_until_same(page, watcher)


def milliseconds(took: str) -> float:
    """Return what the page says that it took."""
    said = re.fullmatch(r"after ([\d.]+) (m?s)", took)
    assert said is not None, took
    return float(said[1]) * (1 if said[2] == "ms" else 1000)


def test_while_it_runs_it_counts(impatient: Server, page: Page) -> None:
    """A row shows the promise at once, and the time since the trigger."""
    opened(page, impatient)
    click(page, "stops-reading")
    row = outcome(page, "stops-reading")
    expect(row.locator(".verdict")).to_have_text("running")
    expect(row.locator(".promise")).to_have_text(re.compile(r"^Promised: slow within 2.5 s: .*\.$"))
    expect(row.locator(".took")).to_have_text(re.compile(r"^for \d\.\d s$"))
    expect(row.locator(".took")).to_have_text(re.compile(r"^after ([2-9]|\d\d)\.\d\d s$"))


def test_a_page_that_comes_later_sees_the_rows(impatient: Server, page: Page) -> None:
    """They are the server's, and not the page's own."""
    opened(page, impatient)
    click(page, "closes")
    expect(outcome(page, "closes").locator(".verdict")).to_have_text(re.compile("kept"))
    said = page.inner_text("#outcomes")
    page.reload()
    expect(outcome(page, "closes")).to_be_visible()
    assert page.inner_text("#outcomes") == said


def test_a_thousand_clients(impatient: Server, page: Page, browser: Browser) -> None:
    """They come and go by the switch; most are counted and not drawn; the tree is what it was."""
    opened(page, impatient)
    before = wait_until(lambda: tasks_alone(page))
    switch = page.get_by_role("switch", name="a thousand clients")
    switch.click()
    expect(page.locator("#connected")).to_have_text("1,000 of 1,000 connected", timeout=60_000)
    expect(switch).to_be_checked()
    expect(page.locator("#tree li.more")).to_contain_text(re.compile(r"and 9\d\d more"))
    expect(page.locator("#tree li.more")).to_be_visible()
    with told(browser, impatient) as watcher:
        wait_until_same(page, watcher)
    switch.click()
    expect(page.locator("#connected")).to_have_text("", timeout=60_000)
    expect(switch).not_to_be_checked()
    wait_until(lambda: tasks(page) == before)


def test_a_drain(restarting: Server, page: Page, browser: Browser) -> None:
    """Asked twice, the server drains and starts again; the page waits, and goes on by itself."""
    opened(page, restarting)
    page.get_by_role("button", name="A server that restarts").click()
    dialog = page.get_by_role("dialog", name="Restart the server?")
    expect(dialog).to_contain_text("starts again")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="A server that restarts").click()
    dialog.get_by_role("button", name="Restart").click()
    restarting.wait_for_log("Starting again")
    expect(page.locator("#live .state-text")).to_have_text("reconnecting")
    expect(page.locator("#live .state-text")).to_have_text("live", timeout=60_000)
    with told(browser, restarting) as watcher:
        wait_until_same(page, watcher)
    for stream in ("sse", "ticks"):
        expect(page.locator(f"#{stream} .state-text")).to_have_text("open", timeout=60_000)


def test_where_it_may_not_be_drained_the_page_says_why(impatient: Server, page: Page) -> None:
    """The button does nothing, and the reason stands beside it."""
    opened(page, impatient)
    expect(page.locator("#drain")).to_be_disabled()
    expect(page.locator("#no-drain")).to_contain_text("No restart: only `penstock serve`")


def test_where_it_is_switched_off_the_buttons_say_why(tmp_path: Path, page: Page) -> None:
    """With PENSTOCK_DEMO_ACTIONS=0 each button is disabled, and says so."""
    serve = (PENSTOCK, "serve", "--bind", "127.0.0.1:0")
    with serving("env", "PENSTOCK_DEMO_ACTIONS=0", *serve, folder=tmp_path) as server:
        opened(page, server)
        expect(page.locator("#refusal")).to_have_text(
            "Destructive actions are switched off, by PENSTOCK_DEMO_ACTIONS=0."
        )
        expect(page.locator("button.scenario")).to_have_count(7)
        for each in page.locator("button.scenario").all():
            expect(each).to_be_visible()
            expect(each).to_be_disabled()
            expect(each).to_contain_text("Switched off")
        for name in ("crowd", "drain"):
            expect(page.locator(f"#{name}")).to_be_disabled()
        expect(page.locator("#crowd")).to_have_accessible_description(re.compile("switched off"))
        expect(page.locator("#drain")).to_have_accessible_description(re.compile("switched off"))
        assert post(server.port, "/crowd", {"on": True}).status == 403


def said_by_the_tree(page: Page) -> list[tuple[str, str]]:
    """Return what each live region of the accessibility tree has in it, with its politeness."""
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    by_id = {node["nodeId"]: node for node in nodes}

    def text(node: Any) -> str:
        if node["role"]["value"] == "StaticText":
            return str(node["name"]["value"])
        return " ".join(text(by_id[child]) for child in node["childIds"] if child in by_id)

    return [
        (properties["live"], text(node))
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in ("status", "alert")
        for properties in [
            {each["name"]: each["value"].get("value") for each in node["properties"]}
        ]
    ]


def test_a_verdict_is_told_to_those_who_hear_the_page(
    impatient: Server, page: Page, browser: Browser
) -> None:
    """Chromium's accessibility tree has it in a polite live region; old verdicts are no news."""
    opened(page, impatient)
    click(page, "closes")
    expect(outcome(page, "closes")).to_have_attribute("data-kept", "kept")
    expect(page.locator("#verdict")).to_have_text(
        re.compile(r"^A client that closes: disconnected after [\d.]+ ms; promise kept\.$")
    )
    assert ("polite", page.inner_text("#verdict")) in said_by_the_tree(page)
    click(page, "raises")
    expect(page.locator("#verdict")).to_have_text(re.compile(r"^A producer that raises: failed"))
    with browser.new_context(reduced_motion="reduce") as context:
        later = opened(context.new_page(), impatient)
        expect(outcome(later, "closes")).to_have_attribute("data-kept", "kept")
        expect(later.locator("#verdict")).to_have_text("")


def test_a_server_with_other_settings_makes_another_offer(tmp_path: Path, page: Page) -> None:
    """A page that outlives its server shows what the next one promises, and no old rows."""
    serve = (PENSTOCK, "serve", "--reconnect-spread", "0.5", "--drain-window", "0.5")
    with serving(*serve, "--bind", "127.0.0.1:0", "--send-timeout", "2", folder=tmp_path) as first:
        opened(page, first)
        expect(button(page, "stops-reading")).to_contain_text("Slow within 2.5")
        expect(page.locator("#no-drain")).not_to_be_empty()
        button(page, "closes").click()
        expect(outcome(page, "closes")).to_have_attribute("data-kept", "kept")
        bind = f"127.0.0.1:{first.port}"
        assert first.stop() == 0
    with serving(*serve, "--bind", bind, "--send-timeout", "7", folder=tmp_path) as second:
        assert second.port
        expect(page.locator("#live .state-text")).to_have_text("live", timeout=20_000)
        expect(button(page, "stops-reading")).to_contain_text("Slow within 7.5")
        expect(page.locator("#no-drain")).to_be_empty()
        expect(page.locator("#outcomes li")).to_have_count(0)


def test_what_goes_wrong_stands_beside_the_buttons(demo: Server, page: Page) -> None:
    """It is the server's sentence, and gone at the next try."""
    refusal = {"error": "20 scenarios are running"}
    page.route("**/scenarios/closes", lambda route: route.fulfill(status=429, json=refusal))
    opened(page, demo)
    button(page, "closes").click()
    expect(page.get_by_role("alert")).to_have_text("20 scenarios are running.")
    button(page, "resets").click()
    expect(page.get_by_role("alert")).to_have_text("")
    expect(outcome(page, "resets")).to_be_visible()


def test_a_button_that_gets_no_answer_gives_up(demo: Server, page: Page) -> None:
    """What still waited in the browser would be done when nobody thinks of it any more."""
    with unanswered(page, "**/scenarios/closes"):
        opened(page, demo)
        with page.expect_event("requestfailed", timeout=60_000) as failed:
            button(page, "closes").click()
        assert failed.value.url.endswith("/scenarios/closes")
        expect(page.get_by_role("alert")).to_have_text(re.compile("^No answer .* six connections"))
        expect(rows(page, "closes")).to_have_count(0)


def test_a_server_that_is_back_is_not_said_to_be_away(demo: Server, page: Page) -> None:
    """The sentence goes when the stream tells of the clients again."""
    page.route("**/scenarios/closes", lambda route: route.abort())
    opened(page, demo)
    button(page, "closes").click()
    expect(page.get_by_role("alert")).to_have_text("The server cannot be reached.")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("alert")).to_have_text("The server cannot be reached.")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("alert")).to_have_text("")
