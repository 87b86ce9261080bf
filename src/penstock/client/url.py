"""URLs that a client can ask for, and how to show them."""

from __future__ import annotations

import httpx2

from penstock.printable import printable

__all__ = ["Origin", "address_of", "origin_of", "url_of"]

Origin = tuple[str, bytes, int]

_PORTS = {"http": 80, "https": 443}


def url_of(given: str | httpx2.URL) -> httpx2.URL:
    """Return a URL that can be asked for.

    Raises:
      ValueError: it is not one; the message says why.
    """
    try:
        url = httpx2.URL(given)
        # Name resolution refuses a label that is empty or longer than 63 characters, with an
        # error that is not an OSError.
        url.raw_host.decode("ascii").encode("idna")
    except (httpx2.InvalidURL, ValueError) as error:  # of which UnicodeError is one
        reason = printable(str(error), limit=200)
        raise ValueError(f"{_shown(given)} is not a URL: {reason}") from error
    if url.scheme not in _PORTS or not url.raw_host:
        raise ValueError(f"{_shown(given)} is not a URL such as https://example.org/events")
    if url.port is not None and not 0 < url.port < 65536:
        raise ValueError(f"{_shown(given)} is not a URL: the port must be from 1 to 65535")
    return url


def address_of(url: httpx2.URL) -> str:
    """Return a URL for the log, without what may be secret: user, password and query."""
    path, _, _ = url.raw_path.partition(b"?")
    return f"{url.scheme}://{(url.netloc + path).decode('ascii')}"


def origin_of(url: httpx2.URL) -> Origin:
    """Return a URL's scheme, host and port: what shares an origin shares its secrets."""
    port = _PORTS[url.scheme] if url.port is None else url.port
    return url.scheme, url.raw_host, port


def _shown(given: str | httpx2.URL) -> str:
    text = str(given)
    return ascii(text if len(text) <= 200 else f"{text[:200]}…")
