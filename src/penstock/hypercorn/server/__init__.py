"""The server: listeners, limits, drain, workers."""
