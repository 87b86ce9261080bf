"""A short torture, for every run of the tests; `nox -s torture` is the long one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.interop

TORTURE = str(Path(__file__).with_name("torture.py"))


def test_no_fate_of_a_client_is_felt_by_another() -> None:
    """All fates, 200 clients at a time, beside 20 that behave: every promise is kept."""
    options = ["--seconds", "4", "--clients", "200", "--good", "20", "--no-figures"]
    command = [sys.executable, TORTURE, *options]
    env = os.environ | {"TORTURE_SLACK": "10"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=env)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
