"""Histories: where publications are kept for those who were away."""

from penstock.logs.memory import MemoryLog
from penstock.logs.sqlite import SQLiteLog

__all__ = ["MemoryLog", "SQLiteLog"]
