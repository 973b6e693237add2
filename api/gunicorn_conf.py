"""gunicorn's configuration. Greenlets, so that slow or waiting clients cost a socket and not a thread."""

from gevent import monkey

monkey.patch_all()  # before anything imports ssl, which cannot be patched afterwards

from shared.settings import load_settings  # noqa: E402

_settings = load_settings()

bind = _settings.authority
workers = 1
worker_class = "gevent"
worker_connections = 1000
timeout = 60
graceful_timeout = 5
keepalive = 30
control_socket_disable = True
accesslog = None
loglevel = "warning"
