"""What the block of a test's context manager raises, and what is raised while it is left.

Rule: the block's own error comes first. It is what the test's author looks for, so neither a
complaint of the kit's nor a cancellation while the block is being left takes its place.
"""

from __future__ import annotations

import trio

__all__ = ["is_cancellation", "raise_first"]


def is_cancellation(error: BaseException) -> bool:
    """Tell whether an error is a cancellation of Trio's and nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_cancellation, error.exceptions))
    return isinstance(error, trio.Cancelled)


def raise_first(raised: BaseException | None, complaint: Exception | None) -> None:
    """Raise what the block raised, with the complaint as a note, or else the complaint."""
    if raised is not None:
        if complaint is not None:
            raised.add_note(str(complaint))
        raise raised
    if complaint is not None:
        raise complaint
