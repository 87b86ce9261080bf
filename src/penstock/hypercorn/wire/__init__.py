"""The bytes of one client: reading, writing, and fair turns at the event loop."""
