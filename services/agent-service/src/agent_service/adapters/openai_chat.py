"""OpenAI's chat completions, and whatever speaks them at another address.

Importing the SDK takes seconds, so `adapters/providers` imports this module only when an agent needs it.
"""

import logging

import httpx2
from openai import AsyncOpenAI, Timeout
from pydantic import SecretStr
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from shared_clients.egress import EgressPolicy
from shared_clients.egress.sdk_transport import SdkTransport

OPENAI = "https://api.openai.com/v1"
CONNECT_SECONDS = 10.0


class OpenAIChat:
    """One client for all models behind one key.

    Args:
        api_key: OpenAI's, or None where the server at `base_url` asks for none.
        base_url: where the API is; OpenAI's own when None.
    """

    def __init__(self, api_key: SecretStr | None, base_url: str | None) -> None:
        # Below this level the SDK and its HTTP client write whole requests to the log: conversations, and echoed keys.
        for name in ("openai", "httpx2", "httpcore2"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # Retries and read time-outs are `adapters/models`'; the SDK would repeat them on its own.
        timeout = Timeout(None, connect=CONNECT_SECONDS)
        self._client = AsyncOpenAI(
            api_key=api_key.get_secret_value() if api_key else "none",
            base_url=base_url or OPENAI,
            max_retries=0,
            http_client=httpx2.AsyncClient(
                transport=SdkTransport(EgressPolicy.of([base_url or OPENAI])), timeout=timeout
            ),
            timeout=timeout,
        )

    def model(self, name: str) -> Model:
        return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=self._client))

    async def close(self) -> None:
        await self._client.close()
