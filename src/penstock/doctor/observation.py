"""What was observed of an endpoint: plain facts, in the order in which they become known.

Times are seconds of one monotonic clock. Texts are as the server sent them, not yet printable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from penstock.doctor.body import Examination, codings_of

__all__ = [
    *("RESUME_BACK", "Answer", "Observation", "Redirect", "Resumption", "StreamEnd"),
    *("origin_of", "resume_from"),
]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21}

# How many events before the end a reconnection resumes: a history has that many.
RESUME_BACK: Final = 4


class StreamEnd(StrEnum):
    """How holding a stream ended."""

    HELD = "held"
    """The stream was still open when the time was over."""
    ENDED = "ended"
    """The server ended the body."""
    CLOSED = "closed"
    """The connection was closed; in HTTP/1 without chunks or length, that is how a body ends."""
    BROKEN = "broken"
    """The connection broke, or ended before the body did."""
    STOPPED = "stopped"
    """The probe was interrupted."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """One redirect.

    Attributes:
      status: the status of the response.
      source: the URL that was requested.
      target: the URL that it redirected to.
      method_kept: whether the next request had the same method.
    """

    status: int
    source: str
    target: str
    method_kept: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of the final response.

    Attributes:
      status: the status.
      phrase: the reason phrase.
      headers: the fields, names in lower case; repeated ones are joined by ``, ``.
      version: the version of HTTP, such as ``HTTP/1.1``.
      tls: whether the connection used TLS.
      address: the URL, without what may be secret.
      waited: seconds from the request to this.
      opened_at: when it arrived.
      method: the method of the request.
    """

    status: int
    phrase: str
    headers: Mapping[str, str]
    version: str
    tls: bool
    address: str
    waited: float
    opened_at: float
    method: str = "GET"

    def header(self, name: str) -> str:
        """Return a field's value, or the empty string."""
        return self.headers.get(name, "")

    @property
    def is_stream(self) -> bool:
        """Whether a client accepts it as an event stream.

        A browser's EventSource accepts status 200 only. Other methods are used by programs, which
        accept any success that has a body.
        """
        good = self.status == 200 or (self.method != "GET" and self.is_success)
        return good and self.kind == "text/event-stream"

    @property
    def is_success(self) -> bool:
        """Whether the status is a success with a body."""
        return 200 <= self.status < 300 and self.status not in (204, 205)

    @property
    def coding(self) -> str:
        """The content codings of the body, without those of no effect."""
        return codings_of(self.header("content-encoding"))

    @property
    def kind(self) -> str:
        """The content type without its parameters."""
        return self.header("content-type").partition(";")[0].strip().lower()


@dataclass(slots=True)
class Resumption:
    """A second connection, with the id of an event of the first one.

    Attributes:
      sent: the id that was sent as Last-Event-ID.
      expected: the id of the event that followed it on the first connection; None if none did.
      answer: the head of the response; None while there is none.
      failure: why there was no response.
      first: the first id of its events; None if none had any.
      waited: seconds for which it was read.
      done: whether it was read to the end, or for the full time.
    """

    sent: str
    expected: str | None
    answer: Answer | None = None
    failure: str | None = None
    first: str | None = None
    waited: float = 0.0
    done: bool = False


@dataclass(slots=True)
class Observation:
    """Everything observed of one endpoint, so far.

    Attributes:
      address: the URL that was requested first, without what may be secret.
      hold: seconds to wait for the response, and then to hold the stream.
      origin: the origin that was sent, if any.
      method: the method of the request.
      content: the body of the request, or None.
      credentials: whether a cookie was sent.
      redirects: the redirects that were followed, in order.
      too_many_redirects: whether there were more than are followed.
      failure: why there was no response; None if there was one, or none yet.
      unreachable: whether that is because there was no server to send the request to.
      timed_out: whether that is because the server did not respond in time.
      answer: the head of the response, once there was one.
      coding: the content codings that a browser gets, without those of no effect.
      readable: whether the stream is available in an encoding that the doctor can read.
      body: what arrived of the body.
      end: how holding the stream ended; None while it is held.
      end_reason: the error that ended it, if there was one.
      ended_at: when it ended.
      resumption: the second connection, if there was one.
      stopped: whether the probe was interrupted.
    """

    address: str
    hold: float
    origin: str | None = None
    method: str = "GET"
    content: bytes | None = None
    credentials: bool = False
    redirects: list[Redirect] = field(default_factory=list)
    too_many_redirects: bool = False
    failure: str | None = None
    unreachable: bool = False
    timed_out: bool = False
    answer: Answer | None = None
    coding: str = ""
    readable: bool = True
    body: Examination | None = None
    end: StreamEnd | None = None
    end_reason: str = ""
    ended_at: float = 0.0
    resumption: Resumption | None = None
    stopped: bool = False

    @property
    def is_get(self) -> bool:
        """Whether the request is one that an EventSource makes, and repeats when a stream ends."""
        return self.method == "GET"


def origin_of(url: str) -> str:
    """Return the origin of a URL, in lower case and without its scheme's default port.

    Raises:
      ValueError: it is not a URL.

    Spec: https://html.spec.whatwg.org/multipage/browsers.html#ascii-serialisation-of-an-origin
    """
    parts = urlsplit(url)
    scheme, host, port = parts.scheme.lower(), parts.hostname or "", parts.port
    host = f"[{host}]" if ":" in host else host
    default = port is None or port == _DEFAULT_PORTS.get(scheme)
    return f"{scheme}://{host}" if default else f"{scheme}://{host}:{port}"


def resume_from(body: Examination) -> tuple[str, str | None] | None:
    """Return the id to resume after, and that of the event that should follow; None if none can be.

    The id is a few events before the last: what follows the last one is unknown, and ids made from
    the clock could match the one right before it by chance. Nor is it the first id: a server that
    starts again from the beginning would seem to send that event again.
    """
    ids = list(body.ids)[-RESUME_BACK:]
    if len(ids) > 2 and ids[0] == body.first_id:
        del ids[0]
    if not ids or not ids[0].isprintable():  # a browser would send it; h11 refuses to
        return None
    return (ids[0], ids[1]) if len(ids) > 1 else (ids[0], None)
