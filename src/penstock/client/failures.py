"""Why a client has no event stream: in words, and whether a later attempt may succeed."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from typing import Final

import httpx2
import trio

from penstock.client.request import address_of
from penstock.errors import ConnectionFailed
from penstock.printable import printable

__all__ = ["Unavailable", "failure_of", "other_scheme", "reason_of", "status_of"]

# Characters of a reason phrase, or of an error's text, that are shown.
_LONGEST: Final = 300

# Seconds for the question whether a port speaks the other scheme.
_PROBE_TIMEOUT: Final = 5.0

# No such host; what may be so for a moment only is EAI_AGAIN.
_NO_HOST: Final = {
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name)
}

# The peer went away in the middle of a TLS handshake.
_TLS_ENDED: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


class Unavailable(Exception):
    """There are no events now, and there may be later.

    Attributes:
      asked: seconds that the server asked to wait before the next attempt.
      status: the HTTP status that says so, if one does.
      ended: whether the stream came to its proper end.
    """

    def __init__(
        self, reason: str, *, asked: float = 0.0, status: int | None = None, ended: bool = False
    ) -> None:
        super().__init__(reason)
        self.asked: float = asked
        self.status: int | None = status
        self.ended: bool = ended


async def failure_of(
    error: Exception, client: httpx2.AsyncClient, url: httpx2.URL, *, known: bool
) -> ConnectionFailed | Unavailable:
    """Return what it means that a request got no answer.

    Args:
      error: what the request raised.
      client: what sent it.
      url: what it asked for.
      known: whether there was an answer before. Until there was one, an error that points to a
        wrong URL is final; afterwards it is an outage.
    """
    where, reason = address_of(url), reason_of(error)
    if isinstance(error, (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol)):
        return ConnectionFailed(f"{where}: cannot be asked for: {reason}")
    if isinstance(error, httpx2.RemoteProtocolError) and "location header" in str(error):
        # httpx2 before 2.16.1 looks at a redirect's target even where it does not follow it.
        return ConnectionFailed(f"{where}: redirected to what is not a URL: {reason}")
    if known:
        return Unavailable(reason)
    causes = list(_causes_of(error))
    if any(isinstance(each, socket.gaierror) and each.errno in _NO_HOST for each in causes):
        return ConnectionFailed(f"{where}: there is no such host: {reason}")
    if any(isinstance(each, ssl.SSLCertVerificationError) for each in causes):
        return ConnectionFailed(
            f"{where}: {reason}; to trust another authority, name its file in SSL_CERT_FILE"
        )
    tls = [each for each in causes if isinstance(each, ssl.SSLError)]
    puzzling = tls or isinstance(error, (httpx2.RemoteProtocolError, httpx2.ReadError))
    if puzzling and (hint := await other_scheme(client, url)) is not None:
        return ConnectionFailed(f"{where}: {reason}; {hint}")
    if tls and not isinstance(tls[-1], _TLS_ENDED):
        return ConnectionFailed(f"{where}: {reason}; does this port speak TLS?")
    return Unavailable(reason)


async def other_scheme(client: httpx2.AsyncClient, url: httpx2.URL) -> str | None:
    """Return the remedy if a port speaks https instead of http, or http instead of https.

    It asks for nothing but the root, without any header of the caller's.

    Cancellation:
      A checkpoint, which takes 5 s at most.
    """
    scheme, port = ("http", 443) if url.scheme == "https" else ("https", 80)
    other = httpx2.URL(scheme=scheme, host=url.host, port=url.port or port, path="/")
    request = httpx2.Request("HEAD", other, extensions={"timeout": httpx2.Timeout(None).as_dict()})
    remedy = f"this port speaks {'plain HTTP' if scheme == 'http' else 'TLS'}: use {scheme}://"
    try:
        with trio.move_on_after(_PROBE_TIMEOUT):
            response = await client.send(request, stream=True, auth=None, follow_redirects=False)
            with trio.move_on_after(1, shield=True):
                await response.aclose()
            # 400 is what a port of TLS answers to a plain request.
            return None if scheme == "http" and response.status_code == 400 else remedy
    except httpx2.TransportError as error:
        certificate = any(isinstance(e, ssl.SSLCertVerificationError) for e in _causes_of(error))
        return remedy if certificate else None
    except (httpx2.InvalidURL, ValueError):
        return None
    return None


def status_of(response: httpx2.Response) -> str:
    """Return an answer's status with its name, which many servers leave out."""
    status = response.status_code
    phrase = response.reason_phrase or httpx2.codes.get_reason_phrase(status)
    return f"{status} {printable(phrase, limit=_LONGEST)}".rstrip()


def reason_of(error: BaseException) -> str:
    """Return what went wrong in one line: the operating system's words where there are some."""
    words = str(error)
    for cause in _causes_of(error):
        if isinstance(cause, OSError) and cause.strerror:
            number = 0 if isinstance(cause, ssl.SSLError) else cause.errno or 0
            words = os.strerror(number) if number in errno.errorcode else cause.strerror
    line = printable(" ".join(words.split()), limit=_LONGEST).rstrip(".")
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
