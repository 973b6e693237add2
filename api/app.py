"""The app factory: settings in, a Flask application out."""

from flask import Flask, request

from api import jobs, ops, problems, seed, service
from shared.errors import LengthRequired
from shared.settings import Settings, load_settings
from shared.telemetry import configure_logging


def create_app(settings: Settings | None = None) -> Flask:
    """Build the API; without `settings` they are read from the environment.

    Raises:
        CannotStart: a setting is missing or wrong.
    """
    configure_logging()
    settings = settings or load_settings()
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_upload_mb << 20
    # Also for the parts Werkzeug keeps in memory: options are short.
    app.config["MAX_FORM_MEMORY_SIZE"] = 64 << 10
    app.config["MAX_FORM_PARTS"] = 32
    app.json.sort_keys = False  # type: ignore[attr-defined]
    problems.install(app)
    app.before_request(_require_length)
    service.install(app, service.Service(settings))
    for module in (ops, seed, jobs):
        app.register_blueprint(module.bp)
    return app


def _require_length() -> None:
    """A body of unstated length could neither be refused for its size in time nor be known to be whole."""
    if request.method in ("POST", "PUT", "PATCH") and request.content_length is None:
        raise LengthRequired("send a Content-Length header")
