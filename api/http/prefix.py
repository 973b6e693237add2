"""Serves the application below a path prefix, for a proxy that gives the service one path of a site."""

from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask

from shared.errors import CannotStart

_WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def install(app: Flask, prefix: str) -> None:
    """Have an application whose routes are complete serve below `prefix`, and say so in its links.

    Requests are taken with the prefix and without it: some proxies remove it, and health probes never have it.

    Args:
        app: the application.
        prefix: such as `/lookalike`; empty for none.

    Raises:
        CannotStart: the prefix begins like a path of the service, so that the two could not be told apart.
    """
    own = {rule.rule.split("/")[1] for rule in app.url_map.iter_rules()} - {""}
    if prefix and prefix.split("/")[1] in own:
        raise CannotStart(f"LOOKALIKE_URL_PREFIX: /{prefix.split('/')[1]} is a path of the service; choose another")
    app.wsgi_app = _below(app.wsgi_app, prefix)  # type: ignore[assignment, method-assign]


def _below(wsgi_app: _WsgiApp, prefix: str) -> _WsgiApp:
    def below_prefix(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if prefix and (path == prefix or path.startswith(f"{prefix}/")):
            environ["PATH_INFO"] = path.removeprefix(prefix) or "/"
        environ["SCRIPT_NAME"] = prefix
        return wsgi_app(environ, start_response)

    return below_prefix
