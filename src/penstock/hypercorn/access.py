"""One line in the access log for each request, with its status, however the request ended.

Hypercorn's streams log a request when the response's last part has been sent, and a client that
leaves at that moment has the application cancelled before: its line had no status, or there were
two. Statistics for statsd, which are sent over several checkpoints, were lost in the same way.

So a stream's ``config.log`` is an `AccessLog`: the first call counts, the status is that of the
response which the stream has begun, and nothing is awaited that the application's end could cancel.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import unquote

import trio
from hypercorn.config import Config
from hypercorn.logging import Logger
from hypercorn.protocol.ws_stream import ASGIWebsocketState

from penstock.printable import printable

if TYPE_CHECKING:
    from penstock.hypercorn.requests import Requests

__all__ = ["finish_access_log", "log_refused", "start_access_log"]

# No response was begun: what nginx logs where a client has closed its request.
_NO_RESPONSE: Final = 499

# Seconds for a logger that waits for something, such as the address of statsd.
_PATIENCE: Final = 5.0


def start_access_log(response: Any, config: Config, requests: Requests) -> None:
    """Have a request logged once; `response` is Hypercorn's HTTPStream or WSStream."""
    if type(config.log) is not Logger or config.log.access_logger is not None:
        response.config = _RequestConfig(config, AccessLog(response, config.log, requests))


async def finish_access_log(response: Any) -> None:
    """Log a request whose application has ended, if it was not logged. Not a checkpoint."""
    log = response.config.log
    if isinstance(log, AccessLog):
        await log.access(response.scope, None, time() - response.start_time)
        log.close()


async def log_refused(
    protocol: Any, status: int, method: bytes, target: bytes, version: bytes
) -> None:
    """Log a request that no application gets, as far as it is known. Not a checkpoint.

    `protocol` is Hypercorn's H11Protocol or H2Protocol.
    """
    logger = protocol.config.log
    if type(logger) is Logger and logger.access_logger is None:
        return
    path, _, query = target.partition(b"?")
    scope = {
        "type": "http",
        "http_version": printable(version) or "-",
        "scheme": "https" if protocol.ssl else "http",
        "method": printable(method) or "-",
        "path": unquote(printable(path)) or "-",
        "raw_path": path,
        "query_string": query,
        "headers": [],
        "client": protocol.client,
        "server": protocol.server,
    }
    log = AccessLog(protocol, logger, protocol.task_group)
    await log.access(scope, {"status": status, "headers": []}, 0.0)
    log.close()


@final
class _RequestConfig:
    """Hypercorn's configuration, with a log of the request's own."""

    def __init__(self, config: Config, log: AccessLog) -> None:
        self._config = config
        self.log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._config, name)


@final
class AccessLog:
    """One request's access to Hypercorn's logger."""

    def __init__(self, response: Any, logger: Logger, requests: Requests) -> None:
        self._response = response
        self._logger = logger
        self._requests: Requests | None = requests

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)

    async def access(self, scope: Any, summary: Any, seconds: float) -> None:
        """Log the request, unless that was done. Not a checkpoint."""
        response, self._response = self._response, None
        if response is None or self._requests is None:
            return
        if summary is None:
            summary = getattr(response, "response", None) or {
                "status": _status_of(response, scope),
                "headers": [],
            }
        if type(self._logger).access is Logger.access:  # which only logs
            await self._logger.access(_shown(scope), summary, seconds)
        else:
            self._requests.nursery.start_soon(
                _log, self._requests, self._logger, _shown(scope), summary, seconds, name="log"
            )

    def close(self) -> None:
        """Let go of the request; nothing more is logged."""
        self._response = self._requests = None


async def _log(requests: Requests, logger: Logger, *access: Any) -> None:
    with trio.move_on_after(_PATIENCE, shield=True):
        await requests.guarded_log(logger.access, *access)


def _status_of(response: Any, scope: Any) -> int:
    if response.state is ASGIWebsocketState.CONNECTED:
        return 101 if scope["http_version"] < "2" else 200
    return _NO_RESPONSE


def _shown(scope: Any) -> Any:
    """Return what the log's line is made of, with nothing in it that could forge another line."""
    headers = scope["headers"]
    texts = [value.decode("latin1") for _, value in headers]
    if not all(text.isprintable() for text in texts):
        values = (printable(text).encode("latin1", "backslashreplace") for text in texts)
        headers = [(name, value) for (name, _), value in zip(headers, values, strict=True)]
    shown = {
        **scope,
        "path": printable(scope["path"]),
        "query_string": printable(scope["query_string"]).encode(),
        "headers": headers,
        "client": scope["client"] or ("local",),  # a Unix socket has no address
    }
    if "method" in scope:
        shown["method"] = printable(scope["method"])
    return shown
