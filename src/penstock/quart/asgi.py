"""The ASGI side of a Quart-Trio application: requests in one task, and a refusal without Trio.

Quart-Trio runs each request in a nursery with two tasks, one of which waits for the disconnect. If
the server offers a scope that the disconnect cancels, neither is needed for a request without a
body, such as an EventSource's; with 10,000 clients they are 20,000 tasks.

`OneTaskHTTPConnection` also knows when a request is over, however its response ended, and closes
what the response owned. It enables direct writes of an event stream that it sends itself. It keeps
neither the request nor its body while the response is sent.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, final

import trio
from quart import Quart, Response
from quart_trio.asgi import TrioASGIHTTPConnection

from penstock.errors import StreamingUnsupported
from penstock.quart.body import EventStreamBody, check_headers
from penstock.quart.response import text_response
from penstock.stream.transport import DISCONNECT_SCOPE

__all__ = ["OneTaskHTTPConnection", "require_trio", "use_one_task"]

_BODY: Final = (b"content-length", b"transfer-encoding")

# Seconds for closing what a response owned, after its client has left. Closing a connection takes
# milliseconds; asking an upstream to stop takes a round trip.
_CLOSE_TIMEOUT: Final = 2.0


@final
class OneTaskHTTPConnection(TrioASGIHTTPConnection):
    """Quart-Trio's connection, without tasks of its own if the server makes that possible."""

    _owned: tuple[Any, ...] = ()

    async def __call__(self, receive: Any, send: Any) -> None:
        """Answer one request.

        Cancellation:
          Checkpoints throughout. A disconnect cancels it, as in Quart-Trio; what the response owns
          is then closed under a shield, within a bounded time.
        """
        disconnect_scope: Any = (self.scope.get("extensions") or {}).get(DISCONNECT_SCOPE)
        if disconnect_scope is None:
            with trio.CancelScope() as work:
                try:
                    await super().__call__(receive, send)
                finally:
                    await self._close_owned(work)  # noqa: ASYNC102 - shields itself
            return
        with disconnect_scope():
            if self._may_have_body():
                await self._answer_and_receive(receive, send)
            else:
                request = self._create_request_from_scope(send)
                request.body.set_complete()
                answering = self._answer(request, send)
                del request  # a stream may last for days
                await answering

    def own(self, resource: Any) -> None:
        """Close a resource when this request is over, whether or not its response was sent."""
        if not any(each is resource for each in self._owned):
            self._owned = (*self._owned, resource)

    def _create_request_from_scope(self, send: Any) -> Any:
        request: Any = super()._create_request_from_scope(send)
        request.own_resource = self.own
        return request

    def _may_have_body(self) -> bool:
        """Return whether the request may have a body; on HTTP/2 no header has to announce it."""
        return (
            self.scope["method"] not in ("GET", "HEAD")
            or self.scope["http_version"] not in ("1.0", "1.1")
            or any(name.lower() in _BODY for name, _ in self.scope["headers"])
        )

    async def _answer_and_receive(self, receive: Any, send: Any) -> None:
        """Answer a request while its body arrives."""
        request = self._create_request_from_scope(send)
        body = weakref.ref(request.body)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_receive_body, body, receive)
            answering = self._answer(request, send)
            del request
            await answering
            nursery.cancel_scope.cancel()

    async def _answer(self, request: Any, send: Any) -> None:
        # Whatever the view enters and leaves open for its response, even a nursery, is left within
        # `work`. A scope takes 600 bytes: if nothing is owned, none is kept while a stream lasts.
        with trio.CancelScope() as work:
            try:
                response: Any = await self.app.handle_request(request)
                del request
                if self._owned:
                    await self._send_in_time(send, response)
            finally:
                owned = bool(self._owned)
                await self._close_owned(work)  # noqa: ASYNC102 - shields itself
        if not owned:
            sending = self._send_in_time(send, response)
            del response, work
            await sending

    def _send_in_time(self, send: Any, response: Any) -> Awaitable[None]:
        """Send a response before its deadline, which does not apply to closing what it owns."""
        deadline = self._deadline(response)
        sending = self._send_response(send, response)
        return sending if deadline == math.inf else _await_until(deadline, sending)

    def _deadline(self, response: Any) -> float:
        timeout = self.app.config["RESPONSE_TIMEOUT"]
        if isinstance(response, Response) and response.timeout is not Ellipsis:
            timeout = response.timeout
        return math.inf if timeout is None else trio.current_time() + timeout

    async def _send_response(self, send: Any, response: Any) -> None:
        """Send a response; check an event stream's headers, and enable direct writes of its body.

        A client that has left gets no response: a synchronous view continues in its thread and
        returns one anyway, which Quart 0.23 would treat as an error.
        """
        if getattr(self, "_disconnected", False):
            return
        body = response.response
        # A body that wraps a stream's body must get each chunk, so it is sent the ordinary way.
        if not isinstance(body, EventStreamBody):
            await super()._send_response(send, response)
            return
        try:
            check_headers(response.headers)
        except ValueError as error:
            self.app.logger.error("%s cannot be sent: %s", self.scope["path"], error)
            await super()._send_response(send, text_response(500, str(error)))
            return
        body.headers = None
        body.set_sender(send)
        headers = [_encode_header(*header) for header in response.headers.items()]
        start = {"type": "http.response.start", "status": response.status_code, "headers": headers}
        await send(start)
        del headers, response, start  # a stream may last for days
        async with body as stream:
            async for chunk in stream:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _close_owned(self, work: trio.CancelScope) -> None:
        if not self._owned:
            return
        work.deadline = trio.current_time() + _CLOSE_TIMEOUT
        work.shield = True
        # Each is closed, even after the deadline: then its closing is cancelled.
        async with AsyncExitStack() as stack:
            for resource in self._owned:
                stack.push_async_callback(self._close, resource)
            self._owned = ()

    async def _close(self, resource: Any) -> None:
        try:
            if hasattr(resource, "aclose"):
                await resource.aclose()
            else:
                await type(resource).__aexit__(resource, None, None, None)
        except* Exception as errors:
            alone = len(errors.exceptions) == 1
            self.app.logger.error(
                "%s: closing a resource of its response failed",
                self.scope["path"],
                exc_info=errors.exceptions[0] if alone else errors,
            )


