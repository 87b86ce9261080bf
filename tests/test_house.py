"""The house: what may import what, and what the root of the repository holds."""

from __future__ import annotations

import ast
import json
import pkgutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import penstock

# From above to below; what is in one line is side by side, and does not import each other.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("demo", "doctor", "testing"),
    ("client",),
    ("hypercorn",),
    ("hypercorn.install",),
    ("hypercorn.server",),
    ("hypercorn.connection",),
    ("hypercorn.protocol",),
    ("hypercorn.wire",),
    ("hypercorn.settings",),
    ("one_task_requests",),
    ("quart",),
    ("hub",),
    ("logs",),
    ("stream",),
)
# Below the sans-IO line.
LAYERS_WITHOUT_IO = (
    ("publication",),
    ("selection", "position_ids"),
    ("decode",),
    ("event",),
    ("close_reason", "errors", "printable", "process_signals"),
)
SANS_IO = {module for line in LAYERS_WITHOUT_IO for module in line} | {
    *("doctor.body", "doctor.finding", "doctor.observation"),
    *("doctor.double_encoding", "doctor.report"),
}
HOSTS = {
    *("quart", "hypercorn", "client", "cli", "demo", "doctor.probe"),
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


def import_graph() -> dict[str, set[str]]:
    """Return what each module's text imports of Penstock, for type checking only or not."""
    source = Path(penstock.__path__[0])
    files = {}
    for file in source.rglob("*.py"):
        parts = file.relative_to(source.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    graph: dict[str, set[str]] = {}
    for module, file in files.items():
        found = graph[module] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, "imports are absolute"
                assert node.module is not None
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    found.add(inner if inner in files else node.module)
        found &= files.keys() - {module}
    # What `penstock` itself offers is looked up when it is used; nothing inside asks it.
    del graph["penstock"]
    return graph


def layer_of(module: str) -> int:
    """Return the line of LAYERS that a module is in, by the longest name that begins it."""
    parts = module.split(".")[1:]
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        for number, line in enumerate(LAYERS + LAYERS_WITHOUT_IO):
            if name in line:
                return number
    raise AssertionError(f"{module} is in no layer")


def test_no_imports_are_circular() -> None:
    """Neither are those for type checking: an order of all modules exists."""
    list(TopologicalSorter(import_graph()).static_order())  # or CycleError


def test_imports_point_downward() -> None:
    """No module imports one of a layer above, or of another package in its own layer."""
    wrong = []
    for module, others in import_graph().items():
        for other in others:
            above = layer_of(module) - layer_of(other)
            beside = above == 0 and module.split(".")[1] != other.split(".")[1]
            if above > 0 or beside:
                wrong.append(f"{module} imports {other}")
    assert wrong == []


def test_nothing_inside_imports_the_whole() -> None:
    """`from penstock import …` is for users: inside, it would be a circle that is hard to see."""
    assert [module for module, others in import_graph().items() if "penstock" in others] == []


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
