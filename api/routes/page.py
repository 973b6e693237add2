"""/: the web page for browsers, links to the API for programs; and the page's static files."""

import hashlib
from functools import cache
from pathlib import Path

from flask import Blueprint, Response, jsonify, render_template, request, send_from_directory

from api.openapi.operation import Operation
from api.openapi.schemas import PHOTO_TYPES
from api.service import service
from api.uploads.bodies import MAX_QUERY_PHOTOS
from shared.jobs.contract import MAX_TEXT_CHARS

bp = Blueprint("page", __name__)

_STATIC = Path(__file__).parents[1] / "static"
_A_YEAR_S = 31_536_000
# The page shows chosen photos from memory (blob:) and icons from its stylesheet (data:). Other hosts are not allowed.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Vary": "Accept",
}


@bp.get("/")
@Operation(
    "What is at this address", {200: ({"type": "object"}, "for browsers the page, for programs names")}, page=True
)
def root() -> Response:
    """GET /: the page for browsers, links to the API as JSON for programs."""
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        limits = service().settings
        page = render_template(
            "page.html",
            assets=assets(),
            prefix=request.script_root,
            categories=service().categories.names,
            words=service().words,
            max_text_chars=MAX_TEXT_CHARS,
            max_upload_bytes=limits.max_upload_mb << 20,
            max_query_photos=MAX_QUERY_PHOTOS,
            photo_types=PHOTO_TYPES,
        )
        return as_page(page)
    response = jsonify(
        {
            "name": "Lookalike",
            "submit": f"POST {request.script_root}/v1/jobs/search",
            "documentation": f"{request.script_root}/docs",
            "ready": f"{request.script_root}/readyz",
        }
    )
    response.headers["Vary"] = "Accept"
    return response


@bp.get("/static/<version>/<path:name>")
def asset(version: str, name: str) -> Response:
    """GET /static/VERSION/NAME: a static file. Browsers may keep it, as its path changes with the files' content."""
    response = send_from_directory(_STATIC, name)
    # During a rolling upgrade a page may ask a process of another version: it gets that version's file, uncached.
    cache_control = f"public, max-age={_A_YEAR_S}, immutable" if version == _version() else "no-cache"
    response.headers["Cache-Control"] = cache_control
    return response


def as_page(html: str) -> Response:
    """Make the response for a page, with a Content-Security-Policy that allows nothing from other hosts."""
    return Response(html, content_type="text/html; charset=utf-8", headers=_HEADERS)


def assets() -> str:
    """The path under which the static files of this version are, with the path prefix of the service."""
    return f"{request.script_root}/static/{_version()}"


@cache
def _version() -> str:
    """A digest of the content of all static files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in _STATIC.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(_STATIC)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]
