"""Options that the commands which send a request share: URL, method, body and headers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import click

from penstock.cli import Parsed
from penstock.client.request import HEADER_NAME, parse_method, parse_url
from penstock.printable import printable

__all__ = ["DATA", "HEADER", "REQUEST", "URL", "with_content_type"]


# What APIs accept that stream the response to a request with a body.
_CONTENT_TYPE: Final = ("Content-Type", "application/json")


def _parse_header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    value = value.strip(" \t")
    if not colon or not HEADER_NAME.fullmatch(name):
        raise ValueError(f"{text!r} is not a header, such as 'Authorization: Bearer …'")
    if not value.isprintable() or not value.isascii():
        raise ValueError(f"{text!r}: a header value can only have printable ASCII characters")
    return name, value


def _parse_data(text: str) -> bytes:
    """Return the body of a request: the text itself, or the content of the file after an ``@``."""
    if not text.startswith("@"):
        return os.fsencode(text)
    if text == "@-" and sys.stdin is None:
        raise ValueError("standard input is closed")
    try:
        return sys.stdin.buffer.read() if text == "@-" else Path(text[1:]).read_bytes()
    except (OSError, ValueError) as error:  # the latter if the name contains a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{printable(text[1:], limit=200)} cannot be read: {reason}") from error


URL: Final = Parsed("URL", parse_url)
HEADER: Final = click.option(
    "headers",
    "--header",
    "-H",
    type=Parsed("NAME: VALUE", _parse_header),
    multiple=True,
    metavar="'NAME: VALUE'",
    help="A header to send; repeatable.",
)
REQUEST: Final = click.option(
    "method",
    "--request",
    "-X",
    type=Parsed("METHOD", parse_method),
    metavar="METHOD",
    help="The method of the request. [default: GET; POST with --data]",
)
DATA: Final = click.option(
    "data",
    "--data",
    "-d",
    type=Parsed("DATA", _parse_data),
    metavar="TEXT|@FILE",
    help="Send this body, or the content of FILE (@- is standard input), as application/json "
    "unless --header gives another Content-Type.",
)


def with_content_type(
    headers: tuple[tuple[str, str], ...], data: bytes | None
) -> tuple[tuple[str, str], ...]:
    """Return the headers of a request, with a content type if there is a body."""
    if data is None or any(name.lower() == "content-type" for name, _ in headers):
        return headers
    return (*headers, _CONTENT_TYPE)
