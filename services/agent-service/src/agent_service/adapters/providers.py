"""Providers: from the model an agent names to a model that can be asked.

The composition root opens them with the settings it has read. SDKs are imported at one seam, `_openai`, and only when
an agent of that provider is loaded: they cost seconds at start and a hundred megabytes.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast

from pydantic import SecretStr
from pydantic_ai.models import Model

from agent_service.adapters.models import ModelCandidate, ModelChain, RetryPolicy
from agent_service.adapters.scripted import ScriptedModel
from agent_service.adapters.scripts import ModelScript
from shared_models.agents import Agent, ModelRef


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """Keys and addresses, as the environment gives them."""

    openai_api_key: SecretStr | None = None
    openai_base_url: str | None = None


class MissingKeyError(Exception):
    """An agent names a provider for which there is no key."""


class _Sdk(Protocol):
    def model(self, name: str) -> Model: ...
    async def close(self) -> None: ...


class Providers:
    """Models by reference; one client for each provider, one chain for each agent revision."""

    def __init__(self, settings: ProviderSettings, scripts: Mapping[str, ModelScript]) -> None:
        self._settings = settings
        self._scripted = {name: ScriptedModel(script) for name, script in scripts.items()}
        self._openai: _Sdk | None = None
        self._chains: dict[str, ModelChain] = {}

    def chain(self, agent: Agent, retry_policy: RetryPolicy | None = None) -> ModelChain:
        """Return the models of an agent.

        Raises:
            MissingKeyError: a provider has no key.
        """
        chain = self._chains.get(agent.revision)
        if chain is None:
            refs = (agent.spec.model, *agent.spec.fallbacks)
            candidates = [ModelCandidate(ref, self._model(ref)) for ref in refs]
            chain = ModelChain(candidates, agent.spec.prompts.system, retry_policy=retry_policy)
            self._chains[agent.revision] = chain
        return chain

    def _model(self, ref: ModelRef) -> Model:
        if ref.provider == "scripted":
            return self._scripted[ref.name]
        if self._openai is None:
            self._openai = _openai(self._settings)
        return self._openai.model(ref.name)

    async def close(self) -> None:
        if self._openai is not None:
            await self._openai.close()


def _openai(settings: ProviderSettings) -> _Sdk:
    """Import the SDK and open its client: the one seam where a provider is imported.

    Raises:
        MissingKeyError: neither a key nor another address is set.
    """
    if not settings.openai_api_key and not settings.openai_base_url:
        raise MissingKeyError(
            "an agent uses provider openai: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server that needs no key"
        )
    module = importlib.import_module("agent_service.adapters.openai_chat")
    return cast("_Sdk", module.OpenAIChat(settings.openai_api_key, settings.openai_base_url))
