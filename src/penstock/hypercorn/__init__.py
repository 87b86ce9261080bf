"""The guarded worker: Hypercorn on Trio, with connections that release a client that leaves.

`serve` is a drop-in for `hypercorn.trio.serve`; `install` guards Hypercorn's own command line. Only
this package touches Hypercorn's internals. Its rooms, from top to bottom:

- ``server``: listeners, limits, the drain, signals, the application's lifespan
- ``connection``: one client's connection, and the tasks of its requests
- ``protocol``: HTTP/1.1, HTTP/2 and WebSockets
- ``wire``: bytes to and from one client, and each client's share of the event loop
"""

from penstock.hypercorn.install import install
from penstock.hypercorn.server.server import Server, ServerStatistics, serve
from penstock.hypercorn.settings import Settings

__all__ = ["Server", "ServerStatistics", "Settings", "install", "serve"]
