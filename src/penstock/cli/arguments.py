"""The arguments that the commands have in common which ask a server for something."""

from __future__ import annotations

from typing import Any, Final, final

import click
import httpx2

from penstock.client.request import HEADER_NAME
from penstock.client.url import url_of

__all__ = ["HEADER", "URL"]


@final
class _Url(click.ParamType[httpx2.URL]):
    name = "URL"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> httpx2.URL:
        """Return the URL."""
        try:
            return url_of(value)
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
            self.fail(f"{value!r}: a header's value is of printable ASCII characters")
        return name, text


URL: Final = _Url()
HEADER: Final = click.option(
    "headers",
    "--header",
    "-H",
    type=_Header(),
    multiple=True,
    metavar="'NAME: VALUE'",
    help="A header to send; may be given several times.",
)
