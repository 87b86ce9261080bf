"""After a failed attempt: whether to try again, when, and what to tell the user.

Rule: until a server has answered once, an error that points to a wrong URL is final; afterwards it
is an outage.
"""

from __future__ import annotations

import errno
import math
import os
import random
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, final

import httpx2
import trio

from penstock.client.request import redacted
from penstock.errors import ConnectionFailed
from penstock.event import MAX_RETRY
from penstock.printable import printable

__all__ = [
    *("Backoff", "Unavailable", "classify_failure", "reason_of", "retry_after", "scheme_hint"),
    "status_of",
]

# Characters of a reason phrase, or of an error's text, that are shown.
_MAX_SHOWN: Final = 300

# Seconds for asking whether a port speaks the other scheme.
_PROBE_TIMEOUT: Final = 5.0

# No such host; a temporary failure is EAI_AGAIN.
_NO_HOST: Final = {
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name)
}

# The peer disconnected during a TLS handshake.
_TLS_ENDED: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)

# Seconds up to which a server's wish (`retry:`, Retry-After) is respected.
_MAX_ASKED: Final = 3600.0

# Seconds that doubling starts from at the least: a `retry:` of 0 would never grow.
_MIN_GROWING: Final = 0.1

# 2 ** 40 times any delay is more than any bound.
_MAX_DOUBLINGS: Final = 40


class Unavailable(Exception):
    """There are no events now, and a later attempt may succeed.

    Attributes:
      asked: seconds that the server asked to wait before the next attempt.
      status: the HTTP status, if there was one.
      ended: whether the stream came to its proper end.
    """

    def __init__(
        self, reason: str, *, asked: float = 0.0, status: int | None = None, ended: bool = False
    ) -> None:
        super().__init__(reason)
        self.asked: float = asked
        self.status: int | None = status
        self.ended: bool = ended


@final
class Backoff:
    """The delays between the attempts of one client.

    The first delay is the reconnection time; each failure in a row doubles it. What the server asks
    for is the minimum, and ``max_delay`` limits what doubling adds to it.

    Args:
      retry: the reconnection time in milliseconds, until the server sets one.
      min_delay: the minimum delay in seconds, whatever the server asks for; ``max_delay`` at most.
      max_delay: seconds to which a delay may grow.
      jitter: the fraction of a delay that is added to it at most, at random.
      max_failures: how many failures in a row are too many; None is no limit.

    Raises:
      ValueError: an argument is out of its range.

    Attributes:
      retry: the reconnection time in force.
      failures: how many attempts have failed in a row.
    """

    __slots__ = ("_jitter", "_max_delay", "_max_failures", "_min_delay", "failures", "retry")

    def __init__(
        self,
        *,
        retry: int,
        min_delay: float,
        max_delay: float,
        jitter: float,
        max_failures: int | None,
    ) -> None:
        if type(retry) is not int or not 0 <= retry <= MAX_RETRY:
            raise ValueError(f"retry must be from 0 to {MAX_RETRY} milliseconds: {retry}")
        if not 0 <= min_delay < math.inf:
            raise ValueError(f"min_delay must be at least 0 seconds: {min_delay}")
        if not 0 < max_delay < math.inf:
            raise ValueError(f"max_delay must be more than 0 seconds: {max_delay}")
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter must be from 0 to 1: {jitter}")
        if max_failures is not None and (type(max_failures) is not int or max_failures < 1):
            raise ValueError(f"max_failures must be a whole number above 0: {max_failures}")
        self.retry: int = retry
        self.failures: int = 0
        self._max_delay = max_delay
        self._jitter = jitter
        self._min_delay = min(min_delay, max_delay)
        self._max_failures = math.inf if max_failures is None else max_failures

    @property
    def exhausted(self) -> bool:
        """Whether too many attempts have failed."""
        return self.failures >= self._max_failures

    def record_attempt(self, *, delivered: bool, held: float = 0.0) -> None:
        """Record an attempt that is over.

        Args:
          delivered: whether an event arrived.
          held: seconds for which its connection was open. ``max_delay`` of them count as an event
            does: a stream may be silent, and a proxy may end it for that.
        """
        self.failures = 0 if delivered or held >= self._max_delay else self.failures + 1

    def delay(self, asked: float = 0.0) -> float:
        """Return how many seconds to wait before the next attempt.

        Args:
          asked: the minimum that the server asked for.
        """
        base = self.retry / 1000
        seconds = max(base, asked, self._min_delay)
        if self.failures:
            doublings = min(self.failures - 1, _MAX_DOUBLINGS)
            grown = max(base, _MIN_GROWING) * 2.0**doublings
            seconds = max(seconds, min(grown, self._max_delay))
        seconds = min(seconds, _MAX_ASKED)
        return seconds + random.uniform(0, self._jitter * seconds)


