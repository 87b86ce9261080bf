"""One client's connection, and the tasks of its requests."""
