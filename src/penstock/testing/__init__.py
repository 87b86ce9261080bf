"""Tools for testing streams, hubs and logs: no socket, no server, no network.

`open_app` runs an application for a block, `open_client` makes a request to it and reads its event
stream, `collect` runs a producer alone, `no_leaks` asserts that a block leaves nothing behind,
`check_log` checks that a log keeps its contract.

Rule 1: lifetime equals block. What a test opened is closed when its block has been left, or an
`AssertionError` names what is left.

Rule 2: nothing hangs. Every wait has a time limit, and the error says what there was instead.

Nothing here needs pytest; `penstock.testing.pytest_plugin` has fixtures for it. Names are imported
when they are first used, so that the plugin costs nothing unless it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.testing.application import open_app
    from penstock.testing.event_client import EventStreamClient, open_client
    from penstock.testing.fake_client import FakeClient, StalledClient
    from penstock.testing.leaks import no_leaks
    from penstock.testing.log_contract import check_log
    from penstock.testing.producers import collect

__all__ = [
    "EventStreamClient",
    "FakeClient",
    "StalledClient",
    "check_log",
    "collect",
    "no_leaks",
    "open_app",
    "open_client",
]

_MODULES = {
    "EventStreamClient": "event_client",
    "FakeClient": "fake_client",
    "StalledClient": "fake_client",
    "check_log": "log_contract",
    "collect": "producers",
    "no_leaks": "leaks",
    "open_app": "application",
    "open_client": "event_client",
}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(f"penstock.testing.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
