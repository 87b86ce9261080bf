"""One client's connection: its protocol, and the applications that run for its requests."""
