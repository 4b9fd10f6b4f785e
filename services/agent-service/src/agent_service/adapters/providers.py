"""Makes the models that agents name, with one client for each provider.

The composition root opens them with the settings it has read. SDKs are imported at one seam, `_openai`, and only when
an agent of that provider is loaded: they cost seconds at start and a hundred megabytes.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, cast

from pydantic import SecretStr
from pydantic_ai.models import Model

from agent_service.adapters.models import ModelCandidate, ModelChain, RetryPolicy
from agent_service.adapters.scripted import ScriptedModel
from agent_service.adapters.scripts import ModelScript
from shared_models.agents import Agent, ModelRef

OPENAI: Final = "https://api.openai.com/v1"
"""The address of OpenAI's own API."""


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """Keys and addresses, as the environment gives them."""

    openai_api_key: SecretStr | None = None
    openai_base_url: str | None = None

    @property
    def configured(self) -> frozenset[str]:
        """The providers for which there is a key, or the address of a server that needs none."""
        return frozenset({"openai"}) if self.openai_api_key or self.openai_base_url else frozenset()


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
        """Return the models of an agent."""
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
    """Import the SDK and open its client: the one seam where a provider is imported."""
    module = importlib.import_module("agent_service.adapters.openai_chat")
    return cast("_Sdk", module.OpenAIChat(settings.openai_api_key, settings.openai_base_url))
