"""The app factory: makes the Flask application from the settings."""

from flask import Flask

from api import service
from api.http import auth, origins, prefix, problems
from api.routes import batches, docs, duplicates, feedback, health, images, index, jobs, legacy, page
from api.uploads import bodies, form_decoder
from shared.settings import Settings, load_settings
from shared.telemetry import configure_logging
from shared.tracing import configure_tracing

# What machines ask every few seconds.
_NOT_TRACED = "/(livez|readyz|healthcheck|metrics)$"


def create_app(settings: Settings | None = None) -> Flask:
    """Build the API as a Flask application.

    Args:
        settings: of the service; by default they are read from the environment.

    Returns:
        The application. Its health probe is started by gunicorn's configuration, not here.

    Raises:
        CannotStart: a setting is missing or wrong.
    """
    configure_logging()
    settings = settings or load_settings()
    app = Flask(__name__, static_folder=None)
    _trace_requests(app, settings)
    app.request_class = bodies.SpooledRequest
    form_decoder.parse_forms_leniently()
    # Werkzeug counts a file's bytes between two line ends towards the memory limit too, so both limits are the same.
    app.config["MAX_CONTENT_LENGTH"] = app.config["MAX_FORM_MEMORY_SIZE"] = settings.max_upload_mb << 20
    app.config["MAX_FORM_PARTS"] = 32
    app.json.sort_keys = False  # type: ignore[attr-defined]
    problems.install(app)
    origins.install(app, settings)
    app.before_request(bodies.spool_body)
    app.teardown_request(bodies.discard_body)
    made = service.Service(settings)
    service.install(app, made)
    auth.install(app, made.authenticator)
    add_routes(app)
    prefix.install(app, settings.url_prefix)
    return app


def _trace_requests(app: Flask, settings: Settings) -> None:
    """Make a span of every request, where tracing is on; before anything else sees requests.

    Raises:
        CannotStart: as `configure_tracing`.
    """
    provider = configure_tracing(settings, "lookalike-api")
    if provider is None:
        return
    from opentelemetry.instrumentation.flask import FlaskInstrumentor

    instrumentor = FlaskInstrumentor()
    instrumentor.instrument_app(  # type: ignore[no-untyped-call]
        app, tracer_provider=provider, excluded_urls=_NOT_TRACED
    )


def add_routes(app: Flask) -> None:
    """Have an application answer every call; /openapi.json tells of them in this order."""
    app.url_map.converters["job_id"] = jobs.JobIdConverter
    for module in (jobs, batches, images, index, duplicates, feedback, legacy, page, health, docs):
        app.register_blueprint(module.bp)
