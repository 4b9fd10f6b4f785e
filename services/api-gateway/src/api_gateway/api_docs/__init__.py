"""The description of the API in dev: the OpenAPI document of the whole fleet, and Swagger UI to read and try it.

Every file comes from this process, and the page's policy lets the browser load nothing from elsewhere. The document is
generated (`tools.generate`), because the gateway does not import the services whose routes it forwards. Swagger UI
comes with the extra `docs`; without it there is the document alone.
"""

from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from starlette.responses import FileResponse

FOLDER: Final = Path(__file__).parent
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
SWAGGER_UI: Final = "fastapi_swagger"
"""The package that carries Swagger UI's files; none of its code is used."""


def docs_routes() -> APIRouter:
    """Return the routes of the document and, where Swagger UI is installed, of its page."""
    files = {"/openapi.json": FOLDER / "openapi.json"}
    if (swagger_ui := _swagger_ui()) is not None:
        files |= {"/docs": FOLDER / "index.html", "/docs/start.js": FOLDER / "start.js"}
        files |= {f"/docs/{name}": swagger_ui / name for name in ("swagger-ui-bundle.js", "swagger-ui.css")}
    router = APIRouter(include_in_schema=False)
    for path, file in files.items():
        router.add_api_route(path, _sender_of(file), methods=["GET", "HEAD"])
    return router


def _sender_of(file: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def send() -> FileResponse:
        return FileResponse(file, headers=HEADERS)

    return send


def _swagger_ui() -> Path | None:
    """Return the folder of Swagger UI's files; the package that has them is found, and not imported."""
    found = find_spec(SWAGGER_UI)
    return Path(found.origin).parent / "resources" if found and found.origin else None
