"""The demonstration for ASGI servers: `penstock.demo.asgi:app`.

Importing this module builds the application; importing the others does not.
"""

from __future__ import annotations

from typing import Final

from penstock.demo.application import create_app

__all__ = ["app"]

app: Final = create_app()
