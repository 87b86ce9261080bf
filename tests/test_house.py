"""The house: what may import what, and what the root of the repository holds."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import pytest

import penstock

SANS_IO = {
    *("errors", "event", "decode", "outcome", "printable"),
    *("doctor.examination", "doctor.findings", "doctor.unpacking"),
}
HOSTS = {
    *("quart", "hypercorn", "client", "cli", "demo", "doctor.asking", "doctor.observing"),
}
MODULES = {
    info.name.removeprefix("penstock.")
    for info in pkgutil.walk_packages(penstock.__path__, "penstock.")
} - {"__main__"}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_downward(module: str) -> None:
    """Below the sans-IO line nobody imports trio; below the host line nobody imports a host."""
    code = f"import sys, json, penstock.{module}; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(ran.stdout)}
    if module in SANS_IO:
        assert "trio" not in loaded
    if not {module, module.partition(".")[0]} & HOSTS:
        assert not loaded & {"quart", "quart_trio", "hypercorn", "httpx", "werkzeug", "click"}


def test_the_lines_are_drawn_through_modules_that_exist() -> None:
    """A module that was renamed would silently be on the wrong side."""
    assert SANS_IO | HOSTS <= MODULES


def test_every_public_name_is_where_it_says() -> None:
    """What `penstock` offers can be had from it, and nothing else can."""
    for name in penstock.__all__:
        assert getattr(penstock, name).__name__.rpartition(".")[2] in (name, "Callable")
    with pytest.raises(AttributeError, match="no attribute 'Event'"):
        penstock.Event  # noqa: B018 - looking it up is the test
