"""The application that MODULE:APP names."""

from __future__ import annotations

import importlib
import inspect
import operator
import os
import sys
from typing import Any

from quart import Quart
from quart_trio import QuartTrio

__all__ = ["NoApplication", "load_application"]


class NoApplication(Exception):
    """MODULE:APP names nothing that can be served; the message says what would."""


def load_application(application: str) -> Any:
    """Import MODULE:APP, looked for in the current directory, too, as with `python -m`.

    Raises:
      NoApplication: there is none.
    """
    module, _, name = application.partition(":")
    if not module or not name or module.startswith("."):
        suggestion = f"{module.strip('.') or 'shop'}:app"
        raise NoApplication(f"{application!r} is not MODULE:APP, such as {suggestion}")
    if module.endswith(".py"):
        right = f"{module.removesuffix('.py').replace(os.sep, '.')}:{name}"
        raise NoApplication(f"{module!r} is a file, and MODULE:APP names a module: {right}")
    sys.path.insert(0, "")
    try:
        loaded: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the application's own import failed: that is for its traceback to tell
        raise NoApplication(
            f"no module {error.name!r} for {application!r}: check its spelling, and run in the "
            "directory that holds it"
        ) from error
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


def _takes_three(app: Any) -> bool:
    """Tell whether an object can be called as ASGI calls it: a view, factory or WSGI app cannot."""
    try:
        inspect.signature(app, follow_wrapped=False).bind("scope", "receive", "send")
    except TypeError:
        return False
    except ValueError:  # it has no signature to look at
        return callable(app)
    return True
