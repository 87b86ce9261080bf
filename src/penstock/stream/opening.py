"""The block of a stream: entered once, and known to be left only when all that ran in it is over.

It is a class, since a generator for each stream would weigh.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Generic, TypeVar, final

__all__ = ["Opening"]

T = TypeVar("T")


@final
class Opening(Generic[T]):
    """Runs a feed while its block runs.

    Args:
      opened: what entering gives.
      begin: called on entering; returns the block in which the feed runs.
      left: called when that has been left, or could not be entered.
    """

    __slots__ = ("_begin", "_feeding", "_left", "_opened")

    def __init__(
        self,
        opened: T,
        begin: Callable[[], AbstractAsyncContextManager[None]],
        left: Callable[[], None],
    ) -> None:
        self._opened = opened
        self._begin = begin
        self._left = left
        self._feeding: AbstractAsyncContextManager[None]

    async def __aenter__(self) -> T:
        self._feeding = self._begin()
        try:
            await self._feeding.__aenter__()
        except BaseException:
            self._left()
            raise
        return self._opened

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            # ASYNC102: the block's own exit, which waits for tasks it has cancelled.
            return await self._feeding.__aexit__(  # noqa: ASYNC102 - see above
                exc_type, exc_value, traceback
            )
        finally:
            self._left()