def retry_after(header: str) -> float:
    """Return how many seconds a Retry-After header asks for, as a number or as a date."""
    given = header.strip()
    if given.isascii() and given.isdecimal():
        return float(given)
    try:
        until = parsedate_to_datetime(given)
    except (ValueError, OverflowError):  # not a date, or one with an impossible number
        return 0.0
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


async def classify_failure(
    error: Exception, client: httpx2.AsyncClient, url: httpx2.URL, *, answered_before: bool
) -> ConnectionFailed | Unavailable:
    """Return whether a request that got no response is to be made again.

    Args:
      error: what the request raised.
      client: what sent it.
      url: the URL that was requested.
      answered_before: whether the server has answered an earlier request.
    """
    where, reason = redacted(url), reason_of(error)
    if isinstance(error, (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol)):
        return ConnectionFailed(f"{where}: cannot be requested: {reason}")
    if isinstance(error, httpx2.RemoteProtocolError) and "location header" in str(error):
        # httpx2 before 2.16.1 looks at a redirect's target even where it does not follow it.
        return ConnectionFailed(f"{where}: redirected to an invalid URL: {reason}")
    if answered_before:
        return Unavailable(reason)
    causes = list(_causes_of(error))
    if any(isinstance(each, socket.gaierror) and each.errno in _NO_HOST for each in causes):
        return ConnectionFailed(f"{where}: no such host: {reason}")
    if any(isinstance(each, ssl.SSLCertVerificationError) for each in causes):
        return ConnectionFailed(
            f"{where}: {reason}; to trust another authority, name its file in SSL_CERT_FILE"
        )
    tls = [each for each in causes if isinstance(each, ssl.SSLError)]
    ambiguous = tls or isinstance(error, (httpx2.RemoteProtocolError, httpx2.ReadError))
    if ambiguous and (hint := await scheme_hint(client, url)) is not None:
        return ConnectionFailed(f"{where}: {reason}; {hint}")
    if tls and not isinstance(tls[-1], _TLS_ENDED):
        return ConnectionFailed(f"{where}: {reason}; does this port speak TLS?")
    return Unavailable(reason)


async def scheme_hint(client: httpx2.AsyncClient, url: httpx2.URL) -> str | None:
    """Return advice if a port speaks https instead of http, or http instead of https.

    It requests nothing but the root, without any header of the caller's.

    Cancellation:
      A checkpoint, which takes 5 s at most.
    """
    scheme, port = ("http", 443) if url.scheme == "https" else ("https", 80)
    other = httpx2.URL(scheme=scheme, host=url.host, port=url.port or port, path="/")
    request = httpx2.Request("HEAD", other, extensions={"timeout": httpx2.Timeout(None).as_dict()})
    advice = f"this port speaks {'plain HTTP' if scheme == 'http' else 'TLS'}: use {scheme}://"
    try:
        with trio.move_on_after(_PROBE_TIMEOUT):
            response = await client.send(request, stream=True, auth=None, follow_redirects=False)
            with trio.move_on_after(1, shield=True):
                await response.aclose()
            # 400 is what a TLS port answers to a plain request.
            return None if scheme == "http" and response.status_code == 400 else advice
    except httpx2.TransportError as error:
        certificate = any(isinstance(e, ssl.SSLCertVerificationError) for e in _causes_of(error))
        return advice if certificate else None
    except (httpx2.InvalidURL, ValueError):
        return None
    return None


def status_of(response: httpx2.Response) -> str:
    """Return a response's status with its reason phrase, which many servers leave out."""
    status = response.status_code
    phrase = response.reason_phrase or httpx2.codes.get_reason_phrase(status)
    return f"{status} {printable(phrase, limit=_MAX_SHOWN)}".rstrip()


def reason_of(error: BaseException) -> str:
    """Return what went wrong in one line: the operating system's words where there are some."""
    words = str(error)
    for cause in _causes_of(error):
        if isinstance(cause, OSError) and cause.strerror:
            number = 0 if isinstance(cause, ssl.SSLError) else cause.errno or 0
            words = os.strerror(number) if number in errno.errorcode else cause.strerror
    line = printable(" ".join(words.split()), limit=_MAX_SHOWN).rstrip(".")
    return line or type(error).__name__


def _causes_of(error: BaseException) -> Iterator[BaseException]:
    cause = _cause_of(error)
    while cause is not None:
        yield cause
        cause = _cause_of(cause)


def _cause_of(error: BaseException) -> BaseException | None:
    if isinstance(error, BaseExceptionGroup):
        return error.exceptions[-1]
    return error.__cause__ or error.__context__  # httpcore2 raises `from None`
