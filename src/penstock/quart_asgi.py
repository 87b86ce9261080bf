"""A Quart-Trio request in one task: what `penstock.quart.require_trio` gives an application.

Quart-Trio runs each request in a nursery with two tasks, of which one waits for the disconnect. A
server that offers a scope which the disconnect cancels makes both unnecessary for requests without
a body, such as an EventSource's; with 10,000 clients these are 20,000 tasks.
"""

from __future__ import annotations

import math
from typing import Any, Final, final

import trio
from quart import Response
from quart_trio.asgi import TrioASGIHTTPConnection

from penstock.transport import DISCONNECT_SCOPE

__all__ = ["OneTaskHTTPConnection"]

_BODY: Final = (b"content-length", b"transfer-encoding")


@final
class OneTaskHTTPConnection(TrioASGIHTTPConnection):
    """Quart-Trio's connection, without tasks of its own where the server makes that possible."""

    async def __call__(self, receive: Any, send: Any) -> None:
        """Answer one request.

        Cancellation:
          Checkpoints throughout. A disconnect cancels it, as in Quart-Trio.
        """
        offered: Any = (self.scope.get("extensions") or {}).get(DISCONNECT_SCOPE)
        if offered is None or self._may_have_body():
            await super().__call__(receive, send)
            return
        with offered():
            response = await self._answer(send)
            deadline = self._deadline(response)
            if deadline == math.inf:  # as an event stream's is: it needs no scope
                await self._send_response(send, response)
            else:
                with trio.CancelScope(deadline=deadline):
                    await self._send_response(send, response)

    def _may_have_body(self) -> bool:
        """Tell whether the request may have a body; on HTTP/2 no header need say so."""
        return (
            self.scope["method"] not in ("GET", "HEAD")
            or self.scope["http_version"] not in ("1.0", "1.1")
            or any(name.lower() in _BODY for name, _ in self.scope["headers"])
        )

    async def _answer(self, send: Any) -> Any:
        request = self._create_request_from_scope(send)
        request.body.set_complete()
        return await self.app.handle_request(request)

    def _deadline(self, response: Any) -> float:
        timeout = self.app.config["RESPONSE_TIMEOUT"]
        if isinstance(response, Response) and response.timeout is not Ellipsis:
            timeout = response.timeout
        return math.inf if timeout is None else trio.current_time() + timeout
