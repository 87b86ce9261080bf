"""What a middleware makes of a body is what the client gets, on every way to it.

An event is written directly, past the ASGI interface, only where nothing is between.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
import trio
import trustme
from guarded import config_for, guarded
from quart import Response
from quart.wrappers.response import ResponseBody
from quart_trio import QuartTrio

from penstock import CloseReason, EventStream, EventStreamDecoder, Hub, ServerSentEvent
from penstock.hypercorn.connection.direct_writer import ResponseDirectWriter
from penstock.quart import EventSourceResponse, add_hub, require_trio
from penstock.stream.transport import Chunk

SECRET = "4111-1111"
MASKED = "xxxx-xxxx"
COUNT = 8

_AUTHORITY = trustme.CA()


class Masking:
    """Replaces the secret in each message of a body, and counts the bytes of all."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.bytes = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def masking(message: Any) -> None:
            if message["type"] == "http.response.body":
                body = message.get("body", b"").replace(SECRET.encode(), MASKED.encode())
                self.bytes += len(body)
                message = {**message, "body": body}
            await send(message)

        await self.app(scope, receive, masking if scope["type"] == "http" else send)


class HeaderOnly:
    """Adds a header, and hands everything on as it is: by a ``send`` of its own."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def adding(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-added", b"1")]}
            await send(message)

        await self.app(scope, receive, adding if scope["type"] == "http" else send)


class MaskedBody(ResponseBody):
    """A body of Quart's that wraps another one."""

    def __init__(self, body: ResponseBody) -> None:
        self.body = body

    async def __aenter__(self) -> AsyncIterator[bytes]:
        chunks: Any = await self.body.__aenter__()
        return self._masked(chunks)

    async def __aexit__(self, *error: Any) -> None:
        await self.body.__aexit__(*error)  # noqa: ASYNC102 - the body's own exit

    async def _masked(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            yield chunk.replace(SECRET.encode(), MASKED.encode())


def application() -> QuartTrio:
    app = QuartTrio(__name__)
    require_trio(app)
    hub = add_hub(app)

    async def produce(events: trio.abc.SendChannel[ServerSentEvent]) -> None:
        for number in range(COUNT):
            await events.send(ServerSentEvent(f"{number} {SECRET}"))
            await trio.sleep(0.01)
        await trio.sleep(0.12)  # long enough for a keep-alive comment

    @app.route("/producer", methods=["GET", "POST"])
    async def producer() -> EventSourceResponse:
        return EventSourceResponse(produce, keep_alive=0.05)

    @app.route("/subscription", methods=["GET", "POST"])
    async def subscription() -> EventSourceResponse:
        response = EventSourceResponse(hub.subscription(["a"]), keep_alive=0.05)
        app.nursery.start_soon(publish, hub, response.stream)
        return response

    return app


async def publish(hub: Hub, stream: EventStream) -> None:
    """Publish to a subscriber that is there, and end its stream after a silence."""
    while not hub.statistics().subscriptions_open:  # noqa: ASYNC110 - no event of it
        await trio.sleep(0.001)
    for number in range(COUNT):
        await hub.publish(ServerSentEvent(f"{number} {SECRET}"), ["a"])
        await trio.sleep(0.01)
    await trio.sleep(0.12)
    stream.end(CloseReason.KICKED)


def outside(app: QuartTrio) -> tuple[Any, Masking]:
    masking = Masking(app)
    return masking, masking


def inside(app: QuartTrio) -> tuple[Any, Masking]:
    app.asgi_app = masking = Masking(app.asgi_app)  # type: ignore[method-assign]
    return app, masking


def config(*, tls: bool) -> Any:
    config = config_for()
    if tls:
        certificate = _AUTHORITY.issue_cert("127.0.0.1")

        def create_ssl_context() -> ssl.SSLContext:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.set_alpn_protocols(["h2", "http/1.1"])
            certificate.configure_cert(context)
            return context

        config.certfile = config.keyfile = "given"  # says that there is TLS
        config.create_ssl_context = create_ssl_context  # type: ignore[method-assign]
    return config


def client(*, http2: bool) -> httpx2.AsyncClient:
    context = ssl.create_default_context()
    _AUTHORITY.configure_trust(context)
    return httpx2.AsyncClient(http1=not http2, http2=http2, verify=context, timeout=20)


async def read(
    app: Any, path: str, *, method: str = "GET", tls: bool = False, http2: bool = False
) -> httpx2.Response:
    """Read a stream to its end."""
    async with guarded(app, config=config(tls=tls), http2=http2) as (_, port):
        async with client(http2=http2) as browser:
            url = f"http{'s' if tls else ''}://127.0.0.1:{port}{path}"
            response = await browser.request(method, url)
    assert response.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    assert b"\n\n:\n" in response.content
    return response


def data_of(body: bytes) -> list[str | None]:
    return [event.data for event in EventStreamDecoder().feed(body)]


SECRETS = [f"{number} {SECRET}" for number in range(COUNT)]
MASKS = [f"{number} {MASKED}" for number in range(COUNT)]

everywhere = pytest.mark.parametrize(
    ("tls", "http2"),
    [(False, False), (False, True), (True, False), (True, True)],
    ids=["HTTP/1.1", "HTTP/2", "HTTP/1.1 TLS", "HTTP/2 TLS"],
)


@everywhere
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/producer", "/subscription"])
@pytest.mark.parametrize("wrap", [outside, inside])
async def test_a_middleware_is_given_every_byte(
    wrap: Callable[[QuartTrio], tuple[Any, Masking]],
    path: str,
    method: str,
    tls: bool,
    http2: bool,
) -> None:
    """Nothing is unmasked, and nothing uncounted."""
    wrapped, masking = wrap(application())
    response = await read(wrapped, path, method=method, tls=tls, http2=http2)
    assert data_of(response.content) == MASKS
    assert masking.bytes == len(response.content)


@everywhere
@pytest.mark.parametrize("path", ["/producer", "/subscription"])
async def test_a_middleware_that_adds_a_header(path: str, tls: bool, http2: bool) -> None:
    """Its header is there, and every event."""
    response = await read(HeaderOnly(application()), path, tls=tls, http2=http2)
    assert response.headers["x-added"] == "1"
    assert data_of(response.content) == SECRETS


@pytest.mark.parametrize("path", ["/producer", "/subscription"])
@pytest.mark.parametrize("anew", [False, True], ids=["the same response", "a new one"])
async def test_a_body_that_wraps_a_stream(path: str, anew: bool) -> None:
    """An `after_request` function that wraps the body is given every chunk."""
    app = application()

    @app.after_request
    async def mask(response: Response) -> Response:
        body = MaskedBody(response.response)
        if anew:
            wrapped = app.response_class(body, content_type="text/event-stream")
            wrapped.timeout = None
            return wrapped
        response.response = body
        return response

    response = await read(app, path)
    assert data_of(response.content) == MASKS


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/producer", "/subscription"])
@pytest.mark.parametrize("wraps", [None, Masking, HeaderOnly])
async def test_events_are_written_directly_where_nothing_is_between(
    wraps: Any, path: str, method: str, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a middleware each event is; with one, none."""
    direct = []
    write_nowait = ResponseDirectWriter.write_nowait

    def note(self: ResponseDirectWriter, chunk: Chunk) -> bool:
        taken = write_nowait(self, chunk)
        direct.append(taken)
        return taken

    monkeypatch.setattr(ResponseDirectWriter, "write_nowait", note)
    app = application()
    response = await read(wraps(app) if wraps else app, path, method=method, tls=tls)
    assert len(data_of(response.content)) == COUNT
    assert sum(direct) >= 1 if wraps is None else not direct
