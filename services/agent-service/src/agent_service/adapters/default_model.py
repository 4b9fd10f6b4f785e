"""The model that `model: default` stands for: that of the provider whose key is there, chosen once at the start.

With a key alone it is a model of OpenAI's by its name. A server at OPENAI_BASE_URL has models of its own, so it is
asked for their names; while it does not answer, the name is OpenAI's, and a warning says so.
"""

from typing import Annotated, Final

import structlog
from pydantic import BaseModel, Field, ValidationError

from agent_service.adapters.providers import ProviderSettings
from shared_clients.errors import OutsideError, Permanent, Transient
from shared_clients.outbound import HttpClient
from shared_models.agents import ModelRef

log = structlog.get_logger()

OPENAI_MODEL: Final = "gpt-5-mini"
ASK_SECONDS: Final = 10.0
_NO_CHAT: Final = ("embed", "rerank", "whisper", "tts", "moderation")
"""Parts of the names of models that do not answer questions; servers list them beside the others."""


class _Listed(BaseModel):
    id: Annotated[str, Field(min_length=1, max_length=128)]


class _ModelList(BaseModel):
    """The part of OpenAI's `GET /models` that is needed."""

    data: tuple[_Listed, ...]


async def choose_default_model(settings: ProviderSettings) -> ModelRef | None:
    """Return the model of the provider whose key is there; None where there is none.

    Raises:
        Permanent: the server at OPENAI_BASE_URL refuses the question, or names no model that answers.
    """
    if settings.openai_base_url is not None:
        return ModelRef(provider="openai", name=await _first_model(settings.openai_base_url, settings))
    if settings.openai_api_key is not None:
        return ModelRef(provider="openai", name=OPENAI_MODEL)
    return None


async def list_models(url: str, settings: ProviderSettings) -> tuple[str, ...]:
    """Return the names of the models that a server with OpenAI's API has.

    Raises:
        OutsideError: it cannot be reached, refuses the key, or answers with something else.
    """
    key = settings.openai_api_key
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
    base = url.rstrip("/")
    async with HttpClient(base, headers=headers) as server:
        answer = await server.call("GET", f"{base}/models", deadline=ASK_SECONDS)
    try:
        return tuple(model.id for model in _ModelList.model_validate_json(answer.content).data)
    except ValidationError as error:
        raise Permanent(f"GET {base}/models: expected a list of models in OpenAI's form, and got another") from error


async def _first_model(url: str, settings: ProviderSettings) -> str:
    remedy = "or name a model in place of `model: default` in the agent's file"
    try:
        names = await list_models(url, settings)
    except Transient as error:  # it may start after us, and its model may well be named so
        log.warning("model_server_away", error=str(error), model=OPENAI_MODEL, remedy=f"start it, {remedy}")
        return OPENAI_MODEL
    except OutsideError as error:
        raise Permanent(
            f"OPENAI_BASE_URL: {error}; start that server, correct the address or the key, {remedy}"
        ) from error
    answering = [name for name in names if not any(part in name.lower() for part in _NO_CHAT)]
    if not answering:
        raise Permanent(f"OPENAI_BASE_URL: {url} lists no model that answers; load one there, {remedy}")
    return OPENAI_MODEL if OPENAI_MODEL in answering else answering[0]
