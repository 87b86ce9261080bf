"""Decompressing what a server compressed, in pieces of a bounded size."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final, final

__all__ = ["Unpacker", "can_unpack", "codings_of", "is_known"]

# Bytes that come out at a time: a few in may hold megabytes.
_PIECE: Final = 65536

_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32

_PACKED: Final = frozenset({"gzip", "x-gzip", "deflate"})

# What else browsers decompress. What they do not know they pass on as it is; so does curl with
# "none", which some servers say to keep proxies from compressing.
_KNOWN: Final = _PACKED | {"br", "zstd", "dcb", "dcz"}
_PLAIN: Final = frozenset({"identity", "none"})


def codings_of(header: str) -> str:
    """Return the content codings that a ``Content-Encoding`` names, without those of no effect."""
    names = (name.strip().lower() for name in header.split(","))
    return ", ".join(name for name in names if name and name not in _PLAIN)


def is_known(codings: str) -> bool:
    """Tell whether browsers decompress it; they take anything else for the plain body."""
    return all(name in _KNOWN for name in codings.split(", "))


def can_unpack(codings: str) -> bool:
    """Tell whether what `codings_of` returned can be read here, decompressed or as it is."""
    return codings in _PACKED or not is_known(codings)


@final
class Unpacker:
    """Decompress a body whose content coding `can_unpack` takes."""

    def __init__(self, coding: str) -> None:
        self._packed = coding in _PACKED
        self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)

    def unpack(self, data: bytes) -> Iterator[bytes]:
        """Return the next bytes decompressed, piece by piece.

        Raises:
          ValueError: the bytes are not compressed as the coding says.
        """
        if not self._packed:
            yield data
            return
        while data:
            if self._inflate.eof:  # another member follows
                self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
            try:
                piece = self._inflate.decompress(data, _PIECE)
            except zlib.error as error:
                raise ValueError(str(error)) from error
            data = self._inflate.unconsumed_tail or self._inflate.unused_data
            if piece:
                yield piece
