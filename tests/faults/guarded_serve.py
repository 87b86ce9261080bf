"""A program of one's own: Penstock's guard installed, then Hypercorn's `serve`."""

from __future__ import annotations

import sys
from functools import partial

import hypercorn.trio
import trio
from faults_app import app
from hypercorn.config import Config

from penstock.hypercorn import install

if __name__ == "__main__":
    install()
    trio.run(partial(hypercorn.trio.serve, app, Config.from_toml(sys.argv[1]), mode="asgi"))
