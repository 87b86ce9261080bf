"""The bytes to and from one client, and each client's share of the event loop."""
