"""For tests of one's own: clients that need no socket, and what a history has to keep to.

Nothing here needs pytest, a server or a network.
"""

from penstock.testing.clients import FakeClient, StalledClient
from penstock.testing.histories import check_history

__all__ = ["FakeClient", "StalledClient", "check_history"]
