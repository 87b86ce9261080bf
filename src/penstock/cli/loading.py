"""The application that MODULE:APP names."""

from __future__ import annotations

import importlib
import inspect
import operator
import os
import sys
import traceback
from types import TracebackType
from typing import Any

from quart import Quart
from quart_trio import QuartTrio

__all__ = ["FaultyApplication", "NoApplication", "load_application"]


class NoApplication(Exception):
    """MODULE:APP names nothing that can be served; the message says what would."""


class FaultyApplication(Exception):
    """The module that has it cannot be imported; the message says why, after its traceback."""


def load_application(application: str) -> Any:
    """Import MODULE:APP, looked for in the current directory, too, as with `python -m`.

    Raises:
      NoApplication: there is none.
      FaultyApplication: its module raises; the traceback was printed, from that module on.
    """
    module, _, name = application.partition(":")
    if not module or not name or module.startswith("."):
        suggestion = f"{_module_of(module).strip('.') or 'hello'}:app"
        raise NoApplication(f"{application!r} is not MODULE:APP, such as {suggestion}")
    if module.endswith(".py"):
        right = f"{_module_of(module)}:{name}"
        raise NoApplication(f"{module!r} is a file, and MODULE:APP names a module: {right}")
    sys.path.insert(0, "")
    try:
        loaded: Any = importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise NoApplication(
                f"no module {error.name!r} for {application!r}: check its spelling, and run in the "
                "directory that holds it"
            ) from error
        error.__traceback__ = _within(error.__traceback__)
        traceback.print_exception(error)
        said = "".join(traceback.format_exception_only(error)[-1:]).strip()
        raise FaultyApplication(f"{module!r} cannot be imported: {said}") from error
    try:
        app = operator.attrgetter(name)(loaded)
    except AttributeError as error:
        raise NoApplication(f"module {module!r} has no {name!r} to serve") from error
    if isinstance(app, type) or not _takes_three(app):
        raise NoApplication(
            f"{application!r} is no ASGI application but {type(app).__name__}: "
            "name an object such as `app = QuartTrio(__name__)`"
        )
    if isinstance(app, Quart) and not isinstance(app, QuartTrio):
        raise NoApplication(f"{application!r} is a Quart of asyncio: make it a QuartTrio")
    return app


def _within(where: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the application's own code on, without what imports it."""
    while where is not None:
        name = where.tb_frame.f_globals.get("__name__")
        if name != __name__ and not str(name).startswith("importlib"):
            break
        where = where.tb_next
    return where


def _module_of(path: str) -> str:
    return path.removesuffix(".py").removeprefix("./").replace(os.sep, ".")


def _takes_three(app: Any) -> bool:
    """Tell whether an object can be called as ASGI calls it: a view, factory or WSGI app cannot."""
    try:
        inspect.signature(app, follow_wrapped=False).bind("scope", "receive", "send")
    except TypeError:
        return False
    except ValueError:  # it has no signature to look at
        return callable(app)
    return True
