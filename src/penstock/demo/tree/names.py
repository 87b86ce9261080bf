"""The names of tasks, as visitors may see them.

A name can hold what a stranger sent: a path of megabytes, characters that reverse the text behind
them, and the stranger's address.

Rule: a name is short and printable for everybody, and shows addresses to this machine only.
"""

from __future__ import annotations

import re
import secrets
from hashlib import blake2s
from typing import Final

__all__ = ["alias_of", "fit", "masked"]

# Characters. Longer than any name of Penstock's own, with an address behind it.
_LONGEST: Final = 200
_LONGEST_ADDRESS: Final = 64

_ADDRESS: Final = re.compile(
    r"(?<![\w.:])\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?(?![\w.])"
    r"|\[[0-9A-Fa-f:.]+(?:%\w+)?\](?::\d{1,5})?"
)

# Aliases of one process mean nothing to another, and cannot be computed by trying all addresses.
_KEY: Final = secrets.token_bytes(16)


def fit(name: str) -> str:
    """Return a name short and printable; the address at the end of a long one stays."""
    if len(name) > _LONGEST:
        tail = name[-_LONGEST_ADDRESS:]
        _, space, address = tail.rpartition(" ")
        end = f" {address}" if space and _ADDRESS.fullmatch(address) else ""
        name = f"{name[: _LONGEST - len(end) - 1]}…{end}"
    if name.isprintable():
        return name
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in name)


def alias_of(address: str) -> str:
    """Return what stands for an address: the same for each time, and telling nothing of it."""
    return f"#{blake2s(address.encode(), key=_KEY, digest_size=4).hexdigest()}"


def masked(name: str) -> str:
    """Return a name with aliases in place of addresses."""
    return _ADDRESS.sub(lambda found: alias_of(found[0]), name)
