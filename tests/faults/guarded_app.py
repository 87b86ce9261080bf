"""The same application, and Penstock's guard installed: for Hypercorn's own command line."""

from __future__ import annotations

from penstock.hypercorn import install

install()

from faults_app import app  # noqa: E402 - as in a program that installs before all else

__all__ = ["app"]
