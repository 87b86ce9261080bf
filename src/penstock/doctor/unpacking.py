"""Decompressing what a server compressed, in pieces of a bounded size."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final, final

__all__ = ["Unpacker", "can_unpack"]

# Bytes that come out at a time: a few in may hold megabytes.
_PIECE: Final = 65536

_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32

_PLAIN: Final = frozenset({"", "identity"})
_PACKED: Final = frozenset({"gzip", "x-gzip", "deflate"})


def can_unpack(coding: str) -> bool:
    """Tell whether a content encoding can be undone here."""
    return coding in _PLAIN or coding in _PACKED


@final
class Unpacker:
    """Undo a content encoding that `can_unpack` knows."""

    def __init__(self, coding: str) -> None:
        self._packed = coding in _PACKED
        self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)

    def unpack(self, data: bytes) -> Iterator[bytes]:
        """Return what is in the next bytes, piece by piece.

        Raises:
          ValueError: they are not what they were said to be.
        """
        if not self._packed:
            yield data
            return
        while data:
            if self._inflate.eof:  # another one follows
                self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
            try:
                piece = self._inflate.decompress(data, _PIECE)
            except zlib.error as error:
                raise ValueError(str(error)) from error
            data = self._inflate.unconsumed_tail or self._inflate.unused_data
            if piece:
                yield piece
