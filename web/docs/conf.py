"""Sphinx configuration: `nox -s docs` builds the documentation from the pages beside this file."""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "Penstock"
author = "the authors of Penstock"
version = release = version_of("penstock")
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstrings"]
exclude_patterns = ["proxies/*"]  # configurations, not pages
myst_heading_anchors = 3

# A name in single backticks is a Python name; an unresolved one is a warning.
default_role = "py:obj"
nitpicky = True
nitpick_ignore = [
    # The stream's view of a subscription, which users do not create.
    ("py:class", "penstock.stream.source.Source"),
    ("py:class", "penstock.stream.source.Tally"),
    # A type variable.
    ("py:class", "penstock.testing.application.App"),
]

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "Penstock"
html_static_path = ["_static"]
html_css_files = ["penstock.css"]
html_favicon = "../demo/icon.svg"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
html_theme_options = {"top_of_page_buttons": []}
