"""An ASGI server's side of one request, for tests without a socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio


class FakeClient:
    """Makes one request of an ASGI application, reads what it sends, and may disconnect.

    With ``takes=0`` it never takes a body chunk: a client that stopped reading.
    """

    def __init__(
        self,
        app: Any,
        path: str = "/",
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        http_version: str = "1.1",
        extensions: dict[str, Any] | None = None,
        takes: float = float("inf"),
        client: tuple[str, int] | None = ("192.0.2.1", 50000),
    ) -> None:
        given = {"host": "example.org", **(headers or {})}
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.1"},
            "http_version": http_version,
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(k.lower().encode(), v.encode()) for k, v in given.items()],
            "client": client,
            "server": ("127.0.0.1", 80),
            "extensions": {} if extensions is None else extensions,
        }
        self.app = app
        self.takes = takes
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = b""
        self.ended = False
        self.body_sent = trio.Event()
        self._disconnected = trio.Event()
        self._asked = False

    async def run(self) -> None:
        """Run the application for this request, until it is done with it."""
        await self.app(self.scope, self._receive, self._send)

    def disconnect(self) -> None:
        """Go away."""
        self._disconnected.set()

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._disconnected.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            return
        if not self.takes:
            await trio.sleep_forever()
        self.takes -= 1
        self.body += message.get("body", b"")
        self.ended = not message.get("more_body", False)
        self.body_sent.set()
        self.body_sent = trio.Event()
