"""What a machine may lack: skipped by name, or an error where everything is required."""

from __future__ import annotations

import os
import shutil

import pytest


def require(program: str, *, install: str) -> str:
    """Return a program's path; without it, skip by name, or fail where everything is required."""
    path = shutil.which(program)
    if path is None:
        said = f"{program} is not installed: {install}"
        if os.environ.get("PENSTOCK_TEST_REQUIRE") == "all":
            pytest.fail(said)
        pytest.skip(said)
    return path
