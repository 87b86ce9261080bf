"""What the server does for the applications of a framework that it knows."""

from __future__ import annotations

import sys
from typing import Any, Final

__all__ = ["use_one_task_within"]

# Middleware that is looked through, one in another.
_MAX_DEPTH: Final = 32


def use_one_task_within(app: Any) -> None:
    """Have a Quart-Trio application run each request in one task, as this server makes possible.

    Middleware round it is looked through where it keeps its application in ``app``, as it does by
    convention. An application that is mounted beside others is not found: it calls
    `penstock.quart.use_one_task` itself.
    """
    quart_trio = sys.modules.get("quart_trio")
    for _ in range(_MAX_DEPTH):
        if quart_trio is None or app is None:
            return
        if isinstance(app, quart_trio.QuartTrio):
            # Only here: an application of another framework needs no Quart.
            from penstock.quart.asgi import use_one_task

            use_one_task(app)
            return
        app = getattr(app, "app", None)
