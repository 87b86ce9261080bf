"""Load the application that MODULE:APP names."""

from __future__ import annotations

import importlib
import inspect
import operator
import os
import sys
import traceback
from types import TracebackType
from typing import Any

import click
from quart import Quart
from quart_trio import QuartTrio

from penstock.cli import Misuse

__all__ = ["load_application"]


def load_application(application: str) -> Any:
    """Import MODULE:APP, from the current directory, too, as `python -m` does.

    Raises:
      Misuse: there is no such application.
      click.ClickException: its module raised an error; the traceback was printed, from that module
        on.
    """
    module, _, name = application.partition(":")
    if not module or not name or module.startswith("."):
        suggestion = f"{_module_of(module).strip('.') or 'hello'}:app"
        raise Misuse(f"{application!r} is not MODULE:APP, such as {suggestion}")
    if module.endswith(".py"):
        right = f"{_module_of(module)}:{name}"
        raise Misuse(f"{module!r} is a file: give the module's name, {right}")
    sys.path.insert(0, "")
    try:
        loaded: Any = importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise Misuse(
                f"no module {error.name!r} for {application!r}: check its spelling, and run in the "
                "directory that contains it"
            ) from error
        error.__traceback__ = _within(error.__traceback__)
        traceback.print_exception(error)
        why = "".join(traceback.format_exception_only(error)[-1:]).strip()
        raise click.ClickException(f"{module!r} cannot be imported: {why}") from error
    try:
        app = operator.attrgetter(name)(loaded)
    except AttributeError as error:
        raise Misuse(f"module {module!r} has no {name!r}") from error
    if isinstance(app, type) or not _takes_three(app):
        raise Misuse(
            f"{application!r} is not an ASGI application but {type(app).__name__}: "
            "give an object such as `app = QuartTrio(__name__)`"
        )
    if isinstance(app, Quart) and not isinstance(app, QuartTrio):
        raise Misuse(f"{application!r} is a Quart application for asyncio: use QuartTrio")
    return app


def _within(where: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that begins in the application's own code."""
    while where is not None:
        name = where.tb_frame.f_globals.get("__name__")
        if name != __name__ and not str(name).startswith("importlib"):
            break
        where = where.tb_next
    return where


def _module_of(path: str) -> str:
    return path.removesuffix(".py").removeprefix("./").replace(os.sep, ".")


def _takes_three(app: Any) -> bool:
    """Return whether ASGI can call an object: it cannot call a view, a factory or a WSGI app."""
    try:
        inspect.signature(app, follow_wrapped=False).bind("scope", "receive", "send")
    except TypeError:
        return False
    except ValueError:  # it has no signature to inspect
        return callable(app)
    return True
