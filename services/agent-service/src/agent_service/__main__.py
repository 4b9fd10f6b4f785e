"""Start agent-service as a process of its own: `python -m agent_service`."""

from agent_service.app import open_app
from agent_service.settings import ProviderKeys, Settings
from service_process.running import run_service
from shared_models.services import AGENT_SERVICE

if __name__ == "__main__":
    run_service(
        AGENT_SERVICE,
        Settings,
        lambda settings, bus, redis: open_app(settings, ProviderKeys(), bus, redis, trusted=settings.trusted()),
    )
