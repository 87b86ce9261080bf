"""Histories: where publications are kept for those who were away."""

from penstock.stores.memory import MemoryHistory
from penstock.stores.sqlite import SQLiteHistory

__all__ = ["MemoryHistory", "SQLiteHistory"]
