"""The settings of agent-service; nothing else here reads the environment."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from service_process.settings import ProcessSettings


class Settings(ProcessSettings):
    """What agent-service is told from outside.

    Attributes:
        agent_configs: the folder with `agents/` and `scripts/`.
        default_agent: answers where neither request nor session names an agent.
        slots: runs that one process works on at once; they mostly wait for models.
    """

    agent_configs: Path = Path("agent-configs")
    default_agent: str = "assistant"
    slots: Annotated[int, Field(ge=1, le=1000)] = 32


class ProviderKeys(BaseSettings):
    """Access to model providers, under the names that people know; never in YAML, never logged."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    openai_api_key: SecretStr | None = None
    openai_base_url: str | None = None