async def _await_until(deadline: float, sending: Awaitable[None]) -> None:
    with trio.CancelScope(deadline=deadline):
        await sending


async def _receive_body(body: weakref.ref[Any], receive: Any) -> None:
    """Pass what the client sends to a request's body; discard it once the body is garbage."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return  # the server has cancelled the request
        more = message.get("more_body", False)
        await _put(body(), message.get("body", b""), more=more)


async def _put(body: Any, data: bytes, *, more: bool) -> None:
    if body is None:
        return
    if hasattr(body, "append"):
        body.append(data)
    else:  # since Quart 0.23
        await body.put(data)
    if not more:
        body.set_complete()


@lru_cache(maxsize=128)
def _encode_header(name: str, value: str) -> tuple[bytes, bytes]:
    """Encode a header for ASGI; most streams have the same headers, and share these objects."""
    return name.lower().encode(), value.encode()


def use_one_task(app: Quart) -> None:
    """Run each of an application's requests in one task, if its server makes that possible.

    Penstock's server calls this for the application that it serves. Call it for an application that
    another server runs, or that is mounted beside others, if its responses own a resource
    (``EventSourceResponse(…, owns=…)``).

    It sets ``app.asgi_http_class``, unless that is a custom class. Idempotent.
    """
    if app.asgi_http_class is TrioASGIHTTPConnection:
        app.asgi_http_class = OneTaskHTTPConnection


def require_trio(app: Quart) -> None:
    """Make an application report, in one clear line, that its server does not run on Trio.

    A server that supports ASGI's lifespan protocol gets the reason at start-up, and does not start.
    With any other server, requests are answered with status 500 and the reason. Under Trio, nothing
    changes. Call it once, where the application is made.
    """
    inner = app.asgi_app

    def asgi_app(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        # Not a coroutine function: its coroutine would live as long as a stream.
        in_trio = trio.lowlevel.in_trio_task()
        return (inner if in_trio else refuse)(scope, receive, send)

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
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

    # Flask and Quart document this way of wrapping an application; to mypy it replaces a method.
    app.asgi_app = asgi_app  # type: ignore[method-assign,assignment]
