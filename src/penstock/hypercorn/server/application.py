"""The application as the server runs it: with the server's extensions and health, or refused."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Final, cast, final

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.typing import AppWrapper

from penstock.hypercorn.settings import SETTINGS, Settings
from penstock.stream.group import STREAM_GROUP, StreamGroup

__all__ = ["HealthMiddleware", "RefusalApp"]

# Seconds that a refused client is asked to wait before it reconnects.
_RETRY_AFTER: Final = 5


@final
class HealthMiddleware:
    """Wraps an application: answers for the server's health, and adds the server's extensions."""

    def __init__(self, app: AppWrapper, streams: StreamGroup, settings: Settings) -> None:
        self._app = app
        self._asgi: Callable[..., Coroutine[Any, Any, None]] | None = None
        if isinstance(app, ASGIWrapper):
            self._asgi = cast(Callable[..., Coroutine[Any, Any, None]], app.app)
        self._streams = streams
        self._settings = settings
        self._health: dict[str, str] = {}
        if settings.health is not None:
            self._health = {f"{settings.health}/{state}": state for state in ("ready", "live")}

    def __call__(
        self, scope: Any, receive: Any, send: Any, sync_spawn: Callable[..., Any], call_soon: Any
    ) -> Coroutine[Any, Any, None]:
        """Answer a health check, or run the application.

        This is no coroutine function, and it bypasses Hypercorn's wrapper, which does nothing for
        an ASGI application: either coroutine would live as long as a stream.
        """
        if scope["type"] == "http":
            if (state := self._health.get(scope["path"])) is not None:
                return _answer(scope, send, HTTPStatus.OK, state)
            scope["extensions"][STREAM_GROUP] = self._streams
            scope["extensions"][SETTINGS] = self._settings
        if self._asgi is not None:
            return self._asgi(scope, receive, send)
        return self._app(scope, receive, send, sync_spawn, call_soon)


@final
class RefusalApp:
    """Answers clients beyond a limit, instead of the application; their connections then close."""

    def __init__(self, status: HTTPStatus) -> None:
        self._status = status

    async def __call__(
        self, scope: Any, receive: Any, send: Any, sync_spawn: Callable[..., Any], call_soon: Any
    ) -> None:
        """Answer that there are too many connections."""
        if scope["type"] == "http":
            headers = [(b"retry-after", b"%d" % _RETRY_AFTER)]
            if scope["http_version"] in ("1.0", "1.1"):
                headers.append((b"connection", b"close"))
            what = self._status.phrase.lower()
            text = f"{what}: too many connections; retry in {_RETRY_AFTER} s"
            await _answer(scope, send, self._status, text, headers)


async def _answer(
    scope: Any,
    send: Any,
    status: HTTPStatus,
    text: str,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    body = f"{text}\n".encode()
    head = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        *(headers or []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
