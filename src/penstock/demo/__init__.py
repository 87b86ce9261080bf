"""The Go program this project started from, as a Quart-Trio application, with its page.

Run it with `penstock serve`, or with the stock `hypercorn -k trio penstock.demo.asgi:app`.
"""

__all__: list[str] = []
