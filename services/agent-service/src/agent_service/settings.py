"""The settings of agent-service; nothing else here reads the environment."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr
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


def _header_value(key: SecretStr | None) -> SecretStr | None:
    """Return a key without surrounding white space; None for an empty key."""
    text = key.get_secret_value().strip() if key else ""
    if not (text.isascii() and text.isprintable()):
        msg = "expected a key of printable ASCII; was something else pasted along with it?"
        raise ValueError(msg)
    return SecretStr(text) if text else None


def _base_url(url: str | None) -> str | None:
    """Return a base URL with the scheme http or https; None for an empty one."""
    text = (url or "").strip()
    if not text:
        return None
    with suppress(ValueError):  # whose message quotes the address
        parts = urlsplit(text)
        if parts.scheme in {"http", "https"} and parts.hostname:
            return text
    msg = "expected an address that begins with http:// or https://, such as http://localhost:11434/v1"
    raise ValueError(msg)


class ProviderKeys(BaseSettings):
    """The keys of model providers, under the names that their SDKs use; never in YAML, never logged."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    openai_api_key: Annotated[SecretStr | None, AfterValidator(_header_value)] = None
    openai_base_url: Annotated[str | None, AfterValidator(_base_url)] = None
