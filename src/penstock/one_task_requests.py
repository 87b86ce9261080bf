"""Requests in one task each, for Quart-Trio applications that a server or the testing kit runs."""

from __future__ import annotations

import sys
from typing import Any, Final

__all__ = ["use_one_task_within"]

# The most layers of middleware that are searched.
_MAX_DEPTH: Final = 32


def use_one_task_within(app: Any) -> None:
    """Have a Quart-Trio application run each request in one task, if its server allows that.

    The application may be wrapped in middleware that stores it as ``app``, which is the convention.
    An application that is mounted beside others is not found; it has to call
    `penstock.quart.use_one_task` itself.
    """
    quart_trio = sys.modules.get("quart_trio")
    for _ in range(_MAX_DEPTH):
        if quart_trio is None or app is None:
            return
        if isinstance(app, quart_trio.QuartTrio):
            # Imported here, since applications of other frameworks do not need Quart.
            from penstock.quart.asgi import use_one_task

            use_one_task(app)
            return
        app = getattr(app, "app", None)
