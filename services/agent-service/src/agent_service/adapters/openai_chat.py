"""A client for OpenAI's chat completions, and for other servers with the same API.

Importing the SDK takes seconds, so `adapters/providers` imports this module only when an agent needs it.
"""

import logging

from openai import AsyncOpenAI
from pydantic import SecretStr
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from agent_service.adapters.chat_chunks import LEARNABLE, ChatChunks
from agent_service.adapters.providers import OPENAI
from agent_service.adapters.wire import ModelClient


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
        # `adapters/models` retries calls and limits silence, so the SDK must do neither.
        self._client = AsyncOpenAI(
            api_key=api_key.get_secret_value() if api_key else "none",
            base_url=base_url or OPENAI,
            max_retries=0,
            http_client=ModelClient(ChatChunks, LEARNABLE, base_url or OPENAI),
        )

    def model(self, name: str) -> Model:
        return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=self._client))

    async def close(self) -> None:
        await self._client.close()
