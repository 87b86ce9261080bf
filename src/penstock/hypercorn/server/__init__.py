"""The server: listeners, limits, the drain, signals, and the application's lifespan."""
