"""Start mock-eventing as a process of its own: `python -m mock_eventing`."""

from mock_eventing.app import NAME, load_triggers, open_app
from mock_eventing.settings import Settings
from service_process.serving import run, serve
from service_process.settings import load_settings
from service_process.web import draining
from shared_clients.telemetry import configure


async def main() -> None:
    settings = load_settings(Settings)
    settings.refuse_if_unfit()
    configure(NAME, level=settings.log_level, json=settings.log_json, otlp_endpoint=settings.otlp_endpoint)
    async with open_app(settings, load_triggers(settings.triggers)) as app:
        await serve(app, host=settings.host, port=settings.port, draining=draining(app).set)


if __name__ == "__main__":
    run(main)
