"""What was observed of an endpoint: plain facts, in the order in which they come to light.

Times are seconds of one monotonic clock. Texts are as the server sent them: whoever shows them
makes them fit to be shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from penstock.doctor.body import Examination

__all__ = ["Answer", "Observation", "Redirect", "Resumption", "StreamEnd"]


class StreamEnd(StrEnum):
    """How holding a stream came to its end."""

    HELD = "held"
    """It was still open when the time was over."""
    ENDED = "ended"
    """The server ended it, and said so."""
    CLOSED = "closed"
    """The connection was closed; in HTTP/1 without chunks or length, that is how a body ends."""
    TORN = "torn"
    """The connection broke, or ended before the body did."""
    STOPPED = "stopped"
    """Whoever watched had enough."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """One answer that sent elsewhere.

    Attributes:
      status: its status.
      source: the address that was asked.
      target: where it sent to.
      method_kept: whether the next request had the same method.
    """

    status: int
    source: str
    target: str
    method_kept: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of the last answer.

    Attributes:
      status: its status.
      phrase: the status's name.
      headers: its fields, names in lower case; what came more than once is joined by ``, ``.
      version: the version of HTTP, such as ``HTTP/1.1``.
      tls: whether it came over TLS.
      address: what was asked, without what may be secret.
      waited: seconds from the request to this.
      opened_at: when it came.
      method: of the request that it answers.
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
        """Whether it is a body that a browser takes for an event stream.

        An EventSource takes status 200 only. Other methods are a program's, which takes any success
        that has a body.
        """
        good = self.status == 200 or (self.method != "GET" and self.is_success)
        return good and self.kind == "text/event-stream"

    @property
    def is_success(self) -> bool:
        """Whether its status says that it succeeded, with a body."""
        return 200 <= self.status < 300 and self.status not in (204, 205)

    @property
    def kind(self) -> str:
        """The content type without its parameters."""
        return self.header("content-type").partition(";")[0].strip().lower()


@dataclass(slots=True)
class Resumption:
    """A second connection, with the id of an event that the first one brought.

    Attributes:
      sent: the id that was sent as Last-Event-ID.
      expected: the id of the event that followed it on the first connection; None if none did.
      answer: the head of the answer; None while there is none.
      failure: why there was no answer.
      first: the id that its events brought first; None if none did.
      waited: seconds for which it was listened to.
      done: whether it was listened to for as long as was meant.
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
    """All that was seen of one endpoint, so far.

    Attributes:
      address: what was asked first, without what may be secret.
      hold: seconds for which the stream was to be held, and for which an answer was waited for.
      origin: the origin that was sent, if any.
      method: the method that was asked with.
      content: the body that was sent; None: none.
      credentials: whether a cookie was sent.
      redirects: the answers that sent elsewhere, in order.
      too_many_redirects: whether that would not end.
      failure: why there was no answer; None if there was one, or none yet.
      unreachable: whether that is because nobody could be asked at all.
      timed_out: whether that is because none came in time, to what had been asked.
      answer: the head of the answer, once there was one.
      coding: the content codings that a browser gets, those of no effect left out.
      readable: whether it could be had in an encoding that can be read here.
      body: what came of its body.
      end: how holding it ended; None while it is held.
      end_said: the words for it, where there are some.
      ended_at: when that was.
      resumption: the second connection, if there was one.
      stopped: whether the watching was cut short.
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
    end_said: str = ""
    ended_at: float = 0.0
    resumption: Resumption | None = None
    stopped: bool = False

    @property
    def is_get(self) -> bool:
        """Whether it was asked as an EventSource asks, which comes back when a stream ends."""
        return self.method == "GET"
