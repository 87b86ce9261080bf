"""How long a client waits before it connects again."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, final

from penstock.event import MAX_RETRY

__all__ = ["Reconnection", "retry_after"]

# Seconds. A server's wish (`retry:`, Retry-After) counts up to here, whatever it asks for.
_LONGEST_ASKED: Final = 3600.0

# Seconds that growth starts from at the least: a `retry:` of 0 would never grow.
_LEAST_GROWING: Final = 0.1

# 2 ** 40 times any delay is more than any bound.
_MOST_DOUBLINGS: Final = 40


@final
class Reconnection:
    """The delays of one client.

    The first is the reconnection time; each failure in a row doubles it. What the server asks for
    is the least, and ``max_delay`` bounds what is added to it by growing.

    Args:
      retry: the reconnection time in milliseconds, until the server names one.
      min_delay: the least seconds, whatever the server asks for; not more than ``max_delay``.
      max_delay: seconds to which it may grow.
      jitter: how much of a delay is added to it at the most, at random.
      max_failures: how many failures in a row are too many; None is no limit.

    Raises:
      ValueError: an argument is out of its range.

    Attributes:
      retry: the reconnection time in force.
      failures: how many attempts have failed in a row.
    """

    __slots__ = ("_jitter", "_max_delay", "_max_failures", "_min_delay", "failures", "retry")

    def __init__(
        self,
        *,
        retry: int,
        min_delay: float,
        max_delay: float,
        jitter: float,
        max_failures: int | None,
    ) -> None:
        if type(retry) is not int or not 0 <= retry <= MAX_RETRY:
            raise ValueError(f"retry must be from 0 to {MAX_RETRY} milliseconds: {retry}")
        if not 0 <= min_delay < math.inf:
            raise ValueError(f"min_delay must be a number of seconds from 0 on: {min_delay}")
        if not 0 < max_delay < math.inf:
            raise ValueError(f"max_delay must be a number of seconds above 0: {max_delay}")
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter must be a number from 0 to 1: {jitter}")
        if max_failures is not None and (type(max_failures) is not int or max_failures < 1):
            raise ValueError(f"max_failures must be a whole number above 0: {max_failures}")
        self.retry: int = retry
        self.failures: int = 0
        self._max_delay = max_delay
        self._jitter = jitter
        self._min_delay = min(min_delay, max_delay)
        self._max_failures = math.inf if max_failures is None else max_failures

    @property
    def exhausted(self) -> bool:
        """Whether too many attempts have failed."""
        return self.failures >= self._max_failures

    def note(self, *, delivered: bool, held: float = 0.0) -> None:
        """Take note of an attempt that is over.

        Args:
          delivered: whether an event came.
          held: seconds for which its connection was open. As long as the longest delay is as good
            as an event: a stream may be silent, and a proxy may end it for that.
        """
        self.failures = 0 if delivered or held >= self._max_delay else self.failures + 1

    def delay(self, asked: float = 0.0) -> float:
        """Return how many seconds to wait before the next attempt.

        Args:
          asked: the least that the server asked for.
        """
        base = self.retry / 1000
        seconds = max(base, asked, self._min_delay)
        if self.failures:
            doublings = min(self.failures - 1, _MOST_DOUBLINGS)
            grown = max(base, _LEAST_GROWING) * 2.0**doublings
            seconds = max(seconds, min(grown, self._max_delay))
        seconds = min(seconds, _LONGEST_ASKED)
        return seconds + random.uniform(0, self._jitter * seconds)


def retry_after(header: str) -> float:
    """Return how many seconds Retry-After asks for: it is a number of them, or a date."""
    given = header.strip()
    if given.isascii() and given.isdecimal():
        return float(given)
    try:
        until = parsedate_to_datetime(given)
    except (ValueError, OverflowError):  # no date, or one with a number that none can have
        return 0.0
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
