"""How an application on Quart-Trio meets its server: on Trio, and with a request in one task.

Quart-Trio runs each request in a nursery with two tasks, of which one waits for the disconnect. A
server that offers a scope which the disconnect cancels makes both unnecessary for requests without
a body, such as an EventSource's; with 10,000 clients these are 20,000 tasks.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any, Final, final

import trio
from quart import Quart, Response
from quart_trio.asgi import TrioASGIHTTPConnection

from penstock.errors import StreamingUnsupported
from penstock.stream.transport import DISCONNECT_SCOPE

__all__ = ["OneTaskHTTPConnection", "require_trio"]

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


def require_trio(app: Quart) -> None:
    """Have an application say, in one clear line, when its server does not run on Trio.

    A server that knows ASGI's lifespan protocol is told at start-up, and does not start; any other
    has its requests answered with status 500 and the reason. Where Trio runs, nothing changes, but
    that requests without a body need fewer tasks under Penstock's server
    (``OneTaskHTTPConnection``).

    Call it once, where the application is made. Under ``penstock serve`` there is no need of it.
    """
    if app.asgi_http_class is TrioASGIHTTPConnection:
        app.asgi_http_class = OneTaskHTTPConnection
    inner = app.asgi_app

    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        if trio.lowlevel.in_trio_task():
            await inner(scope, receive, send)
            return
        error = StreamingUnsupported()
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
        elif scope["type"] == "http":
            app.logger.error("%s", error)
            body = f"{error}\n".encode()
            headers = [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", b"%d" % len(body)),
            ]
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            raise error

    # The way Flask and Quart document for wrapping an application; to mypy, it replaces a method.
    app.asgi_app = asgi_app  # type: ignore[method-assign]
