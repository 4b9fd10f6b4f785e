"""The OpenAPI document of the whole fleet: all routes that the gateway offers, with those of the services behind it."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

import agent_service.api
import api_gateway.api
import api_gateway.dead_letters
import request_manager.api
from agent_service.domain.sessions import NewSession, SessionChange
from api_gateway.api import Link
from shared_models.dead_letters import Discard, LetterFilter
from shared_models.problems import ProblemBody
from shared_models.requests import NewRequest

REF: Final = "#/components/schemas/{model}"
BODIES: Final = (NewRequest, NewSession, SessionChange, Link, LetterFilter, Discard, ProblemBody)
"""Models that FastAPI does not know: routes read them by hand, or every route may answer with them."""
OPEN: Final = frozenset({"/auth/link"})
"""Paths that need no identity."""


def openapi() -> Mapping[str, object]:
    """Return the document: OpenAPI 3.1."""
    app = FastAPI(title="Flotilla", version="0.1.0", summary="Run AI agents as a fleet of services.")
    for module in (api_gateway.api, api_gateway.dead_letters, request_manager.api, agent_service.api):
        app.include_router(module.router)
    for router in (agent_service.api.agents, agent_service.api.operations):
        app.include_router(router)
    document: dict[str, Any] = app.openapi()
    components = document.setdefault("components", {})
    _, definitions = models_json_schema([(model, "validation") for model in BODIES], ref_template=REF)
    components.setdefault("schemas", {}).update(definitions["$defs"])
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "An API key."},
        "cookie": {
            "type": "apiKey",
            "in": "cookie",
            "name": "flotilla-8080",
            "description": "The cookie of a signed-in browser; its name contains the gateway's port.",
        },
    }
    for path, operation in _operations(document):
        operation["responses"]["default"] = {
            "description": "A problem (RFC 9457): what was wrong, where, and what was expected.",
            "content": {"application/problem+json": {"schema": {"$ref": REF.format(model="ProblemBody")}}},
        }
        operation["responses"].pop("422", None)
        operation["security"] = [] if path in OPEN else [{"key": []}, {"cookie": []}]
    return document


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for operation in item.values():
            yield path, operation
