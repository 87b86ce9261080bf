"""Hurt a client: what can happen to one, with what the server promises beside what it did."""
