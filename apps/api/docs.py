"""`/docs`: Swagger UI, with its files from a package, so that the page asks no other host for anything."""

from importlib.resources import files

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse

router = APIRouter(include_in_schema=False)

# Only these: the package has those of ReDoc too, which loads its logo and its fonts from elsewhere.
_FILES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon.png": "image/png",
}
_FOLDER = files("fastapi_offline") / "static"
# The names stay the same when the package changes.
_FRESH_S = 3600


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The page."""
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
