"""The reference has every public name, and no other."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[1] / "web" / "docs" / "reference"
TEXT = "\n".join(path.read_text() for path in sorted(REFERENCE.glob("*.md")))
DIRECTIVE = re.compile(r"(?m)^\.\. auto(class|exception|function|data):: (penstock[\w.]*)\.(\w+)")
MODULES = ("", ".client", ".hypercorn", ".quart", ".logs", ".testing")


@pytest.mark.parametrize("module", [f"penstock{name}" for name in MODULES])
def test_each_public_name_is_in_the_reference(module: str) -> None:
    """What a public module offers is there under that module's name, once."""
    listed = [name for _, where, name in DIRECTIVE.findall(TEXT) if where == module]
    assert sorted(listed) == sorted(importlib.import_module(module).__all__)


def test_each_name_in_the_reference_exists() -> None:
    """What is listed is there, and public in the module that it is listed under."""
    for _, module, name in DIRECTIVE.findall(TEXT):
        assert name in importlib.import_module(module).__all__, f"{module}.{name}"


def test_each_error_is_in_the_tree() -> None:
    """The tree of errors has all of them."""
    errors = importlib.import_module("penstock.errors")
    assert set(re.findall(r"─ (\w+)", errors.__doc__ or "")) == set(errors.__all__) - {
        "PenstockError"
    }
