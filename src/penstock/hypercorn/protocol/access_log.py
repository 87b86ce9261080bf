"""One line in the access log for each request, with its status, however the request ended.

Hypercorn's streams log a request when the response's last part has been sent, and a client that
leaves at that moment has the application cancelled before: its line had no status, or there were
two. Statistics for statsd, which are sent over several checkpoints, were lost in the same way.

So a stream's ``config.log`` is an `AccessLog`: the first call counts, the status is that of the
response which the stream has begun, and nothing is awaited that the application's end could cancel.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time
from typing import Any, Final, TypeAlias, final
from urllib.parse import unquote

from hypercorn.config import Config
from hypercorn.logging import Logger
from hypercorn.protocol.ws_stream import ASGIWebsocketState

from penstock.printable import printable

__all__ = ["finish_access_log", "log_refused", "start_access_log"]

# No response was begun: what nginx logs where a client has closed its request.
_NO_RESPONSE: Final = 499

# Starts a task in the connection's nursery that logs, within a bounded time.
LogSoon: TypeAlias = Callable[..., None]


def start_access_log(response: Any, config: Config, log_soon: LogSoon) -> None:
    """Have a request logged once; `response` is Hypercorn's HTTPStream or WSStream."""
    if type(config.log) is not Logger or config.log.access_logger is not None:
        response.config = _RequestConfig(config, AccessLog(response, config.log, log_soon))


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
    log = AccessLog(protocol, logger, protocol.task_group.log_soon)
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

    def __init__(self, response: Any, logger: Logger, log_soon: LogSoon) -> None:
        self._response = response
        self._logger = logger
        self._log_soon: LogSoon | None = log_soon

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)

    async def access(self, scope: Any, summary: Any, seconds: float) -> None:
        """Log the request, unless that was done. Not a checkpoint."""
        response, self._response = self._response, None
        if response is None or self._log_soon is None:
            return
        if summary is None:
            summary = getattr(response, "response", None) or {
                "status": _status_of(response, scope),
                "headers": [],
            }
        if type(self._logger).access is Logger.access:  # which only logs
            await self._logger.access(_shown(scope), summary, seconds)
        else:
            self._log_soon(self._logger.access, _shown(scope), summary, seconds)

    def close(self) -> None:
        """Let go of the request; nothing more is logged."""
        self._response = self._log_soon = None


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
