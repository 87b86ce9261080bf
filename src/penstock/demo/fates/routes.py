"""The destructive routes: a client with a fate, a crowd, and a drain.

They answer to the demonstration's own page only, on this machine, unless the environment variable
`penstock.demo.access.HURT` opens them to everybody, or closes them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, final

import trio
from quart import Response, request
from quart_trio import QuartTrio

from penstock.demo.access import HURT, is_of_the_page, why_not_hurt
from penstock.demo.answers import answer
from penstock.demo.fates.client import KEY, Where
from penstock.demo.fates.crowds import CROWD, Crowds, NoRoom
from penstock.demo.fates.fates import LIMIT, Fates, TooMany
from penstock.demo.fates.silence import why_not_silent
from penstock.demo.fates.table import FATES, promise_of
from penstock.demo.hub_routes import HISTORY
from penstock.demo.restart import Restart
from penstock.hypercorn import Settings
from penstock.hypercorn.settings import SETTINGS
from penstock.quart import EventSourceResponse

__all__ = ["Hurting", "add_fate_routes"]

_NO_PORT: Final = "clients come over TCP, and this server was asked on another kind of socket"
_NO_RESTART: Final = "only `penstock serve` starts the demonstration again, and this is not it"


@final
class Hurting(NamedTuple):
    """What an application's routes have started."""

    fates: Fates
    crowds: Crowds

    def facts(self) -> dict[str, Any]:
        """Return what is known of it now, by name, as JSON knows it."""
        return {"fates": self.fates.rows(), "crowd": self.crowds.state()}


def add_fate_routes(app: QuartTrio, restart: Restart | None = None) -> Hurting:
    """Give an application ``/fates``, ``/crowd`` and ``/drain``; return what they start.

    Args:
      app: the application.
      restart: what ``/drain`` requests; None: nobody would restart this server.
    """
    switch = os.environ.get(HURT, "").strip()

    def nursery() -> trio.Nursery:
        running: trio.Nursery = app.nursery  # of the lifespan that is being served
        return running

    fates, crowds = hurting = Hurting(Fates(nursery), Crowds(nursery))

    def refusal() -> Response | None:
        if (refused := why_not_hurt(switch)) is not None:
            return answer(403, error=refused.sentence)
        if not is_of_the_page():
            why = "what hurts answers to the demonstration's own page only (Origin)"
            return answer(403, error=why)
        return None

    @app.get("/fates")
    async def offered() -> Response:
        refused = why_not_hurt(switch)
        short = None if refused is None else refused.short
        settings = _settings()
        return answer(
            200,
            allowed=refused is None,
            why=None if refused is None else refused.sentence,
            limit=LIMIT,
            fates=[
                {
                    "name": fate.name,
                    "title": fate.title,
                    "why_not": short or _why_not(fate.name),
                    "promise": promise_of(fate, settings).as_json(),
                }
                for fate in FATES.values()
            ],
            rows=fates.rows(),
            crowd=crowds.state(),
            drain={"why_not": short or _why_no_drain(restart), "text": _about_drain(settings)},
        )

    @app.post("/fates/<name>")
    async def start(name: str) -> Response:
        if (refused := refusal()) is not None:
            return refused
        if name not in FATES:
            return answer(404, error=f"there is no such fate; there are {', '.join(FATES)}")
        where = Where.of(request.scope)
        if (why := _why_not(name)) is not None or where is None:
            return answer(409, error=why)
        try:
            return answer(201, **fates.start(name, where, _settings()))
        except TooMany as error:
            return answer(429, error=str(error))

    @app.get("/fates/<int:number>")
    async def stream(number: int) -> Response:
        key = request.headers.get(KEY, "")
        run = None if request.method == "HEAD" else fates.claim(number, key)
        if run is None:
            return answer(404, error="no client with this number is to come")
        response = EventSourceResponse(run.producer)
        run.stream = response.stream
        return response

    @app.post("/crowd")
    async def crowd() -> Response:
        if (refused := refusal()) is not None:
            return refused
        try:
            count = _count(json.loads(await request.get_data()))
        except (ValueError, RecursionError) as error:
            return answer(400, error=f'say {{"on": true}} or {{"on": false}}: {error}')
        where = Where.of(request.scope)
        if where is None:
            return answer(409, error=_NO_PORT)
        if not count:
            crowds.stop()
        else:
            try:
                crowds.start(count, where, _settings())
            except NoRoom as error:
                return answer(429, error=str(error))
        return answer(200, **crowds.state())

    @app.post("/drain")
    async def drain() -> Response:
        if (refused := refusal()) is not None:
            return refused
        why = _why_no_drain(restart)
        if restart is None or why is not None:
            return answer(409, error=why)
        restart.request()
        return answer(202, text=_about_drain(_settings()))

    @app.after_serving
    async def stop() -> None:
        fates.stop()
        crowds.stop()

    return hurting


def _settings() -> Settings | None:
    extensions: Mapping[str, Any] = request.scope.get("extensions") or {}
    return extensions.get(SETTINGS)


def _why_not(name: str) -> str | None:
    if Where.of(request.scope) is None:
        return _NO_PORT
    return why_not_silent() if name == "vanishes" else None


def _why_no_drain(restart: Restart | None) -> str | None:
    return _NO_RESTART if restart is None else restart.why_not


def _about_drain(settings: Settings | None) -> str:
    window = "" if settings is None else f" over {settings.drain_window:g} s at most"
    lost = "" if os.environ.get(HISTORY) else f"; what the hub has kept is lost, without {HISTORY}"
    return f"all streams end{window}, and the same command starts again{lost}"


def _count(said: Any) -> int:
    """Return how many clients are to be there.

    Raises:
      ValueError: that is not what was said.
    """
    if not isinstance(said, dict) or type(said.get("on")) is not bool:
        raise ValueError("that is something else")
    count = said.get("count", CROWD)
    if type(count) is not int or not 1 <= count <= CROWD:
        raise ValueError(f"count is a whole number from 1 to {CROWD}")
    return count if said["on"] else 0
