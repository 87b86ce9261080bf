"""The house: what may import what, and what the root of the repository holds."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import pytest

import penstock

SANS_IO = {
    *("errors", "event", "decode", "close_reason", "position_ids", "printable", "publication"),
    "selection",
    *("doctor.examination", "doctor.findings", "doctor.unpacking"),
    *("doctor.origins", "doctor.payloads"),
}
HOSTS = {
    *("quart", "hypercorn", "client", "cli", "demo", "doctor.asking", "doctor.observing"),
}
MODULES = {
    info.name.removeprefix("penstock.")
    for info in pkgutil.walk_packages(penstock.__path__, "penstock.")
} - {"__main__"}


# Imports modules one after the other, and prints for each what else came with it.
IMPORT = """
import importlib, json, sys
for module in sys.argv[1:]:
    before = set(sys.modules)
    importlib.import_module(f"penstock.{module}")
    loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
    print(json.dumps([module, sorted(loaded)]))
"""

# The third-party packages are imported once; each child then imports one module and nothing else.
IMPORT_ALONE = """
import gc, importlib, os, sys
import click, h2.connection, httpx2, hypercorn.trio, quart_trio, uuid_utils
assert not [name for name in sys.modules if name.startswith("penstock")]
gc.disable()
failed = []
for module in sys.argv[1:]:
    if not (child := os.fork()):
        importlib.import_module(f"penstock.{module}")
        sys.stdout.flush()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(module)
sys.exit(" ".join(failed) or None)
"""


def imported(modules: set[str]) -> dict[str, set[str]]:
    """Import modules in a fresh interpreter; return the packages each was the first to load."""
    command = [sys.executable, "-c", IMPORT, *sorted(modules)]
    ran = subprocess.run(command, capture_output=True, check=True)
    return {module: set(loaded) for module, loaded in map(json.loads, ran.stdout.splitlines())}


def test_sans_io_modules_do_not_import_trio() -> None:
    """Nothing below the sans-IO line loads Trio."""
    assert [module for module, loaded in imported(SANS_IO).items() if "trio" in loaded] == []


def test_only_host_modules_import_a_host() -> None:
    """Nothing below the host line loads a web framework, a server or an HTTP client."""
    below = {module for module in MODULES if not {module, module.partition(".")[0]} & HOSTS}
    hosts = {"quart", "quart_trio", "hypercorn", "httpx2", "werkzeug", "click"}
    found = {module: hosts & loaded for module, loaded in imported(below).items()}
    assert {module: packages for module, packages in found.items() if packages} == {}


def test_every_module_can_be_imported_first() -> None:
    """No module depends on another having been imported before it, as circular imports do."""
    command = [sys.executable, "-c", IMPORT_ALONE, *sorted(MODULES)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_lines_are_drawn_through_modules_that_exist() -> None:
    """A module that was renamed would silently be on the wrong side."""
    assert SANS_IO | HOSTS <= MODULES


def test_every_public_name_is_where_it_says() -> None:
    """What `penstock` offers can be had from it, and nothing else can."""
    for name in penstock.__all__:
        found = getattr(penstock, name)
        if name != "EVERY_TOPIC":  # the one that is neither a class nor a function
            assert found.__name__.rpartition(".")[2] in (name, "Callable")
    with pytest.raises(AttributeError, match="no attribute 'Event'"):
        penstock.Event  # noqa: B018 - looking it up is the test
