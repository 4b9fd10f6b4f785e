"""Start request-manager as a process of its own: `python -m request_manager`."""

from request_manager.app import open_app
from request_manager.settings import Settings
from service_process.running import run_service
from service_process.settings import load_settings
from shared_models.services import REQUEST_MANAGER

if __name__ == "__main__":
    run_service(
        REQUEST_MANAGER,
        lambda: load_settings(Settings),
        lambda settings, bus, redis: open_app(settings, bus, redis, settings.trusted()),
    )
