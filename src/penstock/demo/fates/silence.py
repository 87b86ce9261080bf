"""How a client vanishes on one machine: the kernel throws away whatever is sent to its socket.

Then nothing is acknowledged any more, as when a cable is pulled out, and nobody has to be asked for
permission: the filter is of the client's own socket.
"""

from __future__ import annotations

import array
import struct
import sys
from typing import Final

import trio

__all__ = ["fall_silent", "why_not_silent"]

# Of Linux's <asm-generic/socket.h>; the module `socket` does not have it.
_SO_ATTACH_FILTER: Final = 26

# A program of the classic Berkeley packet filter (socket(7)): one instruction, `ret #0`, by which
# no byte of any packet is kept.
_KEEP_NOTHING: Final = struct.pack("HBBI", 0x06, 0, 0, 0)


def why_not_silent() -> str | None:
    """Return why this system has no such thing, in a sentence, or None."""
    if sys.platform == "linux":
        return None
    return f"it takes a socket filter of Linux, and this is {sys.platform}"


def fall_silent(connection: trio.socket.SocketType) -> None:
    """Have a socket receive nothing from now on, acknowledgements included; it can still send.

    Raises:
      OSError: the kernel does not do that.
    """
    program = array.array("B", _KEEP_NOTHING)
    address, _ = program.buffer_info()
    connection.setsockopt(trio.socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, address))
