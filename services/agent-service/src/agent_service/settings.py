"""The settings of agent-service; nothing else here reads the environment."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from service_process.settings import ProcessSettings


class Settings(ProcessSettings):
    """The settings of agent-service.

    Attributes:
        agent_configs: the folder that holds `agents/` and `scripts/`.
        default_agent: the agent that answers if neither the request nor its session names one.
        slots: the runs that one process works on at once; most of them wait for a model.
    """

    agent_configs: Path = Path("agent-configs")
    default_agent: str = "assistant"
    slots: Annotated[int, Field(ge=1, le=1000)] = 32


class ProviderKeys(BaseSettings):
    """The keys of model providers, under the names that their SDKs use; never in YAML, never logged."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    openai_api_key: SecretStr | None = None
    openai_base_url: str | None = None
