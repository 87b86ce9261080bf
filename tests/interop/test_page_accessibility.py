"""What axe-core says of the demonstration's page, at rest and in motion."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import pytest
from live_page import client, opened
from npm import fetch
from playwright.sync_api import Browser, Page, ViewportSize, expect
from processes import PENSTOCK, serving

from figures import JUDGED

# The rules are this version's.
AXE = "axe-core@4.14.1"

# All rules but those that are experimental.
RUN = "() => axe.run(document, { resultTypes: ['violations'] })"


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return axe-core's script, or skip by name where npm has none."""
    try:
        return (fetch(tmp_path_factory.mktemp("axe"), AXE) / "axe.min.js").read_text()
    except OSError as error:
        said = f"{AXE} cannot be had: npm install {AXE}: {error}"
        if os.environ.get("PENSTOCK_TEST_REQUIRE") == "all":
            pytest.fail(said)
        pytest.skip(said)


def violations(page: Page) -> list[str]:
    """Return a line for each violation."""
    found: Any = page.evaluate(RUN)
    # Beside an open dialog it cannot tell of some texts on what ground they stand.
    looked_at = {each["id"] for each in found["passes"] + found["incomplete"]}
    assert {"color-contrast", "button-name"} <= looked_at
    return [
        f"{each['id']}: {each['help']}: {node['html'][:120]}: {node['failureSummary']}"
        for each in found["violations"]
        for node in each["nodes"]
    ]


@pytest.mark.parametrize(
    ("scheme", "width"),
    [("light", 1280), ("dark", 360), *([("light", 360), ("dark", 1280)] if JUDGED else [])],
)
def test_axe_finds_nothing(
    tmp_path: Path, browser: Browser, axe: str, scheme: Literal["light", "dark"], width: int
) -> None:
    """Nothing at rest, nor while runs run and the tree moves, nor in the dialog."""
    arguments = ("serve", "--bind", "127.0.0.1:0", "--send-timeout", "2")
    with (
        serving(PENSTOCK, *arguments, folder=tmp_path) as server,
        # What the page's policy keeps out is the test's own script.
        browser.new_context(
            bypass_csp=True,
            color_scheme=scheme,
            viewport=ViewportSize(width=width, height=800),
            reduced_motion="reduce",
        ) as context,
    ):
        page = opened(context.new_page(), server)
        page.add_script_tag(content=axe)
        expect(page.locator("button.scenario")).to_have_count(7)
        assert violations(page) == []
        for scenario in ("closes", "raises", "stops-reading"):
            page.locator(f"button[data-scenario='{scenario}']").click()
        with client(server), client(server):
            expect(page.locator("[data-kept='running']").first).to_be_visible()
            assert violations(page) == []
        expect(page.locator("li.gone.cancelled").first).to_be_visible()
        assert violations(page) == []
        expect(page.locator("[data-kept='kept']").first).to_be_visible()
        page.locator("#fold").click()
        assert violations(page) == []
        page.evaluate("() => document.querySelector('#sure').showModal()")
        assert violations(page) == []
        assert server.stop() == 0
        expect(page.locator("#live .state-text")).to_have_text("reconnecting")
        assert violations(page) == []
