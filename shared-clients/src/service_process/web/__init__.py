"""What a service's HTTP is made of: the app factory, bodies, and problems.

A service's `app.py` calls `create_app`, its `api.py` reads bodies with `parse_body` and raises `Problem`; everything
that can go wrong before or behind a route comes back as problem+json from here.
"""

from service_process.web.app import PROBES, create_app, draining
from service_process.web.bodies import json_body, parse_body
from service_process.web.edge import BodyLimits
from service_process.web.events import event_routes
from service_process.web.problems import problem_response

__all__ = [
    "PROBES",
    "BodyLimits",
    "create_app",
    "draining",
    "event_routes",
    "json_body",
    "parse_body",
    "problem_response",
]
