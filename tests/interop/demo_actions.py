"""The actions of the demonstration's page, for tests without a browser."""

from __future__ import annotations

import json
from typing import Any

from hub_clients import Answer, ask


def post(port: int, path: str, said: Any = None, **headers: str) -> Answer:
    """Do what a button of the page does."""
    body = None if said is None else json.dumps(said).encode()
    given = {"Origin": f"http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin", **headers}
    return ask(port, "POST", path, body, given)


def told(port: int) -> Any:
    """Return what the page is told."""
    answer = ask(port, "GET", "/scenarios")
    assert answer.status == 200
    return answer.said


def ended(port: int) -> Any:
    """Return the rows when all have ended, or None."""
    rows = told(port)["rows"]
    return rows if all(row["state"] == "ended" for row in rows) else None
