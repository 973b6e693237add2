"""/openapi.json, and /docs, which shows it with Swagger UI. The page loads nothing from other hosts."""

from importlib.util import find_spec
from pathlib import Path

from flask import Blueprint, Response, current_app, jsonify, send_from_directory

from api.openapi.document import describe
from api.openapi.operation import Operation
from api.service import service

bp = Blueprint("docs", __name__)


@bp.get("/openapi.json")
@Operation("This contract", {200: ({"type": "object"}, "OpenAPI 3.1")})
def specification() -> Response:
    """GET /openapi.json: the OpenAPI document."""
    return jsonify(describe(current_app, service().settings, service().categories, service().attributes))


@bp.get("/docs")
def page() -> Response:
    """GET /docs: the OpenAPI document as a page."""
    response = Response(_PAGE, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
    return response


@bp.get("/docs/<path:name>")
def asset(name: str) -> Response:
    """GET /docs/NAME: a file of that page."""
    if name == "start.js":
        return Response(_START, content_type="text/javascript; charset=utf-8")
    return send_from_directory(_swagger(), name, max_age=86_400)


# Relative addresses: the page works below any path prefix.
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Lookalike API</title>
<link rel="stylesheet" href="docs/css/swagger-ui.css">
<main id="contract"><noscript>The contract is at <a href="openapi.json">openapi.json</a>.</noscript></main>
<script src="docs/js/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""

_START = """SwaggerUIBundle({ url: "openapi.json", dom_id: "#contract", deepLinking: true, validatorUrl: null });
"""


def _swagger() -> Path:
    """The folder of Swagger UI's assets, in a package of which nothing else is used."""
    found = find_spec("flask_openapi3_swagger")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "templates" / "swagger"
