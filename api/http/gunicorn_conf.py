"""The configuration of gunicorn. Requests run in greenlets: a slow or waiting client costs a socket, not a thread."""

from gevent import monkey

monkey.patch_all()  # before anything imports ssl, which cannot be patched afterwards

from shared.collector import collector_paused  # noqa: E402

with collector_paused():
    import logging
    import resource
    import sys

    from gunicorn.workers.base import Worker

    from api.http.auth import Authenticator
    from api.service import Service
    from shared.errors import CannotStart
    from shared.redis_client import connect
    from shared.settings import CONNECTIONS, load_settings
    from shared.telemetry import event

_LOG = logging.getLogger(__name__)
_FEWEST_CONNECTIONS = 8
_OTHER_FILES = 32

try:
    _settings = load_settings()
    Authenticator(_settings, connect(_settings.required_redis_url)).require_keys_beyond_loopback()
except CannotStart as exc:
    sys.exit(f"lookalike: {exc}")


def post_worker_init(worker: Worker) -> None:
    """Start the health probe: in processes that serve, not in every application that `create_app` makes."""
    service: Service = worker.wsgi.extensions["lookalike"]
    service.health_probe.start()
    if worker_connections < CONNECTIONS:
        event(_LOG, "connections_limited", level=logging.WARNING, connections=worker_connections, open_files=_files)


bind = _settings.authority
workers = 1
worker_class = "api.http.gunicorn_worker.Worker"
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
_wanted = 4 * CONNECTIONS  # each may need a client's socket, a body's file, a photo's file, a socket to Redis
_files = max(_soft, _wanted if _hard == resource.RLIM_INFINITY else min(_wanted, _hard))
resource.setrlimit(resource.RLIMIT_NOFILE, (_files, _hard))
# Where no more files may be opened: an idle connection takes one, and the idle ones are three in four at most.
worker_connections = CONNECTIONS if _files >= _wanted else max(_FEWEST_CONNECTIONS, (_files - _OTHER_FILES) // 2)
timeout = 60
graceful_timeout = 5
# Seconds that a connection may be idle, and for the whole head of a request, also of the first on a connection.
keepalive = _settings.keep_alive_s
forwarder_headers = ""  # SCRIPT_NAME from a header would move the application; LOOKALIKE_URL_PREFIX does
control_socket_disable = True
accesslog = None
loglevel = "warning"
