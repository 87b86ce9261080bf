"""What can be imported, and used, where a system lacks what Linux has."""

from __future__ import annotations

import subprocess
import sys

# Trio is imported first: it looks at the platform by its name, which is Linux here.
LACKING = """
import _socket, select, socket, sys
import trio
for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT"):
    for module in (socket, _socket, trio.socket):
        if hasattr(module, name):
            delattr(module, name)
del select.epoll
"""


MODULES = (
    *("penstock", "penstock.client", "penstock.cli.listen", "penstock.cli.publish"),
    *("penstock.cli.doctor", "penstock.quart", "penstock.testing", "penstock.hypercorn"),
    *("penstock.cli.serve", "penstock.demo.asgi"),
)


def test_what_a_system_lacks_keeps_nothing_from_being_imported() -> None:
    """On macOS, these socket options and epoll do not exist."""
    code = f"{LACKING}\nimport {', '.join(MODULES)}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_options_that_exist_are_used() -> None:
    """On macOS, TCP_KEEPALIVE is the option for the time that Linux calls TCP_KEEPIDLE."""
    code = f"""{LACKING}
socket.TCP_KEEPALIVE = 16
from penstock.client.response import _keep_alive
assert _keep_alive() == [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, 16, 30)
], _keep_alive()
from penstock.cli.runtime import Output
Output()
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
