"""Logs: event history, so that reconnecting clients can resume."""

from penstock.logs.memory import MemoryLog
from penstock.logs.sqlite import SQLiteLog

__all__ = ["MemoryLog", "SQLiteLog"]
