"""An ASGI server's side of one request, for tests without a socket.

    client = FakeClient(app, "/time")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        await client.received(b"data: ")
        client.disconnect()

The nursery is left when the application has finished the request. This client receives bytes, in a
task of the test; `penstock.testing.open_client` gives one that decodes events.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

import trio

__all__ = ["FakeClient", "StalledClient"]

# Characters that are left as they are, so that nothing is quoted twice.
_OF_A_URL: Final = "%/?:@!$&'()*+,;="


class FakeClient:
    """Makes one request to an ASGI application, reads the response, and may disconnect.

    Args:
      app: the application.
      path: the path to request, as in a URL, with a query after a ``?``.
      method: the method.
      headers: the headers besides ``Host``. No other header is sent, not even ``Accept``.
      http_version: as in the ASGI scope.
      extensions: the extensions in the ASGI scope.
      takes: how many messages of the body to read before it stalls; see `StalledClient`.
      client: the client's address and port, or None for a Unix socket.
      content: the body of the request; its Content-Length is sent unless the headers have one.

    Attributes:
      scope: the ASGI scope.
      status: the status of the response, once there is one.
      headers: the headers of the response, names in lower case.
      body: the body received so far.
      ended: whether the response is complete.
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
        takes: float = math.inf,
        client: tuple[str, int] | None = ("192.0.2.1", 50000),
        content: bytes = b"",
    ) -> None:
        given = {"host": "example.org", **(headers or {})}
        if content and not {"content-length", "transfer-encoding"} & {k.lower() for k in given}:
            given["content-length"] = str(len(content))
        path, _, query = path.partition("?")
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.1"},
            "http_version": http_version,
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": quote(path, safe=_OF_A_URL).encode(),
            "query_string": quote(query, safe=_OF_A_URL).encode(),
            "root_path": "",
            "headers": [(k.lower().encode(), v.encode()) for k, v in given.items()],
            "client": client,
            "server": ("127.0.0.1", 80),
            "extensions": {} if extensions is None else extensions,
        }
        self.app: Any = app
        self.takes: float = takes
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body: bytes = b""
        self.ended: bool = False
        self.body_sent: trio.Event = trio.Event()
        self._disconnected = trio.Event()
        self._reads = trio.Event()
        self._asked = False
        self._content = content

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.scope['path']}, {len(self.body)} bytes>"

    async def run(self) -> None:
        """Run the application until it has finished the request.

        Cancellation:
          As the application.
        """
        await self.app(self.scope, self._receive, self._send)

    def disconnect(self) -> None:
        """Disconnect. Synchronous."""
        self._disconnected.set()

    def read(self, takes: float = math.inf) -> None:
        """Continue reading, this many messages more. Synchronous."""
        self.takes = takes
        self._reads.set()
        self._reads = trio.Event()

    async def received(self, mark: bytes) -> None:
        """Wait until the body contains this.

        Cancellation:
          A checkpoint only if it has to wait.
        """
        while mark not in self.body:
            await self.body_sent.wait()

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._content, "more_body": False}
        await self._disconnected.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            return
        while not self.takes:
            await self._reads.wait()
        self.takes -= 1
        self.body += message.get("body", b"")
        self.ended = not message.get("more_body", False)
        self.body_sent.set()
        self.body_sent = trio.Event()


class StalledClient(FakeClient):
    """A client that stops reading, at once or after some messages, until `FakeClient.read`.

    Args:
      app: as in `FakeClient`.
      path: as in `FakeClient`.
      takes: how many messages of the body to read first.
      options: as in `FakeClient`.
    """

    def __init__(self, app: Any, path: str = "/", *, takes: float = 0, **options: Any) -> None:
        super().__init__(app, path, takes=takes, **options)
