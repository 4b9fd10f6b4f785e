"""Start agent-service as a process of its own: `python -m agent_service`."""

from agent_service.app import NAME, open_app
from agent_service.settings import ProviderKeys, Settings
from service_process.serving import run, serve
from service_process.web import draining
from shared_clients.bus import open_bus
from shared_clients.failpoints import arm
from shared_clients.redis import open_redis
from shared_clients.telemetry import configure


async def main() -> None:
    settings = Settings()
    settings.refuse_if_unfit()
    await settings.refuse_if_role_unfit()
    arm(settings.failpoints, NAME)
    configure(NAME, level=settings.log_level, json=True, otlp_endpoint=settings.otlp_endpoint)
    async with (
        open_bus(settings.bus_url, settings.broker_authentication(NAME)) as bus,
        open_redis(settings.redis_url.get_secret_value()) as redis,
        open_app(settings, ProviderKeys(), bus, redis, trusted=settings.trusted()) as app,
    ):
        await serve(app, host=settings.host, port=settings.port, draining=draining(app).set)


if __name__ == "__main__":
    run(main)
