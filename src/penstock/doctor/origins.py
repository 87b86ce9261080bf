"""Origins, as browsers compare and write them."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

__all__ = ["NotAnOrigin", "origin_of", "parse_origin"]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21}

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_HOST: Final = re.compile(r"[A-Za-z0-9.-]+(:[0-9]*)?|\[[0-9A-Fa-f:.]+\](:[0-9]*)?")


class NotAnOrigin(ValueError):
    """A text names no origin; the message says why, if there is more to say."""


def origin_of(address: str) -> str:
    """Return the origin of a URL, in lower case and without its scheme's default port.

    Raises:
      ValueError: it is no URL.

    Spec: https://html.spec.whatwg.org/multipage/browsers.html#ascii-serialisation-of-an-origin
    """
    parts = urlsplit(address)
    scheme, host, port = parts.scheme.lower(), parts.hostname or "", parts.port
    host = f"[{host}]" if ":" in host else host
    default = port is None or port == _DEFAULT_PORTS.get(scheme)
    return f"{scheme}://{host}" if default else f"{scheme}://{host}:{port}"


def parse_origin(text: str) -> str:
    """Return an origin that somebody typed, as a browser writes it.

    Raises:
      NotAnOrigin: it is none.
    """
    if text == "null":
        return text
    try:
        parts = urlsplit(text)
        bare = parts.path in ("", "/") and not parts.query and not parts.fragment
        if not (bare and _SCHEME.fullmatch(parts.scheme) and _HOST.fullmatch(parts.netloc)):
            raise NotAnOrigin("")
        return origin_of(text)
    except NotAnOrigin:
        raise
    except ValueError as error:
        raise NotAnOrigin(str(error)) from error
