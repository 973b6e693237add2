"""The configuration of gunicorn. Requests run in greenlets: a slow or waiting client costs a socket, not a thread."""

from gevent import monkey

monkey.patch_all()  # before anything imports ssl, which cannot be patched afterwards

import resource  # noqa: E402
import sys  # noqa: E402

from gunicorn.workers.base import Worker  # noqa: E402

from api.http.auth import Authenticator  # noqa: E402
from api.service import Service  # noqa: E402
from shared.errors import CannotStart  # noqa: E402
from shared.redis_client import connect  # noqa: E402
from shared.settings import CONNECTIONS, load_settings  # noqa: E402

try:
    _settings = load_settings()
    Authenticator(_settings, connect(_settings.required_redis_url)).require_keys_beyond_loopback()
except CannotStart as exc:
    sys.exit(f"lookalike: {exc}")


def post_worker_init(worker: Worker) -> None:
    """Start the health probe: in processes that serve, not in every application that `create_app` makes."""
    service: Service = worker.wsgi.extensions["lookalike"]
    service.health_probe.start()


bind = _settings.authority
workers = 1
worker_class = "api.http.gunicorn_worker.Worker"
worker_connections = CONNECTIONS
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
_files = 4 * worker_connections  # each may need a client's socket, a body's file, a photo's file, a socket to Redis
if _soft < _files <= _hard or _hard == resource.RLIM_INFINITY:
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(_soft, _files), _hard))
timeout = 60
graceful_timeout = 5
# Seconds that a connection may be idle, and for the whole head of a request, also of the first on a connection.
keepalive = _settings.keep_alive_s
forwarder_headers = ""  # SCRIPT_NAME from a header would move the application; LOOKALIKE_URL_PREFIX does
control_socket_disable = True
accesslog = None
loglevel = "warning"
