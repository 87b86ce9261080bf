"""What the demonstration answers beside streams and files: JSON."""

from __future__ import annotations

import json
from typing import Any

from quart import Response

__all__ = ["answer"]


def answer(status: int, **values: Any) -> Response:
    """Return an object of JSON as a response, on a line of its own."""
    body: Any = json.dumps(values, ensure_ascii=False) + "\n"
    return Response(body, status, content_type="application/json")
