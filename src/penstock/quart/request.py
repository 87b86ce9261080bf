"""What a request for an event stream says: where it resumes, and whether it accepts a stream."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

from quart import request
from werkzeug.datastructures import MIMEAccept
from werkzeug.exceptions import BadRequest
from werkzeug.http import parse_accept_header

__all__ = ["accepts_event_stream", "last_event_id"]

_CONTENT_TYPE: Final = "text/event-stream"

_LAST_EVENT_ID_IN_QUERY: Final = {"lastEventId", "last_event_id", "lastEventID", "Last-Event-ID"}


def last_event_id() -> str | None:
    """Return the id of the last event that the reconnecting client saw, or None.

    The header ``Last-Event-ID`` is read first, then the query parameter of clients that cannot set
    headers: ``lastEventId`` (event-source-polyfill), ``last_event_id``, ``lastEventID`` or
    ``Last-Event-ID`` (Mercure). If there are several parameters, the last is used.

    Raises:
      werkzeug.exceptions.BadRequest: the header is not UTF-8. If it is not caught, Quart answers
        400. In the query, invalid UTF-8 becomes U+FFFD, as in ``request.args``.

    Spec: #the-last-event-id-header: the header's value is encoded as UTF-8, and it is not sent when
    it would be empty.
    """
    value = request.headers.get("Last-Event-ID")
    try:
        if value:
            # ASGI passes bytes, and Quart decodes them as Latin-1.
            return value.encode("latin-1").decode()
    except UnicodeError:
        raise BadRequest("The Last-Event-ID header is not UTF-8.") from None
    return _last_event_id_of_query()


def _last_event_id_of_query() -> str | None:
    if not request.query_string:
        return None
    query = request.query_string.decode(errors="replace")
    # A reconnecting client appends the newest id to a URL that may already have one.
    values = [value for name, value in parse_qsl(query) if name in _LAST_EVENT_ID_IN_QUERY]
    return values[-1] if values else None


def accepts_event_stream() -> bool:
    """Return whether the request's ``Accept`` allows ``text/event-stream``.

    For a view that also has another representation, or refuses with 406: an `EventSourceResponse`
    does not check. Many clients that read event streams do not name the type: the official clients
    of OpenAI and Anthropic send ``Accept: application/json``.

    Spec: RFC 9110, 12.5.1: the most specific media range decides. Parameters other than the quality
    say nothing about an event stream.
    """
    qualities: dict[str, float] = {}
    lines = ",".join(request.headers.getlist("Accept"))  # RFC 9110, 5.3: they are one list
    for media_range, quality in parse_accept_header(lines, MIMEAccept):
        name = media_range.partition(";")[0].strip().lower()
        if not name:  # an empty element, which older versions of Werkzeug return
            continue
        qualities[name] = max(quality, qualities.get(name, 0))
    for media_range in (_CONTENT_TYPE, "text/*", "*/*"):
        if media_range in qualities:
            return qualities[media_range] > 0
    return not qualities
