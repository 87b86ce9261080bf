"""Event streams as responses of a Quart-Trio application, and a hub with its lifetime."""

from penstock.quart.asgi import require_trio, use_one_task
from penstock.quart.hub import add_hub
from penstock.quart.request import accepts_event_stream, last_event_id
from penstock.quart.response import EventSourceResponse, stop_reconnecting

__all__ = [
    "EventSourceResponse",
    "accepts_event_stream",
    "add_hub",
    "last_event_id",
    "require_trio",
    "stop_reconnecting",
    "use_one_task",
]
