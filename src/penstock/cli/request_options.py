"""The options that say what to send in a request, in curl's words."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Final, final

import click

__all__ = ["DATA", "FORM", "REQUEST"]

# The content type that curl gives to --data.
FORM: Final = "application/x-www-form-urlencoded"

# Spec: RFC 9110, 9.1: a method is a token. HEAD has no body to look at, and CONNECT no answer.
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_BODILESS: Final = frozenset({"HEAD", "CONNECT"})


@final
class _Method(click.ParamType[str]):
    name = "METHOD"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the method."""
        if not _METHOD.fullmatch(str(value)) or str(value).upper() in _BODILESS:
            self.fail(f"{value!r} is not a method that a stream answers to, such as POST")
        return str(value).upper()


@final
class _Data(click.ParamType[bytes]):
    name = "DATA"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> bytes:
        """Return the body: as it stands, or what is in the file after an ``@``."""
        if isinstance(value, bytes):
            return value
        text = str(value)
        try:
            if text == "@-":
                return sys.stdin.buffer.read()
            if text.startswith("@"):
                return Path(text[1:]).read_bytes()
            return text.encode()
        except OSError as error:
            self.fail(f"{text!r} cannot be read: {error.strerror}")
        except ValueError as error:  # a NUL in the name, or text that is not Unicode
            self.fail(f"{text!r} cannot be sent: {error}")


REQUEST: Final = click.option(
    "method",
    "--request",
    "-X",
    type=_Method(),
    metavar="METHOD",
    help="Ask with this method. [default: GET, with --data POST]",
)
DATA: Final = click.option(
    "data",
    "--data",
    "-d",
    type=_Data(),
    metavar="DATA",
    help="Send this body, or the content of @FILE, or of stdin: @-. As with curl, it is a form "
    "unless a header Content-Type says otherwise.",
)
