"""The parts of a service's HTTP: the app factory, bodies, and problems.

The `app.py` of a service calls `create_app`, and its `api.py` reads bodies with `parse_body` and raises `Problem`. All
errors, before a route or in it, become problem+json responses here.
"""

from service_process.web.app import HEALTH, PROBES, add_metrics, create_app, draining
from service_process.web.bodies import json_body, parse_body
from service_process.web.events import event_routes
from service_process.web.problems import problem_response, repeat_advice
from service_process.web.request_guard import BodyLimits

__all__ = [
    "HEALTH",
    "PROBES",
    "BodyLimits",
    "add_metrics",
    "create_app",
    "draining",
    "event_routes",
    "json_body",
    "parse_body",
    "problem_response",
    "repeat_advice",
]
