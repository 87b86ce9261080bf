"""Request logs: one access line per request, and a warning when a client is at fault.

Hypercorn's streams log a request when the last part of its response has been sent. If the client
leaves at that moment, the application is cancelled before: the line had no status, or there were
two lines. Statistics for statsd, which are sent over several checkpoints, were lost the same way.

So a stream's ``config.log`` is an `AccessLog`: only the first call logs, the status is that of the
response that has begun, and nothing is awaited that the application's end could cancel.
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

__all__ = [
    "finish_access_log",
    "log_client_fault",
    "start_access_log",
    "write_access_log",
]

# The status if no response has begun: nginx's, for a client that closed its request.
_NO_RESPONSE: Final = 499

# Starts a logging task in the connection's nursery, with a time limit.
LogSoon: TypeAlias = Callable[..., None]


def start_access_log(response: Any, config: Config, log_soon: LogSoon) -> None:
    """Have a request logged once; `response` is Hypercorn's HTTPStream or WSStream."""
    if type(config.log) is not Logger or config.log.access_logger is not None:
        response.config = _RequestConfig(config, AccessLog(response, config.log, log_soon))


async def finish_access_log(response: Any) -> None:
    """Log a request whose application has ended, unless it was logged. Not a checkpoint."""
    log = response.config.log
    if isinstance(log, AccessLog):
        await log.access(response.scope, None, time() - response.start_time)
        log.close()


async def write_access_log(
    protocol: Any, status: int, method: bytes, target: bytes, version: bytes
) -> None:
    """Log a request that reaches no application, as far as it is known. Not a checkpoint.

    Args:
      protocol: Hypercorn's H11Protocol or H2Protocol.
      status: the status of the answer.
      method: from the request line, as far as it was received.
      target: from the request line, too.
      version: from the request line, too.
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


async def log_client_fault(config: Config, client: tuple[str, int] | None, what: str) -> None:
    """Warn of what a client did; the sentence continues after its address."""
    where = "a local client" if client is None else f"{client[0]}:{client[1]}"
    await config.log.warning("%s %s", where, what)


@final
class _RequestConfig:
    """Hypercorn's configuration, with a log for this request."""

    def __init__(self, config: Config, log: AccessLog) -> None:
        self._config = config
        self.log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._config, name)


@final
class AccessLog:
    """Logs one request's access to Hypercorn's logger, once."""

    def __init__(self, response: Any, logger: Logger, log_soon: LogSoon) -> None:
        self._response = response
        self._logger = logger
        self._log_soon: LogSoon | None = log_soon

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)

    async def access(self, scope: Any, summary: Any, seconds: float) -> None:
        """Log the request, unless it was logged. Not a checkpoint."""
        response, self._response = self._response, None
        if response is None or self._log_soon is None:
            return
        if summary is None:
            summary = getattr(response, "response", None) or {
                "status": _status_of(response, scope),
                "headers": [],
            }
        if type(self._logger).access is Logger.access:  # not a checkpoint
            await self._logger.access(_escaped(scope), summary, seconds)
        else:
            self._log_soon(self._logger.access, _escaped(scope), summary, seconds)

    def close(self) -> None:
        """Drop the references to the request; nothing more is logged."""
        self._response = self._log_soon = None


def _status_of(response: Any, scope: Any) -> int:
    if response.state is ASGIWebsocketState.CONNECTED:
        return 101 if scope["http_version"] < "2" else 200
    return _NO_RESPONSE


def _escaped(scope: Any) -> Any:
    """Return a scope for the logger, escaped so that nothing in it can forge another log line."""
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
