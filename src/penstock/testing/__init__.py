"""For tests of one's own streams, hubs and logs: no socket, no server, no network.

`open_app` starts an application up for a block, `open_client` makes a request of it and reads its
event stream, `collect` runs a producer alone, `no_leaks` asserts that a block leaves nothing
behind, `check_log` tells whether a log keeps to its contract.

Rule 1: lifetime equals block. What was opened for a test is gone when its block has been left, or
an `AssertionError` names what is left.

Rule 2: nothing hangs. Whatever does not come is given up, and the error tells what there was.

Nothing here needs pytest; with pytest come the fixtures of `penstock.testing.pytest_plugin`. A name
is looked up when it is first used, so that the plugin costs nothing to a run that does not use it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.testing.applications import open_app
    from penstock.testing.client_requests import EventStreamClient, open_client
    from penstock.testing.clients import FakeClient, StalledClient
    from penstock.testing.collecting import collect
    from penstock.testing.leaks import no_leaks
    from penstock.testing.log_contract import check_log

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

_HOMES = {
    "EventStreamClient": "client_requests",
    "FakeClient": "clients",
    "StalledClient": "clients",
    "check_log": "log_contract",
    "collect": "collecting",
    "no_leaks": "leaks",
    "open_app": "applications",
    "open_client": "client_requests",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"penstock.testing.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
