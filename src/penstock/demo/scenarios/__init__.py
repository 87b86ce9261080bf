"""The destructive actions of the demonstration over HTTP: scenarios, a crowd, and a restart.

`penstock.demo.access_control` decides who may do that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, final

import trio
from quart import request
from quart.typing import ResponseReturnValue
from quart_trio import QuartTrio

from penstock.demo.access_control import ACTIONS, is_from_own_page, refusal_of_actions
from penstock.demo.hub_routes import HISTORY
from penstock.demo.restart import Restart
from penstock.demo.scenarios.catalog import SCENARIOS, promise_of
from penstock.demo.scenarios.client import KEY, ServerAddress, why_not_vanish
from penstock.demo.scenarios.crowd import CROWD_SIZE, Crowd, CrowdRefused
from penstock.demo.scenarios.runs import MAX_RUNS, ScenarioRuns, TooManyRuns
from penstock.hypercorn import Settings
from penstock.hypercorn.settings import SETTINGS
from penstock.quart import EventSourceResponse

__all__ = ["Actions", "add_scenario_routes"]

_NO_PORT: Final = "the clients use TCP, and this request came over another kind of socket"
_NO_COMMAND: Final = "only `penstock serve` can restart the demonstration, and it runs otherwise"


@final
class Actions(NamedTuple):
    """What the routes of an application have started."""

    runs: ScenarioRuns
    crowd: Crowd

    def facts(self) -> dict[str, Any]:
        """Return their state, as a JSON object."""
        return {"scenarios": self.runs.rows(), "crowd": self.crowd.state()}


def add_scenario_routes(app: QuartTrio, restart: Restart | None = None) -> Actions:
    """Give an application ``/scenarios``, ``/crowd`` and ``/drain``; return what they start.

    Args:
      app: the application.
      restart: requested by ``/drain``; None: the server would not start again.
    """
    switch = os.environ.get(ACTIONS, "").strip()

    def nursery() -> trio.Nursery:
        running: trio.Nursery = app.nursery  # of the lifespan that is being served
        return running

    runs, crowd = actions = Actions(ScenarioRuns(nursery), Crowd(nursery))

    def refusal() -> ResponseReturnValue | None:
        if (refused := refusal_of_actions(switch)) is not None:
            return {"error": refused.sentence}, 403
        if not is_from_own_page():
            why = "destructive actions are accepted from the demonstration's own page only (Origin)"
            return {"error": why}, 403
        return None

    @app.get("/scenarios")
    async def offered() -> ResponseReturnValue:
        refused = refusal_of_actions(switch)
        short = None if refused is None else refused.short
        settings = _settings()
        return {
            "allowed": refused is None,
            "why": None if refused is None else refused.sentence,
            "limit": MAX_RUNS,
            "scenarios": [
                {
                    "name": scenario.name,
                    "title": scenario.title,
                    "why_not": short or _why_not(scenario.name),
                    "promise": promise_of(scenario, settings).as_json(),
                }
                for scenario in SCENARIOS.values()
            ],
            "rows": runs.rows(),
            "crowd": crowd.state(),
            "drain": {"why_not": short or _why_not_drain(restart), "text": _about_drain(settings)},
        }

    @app.post("/scenarios/<name>")
    async def start(name: str) -> ResponseReturnValue:
        if (refused := refusal()) is not None:
            return refused
        if name not in SCENARIOS:
            return {"error": f"no scenario has this name: try {', '.join(SCENARIOS)}"}, 404
        address = ServerAddress.from_scope(request.scope)
        if (why := _why_not(name)) is not None or address is None:
            return {"error": why}, 409
        try:
            return runs.start(name, address, _settings()), 201
        except TooManyRuns as error:
            return {"error": str(error)}, 429

    @app.get("/scenarios/<int:number>")
    async def stream(number: int) -> ResponseReturnValue:
        key = request.headers.get(KEY, "")
        run = None if request.method == "HEAD" else runs.claim(number, key)
        if run is None:
            return {"error": "no client with this number and key is expected"}, 404
        response = EventSourceResponse(run.producer)
        run.stream = response.stream
        return response

    @app.post("/crowd")
    async def switch_crowd() -> ResponseReturnValue:
        if (refused := refusal()) is not None:
            return refused
        try:
            count = _count_in(json.loads(await request.get_data()))
        except (ValueError, RecursionError) as error:
            return {"error": f'send {{"on": true}} or {{"on": false}}: {error}'}, 400
        address = ServerAddress.from_scope(request.scope)
        if address is None:
            return {"error": _NO_PORT}, 409
        if not count:
            crowd.stop()
        else:
            try:
                crowd.start(count, address, _settings())
            except CrowdRefused as error:
                return {"error": str(error)}, 429
        return crowd.state()

    @app.post("/drain")
    async def drain() -> ResponseReturnValue:
        if (refused := refusal()) is not None:
            return refused
        why = _why_not_drain(restart)
        if restart is None or why is not None:
            return {"error": why}, 409
        restart.request()
        return {"text": _about_drain(_settings())}, 202

    @app.after_serving
    async def stop() -> None:
        runs.stop()
        crowd.stop()

    return actions


def _settings() -> Settings | None:
    """Return the server's settings, or None if it is another server than Penstock's."""
    extensions: Mapping[str, Any] = request.scope.get("extensions") or {}
    return extensions.get(SETTINGS)


def _why_not(name: str) -> str | None:
    if ServerAddress.from_scope(request.scope) is None:
        return _NO_PORT
    return why_not_vanish() if name == "vanishes" else None


def _why_not_drain(restart: Restart | None) -> str | None:
    return _NO_COMMAND if restart is None else restart.why_not


def _about_drain(settings: Settings | None) -> str:
    window = "" if settings is None else f" within {settings.drain_window:g} s"
    lost = (
        "" if os.environ.get(HISTORY) else f"; the hub's history is lost, as {HISTORY} is not set"
    )
    return f"all streams end{window}, and the same command starts again{lost}"


def _count_in(body: Any) -> int:
    """Return how many clients a request asks for.

    Raises:
      ValueError: the request is malformed.
    """
    if not isinstance(body, dict) or type(body.get("on")) is not bool:
        raise ValueError("this is something else")
    count = body.get("count", CROWD_SIZE)
    if type(count) is not int or not 1 <= count <= CROWD_SIZE:
        raise ValueError(f"count must be a whole number from 1 to {CROWD_SIZE}")
    return count if body["on"] else 0
