"""Requests of the demonstration's page for destructive actions, without a socket."""

from __future__ import annotations

import json
from typing import Any

from quart_trio import QuartTrio

from penstock.testing import FakeClient

HERE = ("127.0.0.1", 50000)
ELSEWHERE = ("192.0.2.1", 50000)
PAGE = {"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:8080"}


async def answer_to(app: QuartTrio, method: str, path: str, **options: Any) -> tuple[int, Any]:
    """Return the status and the JSON of an answer."""
    client = FakeClient(app, path, method=method, **{"client": HERE, "headers": PAGE, **options})
    await client.run()
    assert client.status is not None
    assert client.headers["content-type"] == "application/json"
    return client.status, json.loads(client.body)
