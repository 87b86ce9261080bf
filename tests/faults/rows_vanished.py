"""Rows 8: a client that vanishes without a packet: its end of a cable is pulled out.

The client is in a network namespace of its own, and the cable is a pair of virtual interfaces.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Final

from faults_servers import Settings, Way
from faults_table import PLAIN, Outcome, Row, Site, Skipped

LIMIT: Final = PLAIN.tcp_user_timeout + 1 + 0.5
STOCK_BOUND: Final = 12.0

# Of TEST-NET-2 (RFC 5737), a /30 for each cable: no real network has these addresses.
NETWORK: Final = "198.51.100"

_cables = itertools.count()

# Reads a stream until it is killed.
CLIENT: Final = """
import socket, sys
host, port, path = sys.argv[1:]
client = socket.create_connection((host, int(port)))
client.sendall(f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode())
while client.recv(65536):
    pass
"""


def ip(*arguments: str) -> None:
    """Run iproute2's `ip`.

    Raises:
      Skipped: it is not there, or not permitted.
    """
    try:
        ran = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Skipped("no `ip`: apt-get install iproute2") from None
    if ran.returncode != 0:
        raise Skipped(f"ip {' '.join(arguments[:2])}: {ran.stderr.strip()}")


def _names(host: str) -> tuple[str, str, str]:
    """Return the names of a cable's namespace and of its two ends."""
    end = f"{os.getpid()}n{host.rpartition('.')[2]}"
    return f"faults{end}", f"h{end}", f"c{end}"


@contextmanager
def cable(settings: Settings) -> Iterator[Settings]:
    """Lay a cable to a namespace, and have the server listen at its near end."""
    first = 4 * next(_cables)
    near, far = f"{NETWORK}.{first + 1}", f"{NETWORK}.{first + 2}"
    namespace, host_end, client_end = _names(near)
    with ExitStack() as stack:
        ip("netns", "add", namespace)
        stack.callback(ip, "netns", "delete", namespace)
        ip("link", "add", host_end, "type", "veth", "peer", "name", client_end)
        # It takes the other end with it, in whatever namespace that is.
        stack.callback(ip, "link", "delete", host_end)
        ip("link", "set", client_end, "netns", namespace)
        ip("address", "add", f"{near}/30", "dev", host_end)
        ip("link", "set", host_end, "up")
        ip("-n", namespace, "address", "add", f"{far}/30", "dev", client_end)
        ip("-n", namespace, "link", "set", client_end, "up")
        yield replace(settings, host=near)


def vanishes(path: str, query: str, site: Site) -> Outcome:
    """Pull the cable while the client listens."""
    key = site.key()
    host, port = site.running.address
    namespace, _, client_end = _names(host)
    target = f"/{path}/{key}{query}"
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", CLIENT]
    with subprocess.Popen([*command, host, str(port), target]) as client:
        try:
            site.noted(key, "started")
            time.sleep(0.3)
            start = time.monotonic()
            ip("-n", namespace, "link", "set", client_end, "down")
            released = site.released(key, start, STOCK_BOUND)
        finally:
            client.kill()
    return site.within(released, LIMIT, STOCK_BOUND)


_user, _probe = PLAIN.tcp_user_timeout, PLAIN.tcp_keep_alive
_CASES: Final = (
    (
        "comments every second",
        "idle",
        "?keep_alive=1",
        f"tcp_user_timeout {_user:g} + keep_alive 1",
    ),
    ("nothing sent", "idle", "", f"tcp_user_timeout {_user:g} + tcp_keep_alive {_probe:g}"),
    ("data under way", "sse", "", f"tcp_user_timeout {_user:g} + keep_alive 1"),
)

ROWS: Final = [
    Row(
        "8",
        f"vanishes, {what}",
        "HTTP/1.1",
        partial(vanishes, path, query),
        f"{LIMIT:g} s: {said} + 0.5",
        settings=PLAIN,
        ways=(Way.INSTALL_SERVE, Way.INSTALL_CLI),
        alone=True,
        around=cable,
        long=True,
    )
    for what, path, query, said in _CASES
]
