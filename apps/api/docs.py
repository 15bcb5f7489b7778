"""`/docs`: Swagger UI with files from a package, so that the page requests nothing from other hosts."""

from importlib.resources import files

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse

router = APIRouter(include_in_schema=False)

# Not the package's ReDoc, which loads its logo and fonts from other hosts.
_FILES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon.png": "image/png",
}
_FOLDER = files("fastapi_offline") / "static"
# Short, as the file names do not change with the package's version.
_FRESH_S = 3600


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Serve the page."""
    app = request.app
    return get_swagger_ui_html(
        openapi_url=app.openapi_url,
        title=app.title,
        swagger_css_url="/docs/swagger-ui.css",
        swagger_js_url="/docs/swagger-ui-bundle.js",
        swagger_favicon_url="/docs/favicon.png",
    )


def _serve(name: str, media_type: str) -> None:
    @router.get(f"/docs/{name}")
    async def file() -> Response:
        headers = {"Cache-Control": f"max-age={_FRESH_S}"}
        return FileResponse(str(_FOLDER / name), media_type=media_type, headers=headers)


for _name, _media_type in _FILES.items():
    _serve(_name, _media_type)
