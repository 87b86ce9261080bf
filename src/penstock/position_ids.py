"""Ids for positions in a log, for clients that have not received an event yet.

A client that has subscribed, and has received no event, must be able to resume at that position.
The id of an event on another topic would disclose what others publish, and a plain number how much.
So a position is encrypted: its id is opaque, valid for one log only, and cannot be guessed.

Rule: `PositionIds.decode` returns a position only for an id that `PositionIds.encode` made with the
same key; every other text is an event's id.

Theory of operation: the block has 128 bits; its upper half is zero, and its lower half is the
position. It goes through a Feistel network of four rounds, whose round function is keyed `BLAKE2b`
(Luby and Rackoff: a strong pseudorandom permutation). An id that was made up, or made with another
key, has a zero upper half with a probability of 2⁻⁶⁴.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final, final

__all__ = ["KEY_SIZE", "POSITION_ID_PREFIX", "PositionIds"]

POSITION_ID_PREFIX: Final = "urn:penstock:position:"

KEY_SIZE: Final = 16  # bytes

_ROUNDS: Final = (b"\0", b"\1", b"\2", b"\3")
_HALF: Final = 8  # bytes
_ID: Final = re.compile(re.escape(POSITION_ID_PREFIX) + "([0-9a-f]{32})", re.ASCII)


@final
class PositionIds:
    """The position ids of one log.

    Args:
      key: 16 random bytes, stored with the log and kept secret.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encode(self, position: int) -> str:
        """Return the id of a position; it is always the same."""
        left, right = 0, position
        for number in _ROUNDS:
            left, right = right, left ^ self._round(number, right)
        return f"{POSITION_ID_PREFIX}{left:016x}{right:016x}"

    def decode(self, id_: str) -> int | None:
        """Return the position of an id, or None if it is no position id.

        Args:
          id_: any text.
        """
        found = _ID.fullmatch(id_)
        if found is None:
            return None
        left, right = int(found[1][:16], 16), int(found[1][16:], 16)
        for number in reversed(_ROUNDS):
            left, right = right ^ self._round(number, left), left
        return right if left == 0 else None

    def _round(self, number: bytes, half: int) -> int:
        digest = blake2b(half.to_bytes(_HALF, "big"), digest_size=_HALF, key=self._key, salt=number)
        return int.from_bytes(digest.digest(), "big")
