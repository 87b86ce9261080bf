"""Options that the commands which send a request share: URL, method, body and headers."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any, Final, final

import click
import httpx2

from penstock.client.request import HEADER_NAME, parse_url
from penstock.printable import printable

__all__ = ["DATA", "HEADER", "REQUEST", "URL", "with_content_type"]


@final
class _Url(click.ParamType[httpx2.URL]):
    name = "URL"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> httpx2.URL:
        """Return the URL."""
        try:
            return parse_url(value)
        except ValueError as error:
            self.fail(str(error))


@final
class _Header(click.ParamType[tuple[str, str]]):
    name = "NAME: VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Return the header's name and its value."""
        if isinstance(value, tuple):
            return value
        name, colon, text = str(value).partition(":")
        text = text.strip(" \t")
        if not colon or not HEADER_NAME.fullmatch(name):
            self.fail(f"{value!r} is not a header, such as 'Authorization: Bearer …'")
        if not text.isprintable() or not text.isascii():
            self.fail(f"{value!r}: the value of a header can only have printable ASCII characters")
        return name, text


URL: Final = _Url()
HEADER: Final = click.option(
    "headers",
    "--header",
    "-H",
    type=_Header(),
    multiple=True,
    metavar="'NAME: VALUE'",
    help="A header to send; repeatable.",
)


# What APIs accept that stream the response to a request with a body.
_CONTENT_TYPE: Final = ("Content-Type", "application/json")

# Spec: RFC 9110, 9.1: a method is a token. Responses to HEAD and CONNECT have no body.
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_BODILESS: Final = frozenset({"HEAD", "CONNECT"})


@final
class _Method(click.ParamType[str]):
    name = "METHOD"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the method."""
        if not _METHOD.fullmatch(str(value)) or str(value).upper() in _BODILESS:
            self.fail(f"{value!r} is not a method that can be answered with a stream, such as POST")
        return str(value).upper()


@final
class _Data(click.ParamType[bytes]):
    name = "DATA"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> bytes:
        """Return the body: the text itself, or the content of the file after an ``@``."""
        if isinstance(value, bytes):
            return value
        text = str(value)
        if not text.startswith("@"):
            return os.fsencode(text)
        try:
            if text != "@-":
                return Path(text[1:]).read_bytes()
            if sys.stdin is None:
                self.fail("standard input is closed")
            return sys.stdin.buffer.read()
        except (OSError, ValueError) as error:  # the latter if the name contains a NUL
            reason = error.strerror if isinstance(error, OSError) else error
            self.fail(f"{printable(text[1:], limit=200)} cannot be read: {reason}")


REQUEST: Final = click.option(
    "method",
    "--request",
    "-X",
    type=_Method(),
    metavar="METHOD",
    help="The method of the request. [default: GET; POST with --data]",
)
DATA: Final = click.option(
    "data",
    "--data",
    "-d",
    type=_Data(),
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
