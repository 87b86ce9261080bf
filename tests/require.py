"""What a machine may lack: skipped by name, or an error where everything is required."""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import NoReturn

import pytest


def require(program: str, *, install: str) -> str:
    """Return a program's path; without it, skip by name, or fail where everything is required."""
    path = shutil.which(program)
    if path is None:
        _lacks(f"{program} is not installed: {install}")
    return path


def require_module(name: str) -> None:
    """See that a library of its own name is installed; else skip or fail likewise."""
    if importlib.util.find_spec(name) is None:
        package = name.replace("_", "-")
        _lacks(f"{package} is not installed: python -m pip install {package}")


def _lacks(said: str) -> NoReturn:
    if os.environ.get("PENSTOCK_TEST_REQUIRE") == "all":
        pytest.fail(said)
    pytest.skip(said)
