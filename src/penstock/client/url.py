"""The URLs that a client asks for: which it takes, and how it writes them down."""

from __future__ import annotations

import httpx2

__all__ = ["address_of", "url_of"]


def url_of(given: str | httpx2.URL) -> httpx2.URL:
    """Return a URL that can be asked for.

    Raises:
      ValueError: it is none.
    """
    try:
        url = httpx2.URL(given)
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise ValueError(f"{given!r} is not a URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"{given!r} is not a URL such as https://example.org/events")
    return url


def address_of(url: httpx2.URL) -> str:
    """Return a URL for the log, without what may be secret: user, password and query."""
    path, _, _ = url.raw_path.partition(b"?")
    return f"{url.scheme}://{(url.netloc + path).decode('ascii')}"
