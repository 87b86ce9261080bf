"""A pytest plugin: Hypercorn's classes give their places to Penstock's, before any test is read.

Rule: a class that is not there is told, not passed over; `upstream.py` counts that as a failure.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

import pytest

# Where the plugin leaves its report, if anyone asks for one.
REPORT: Final = "PENSTOCK_IN_PLACE_REPORT"

# Hypercorn's class: Penstock's.
REPLACED: Final = {
    "hypercorn.trio.tcp_server:TCPServer": "penstock.hypercorn.connection.connection:Connection",
    "hypercorn.protocol.h2:H2Protocol": "penstock.hypercorn.protocol.http2:HTTP2",
    "hypercorn.protocol.h11:H11Protocol": "penstock.hypercorn.protocol.http1:HTTP1",
}
# Puts Penstock's worker where Hypercorn's was.
INSTALL: Final = "penstock.hypercorn:install"


class InPlace:
    """What was put in place, what was not, and which tests' modules have it."""

    def __init__(self) -> None:
        self.ours: dict[type, str] = {}
        self.missing: list[str] = []
        self.used: dict[str, list[str]] = {}

    def replace_all(self) -> None:
        """Put each class where Hypercorn's was, under every name it has in Hypercorn."""
        found = {upstream: self._find(path) for upstream, path in REPLACED.items()}
        for upstream, ours in found.items():
            if ours is None:
                continue
            theirs = _load(upstream)
            for name, module in list(sys.modules.items()):
                if f"{name}.".startswith("hypercorn."):
                    for attribute in [key for key, at in vars(module).items() if at is theirs]:
                        setattr(module, attribute, ours)
            self.ours[ours] = REPLACED[upstream]
            self.used[REPLACED[upstream]] = []
        install = self._find(INSTALL)
        if install is not None:
            install()

    def look_at(self, module: Any) -> None:
        """Note which of the classes a module of tests has imported."""
        for value in vars(module).values():
            if isinstance(value, type) and value in self.ours:
                modules = self.used[self.ours[value]]
                if module.__name__ not in modules:
                    modules.append(module.__name__)

    def _find(self, path: str) -> Any:
        try:
            return _load(path)
        except (ImportError, AttributeError) as error:
            self.missing.append(f"{path} ({error})")
            return None


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


# Hypercorn's modules are all read first: those that import the classes by name get ours, too.
for _module in ("hypercorn.protocol", "hypercorn.trio", "hypercorn.trio.run"):
    importlib.import_module(_module)
IN_PLACE: Final = InPlace()
IN_PLACE.replace_all()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Look into the modules of the tests, and report."""
    for item in items:
        if isinstance(item, pytest.Function):
            IN_PLACE.look_at(item.module)
    if path := os.environ.get(REPORT):
        said = {"missing": IN_PLACE.missing, "used": IN_PLACE.used}
        Path(path).write_text(json.dumps(said))
