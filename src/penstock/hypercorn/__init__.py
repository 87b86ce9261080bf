"""The guarded worker: Hypercorn on Trio that lets go of its clients.

`serve` is a drop-in for `hypercorn.trio.serve`; `install` guards Hypercorn's own command line.
Everything that touches Hypercorn's internals is in this package.
"""

from penstock.hypercorn.install import install
from penstock.hypercorn.server.server import Server, ServerStatistics, serve
from penstock.hypercorn.settings import Settings

__all__ = ["Server", "ServerStatistics", "Settings", "install", "serve"]
