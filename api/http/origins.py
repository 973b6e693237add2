"""Refuses requests that other web sites make through a browser, by their Host and Sec-Fetch-Site headers.

A service on loopback needs this too: a browser on the same machine sends it requests for any page that it shows.
"""

import re

from flask import Flask, request

from shared.errors import CrossSiteRefused, HostNotTrusted
from shared.settings import Settings

_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:[0-9]*)?")
_READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def install(app: Flask, settings: Settings) -> None:
    """Check every request of `app` before its other handlers see it.

    A request is refused with HostNotTrusted if its Host header is none of the service's names, and with
    CrossSiteRefused if another site's page sends it and it could change something.
    """
    trusted = settings.trusted_names

    def check() -> None:
        # DNS rebinding: a page whose host name now resolves to 127.0.0.1 still sends that name.
        host = request.headers.get("Host")
        if trusted and host is not None and not _is_one_of(host, trusted):
            raise HostNotTrusted("the Host header names another service; LOOKALIKE_TRUSTED_HOSTS lists those served")
        # Browsers let any site's form post a file here, without script or permission.
        if request.headers.get("Sec-Fetch-Site") == "cross-site" and request.method not in _READING_METHODS:
            raise CrossSiteRefused("another web site may not change anything here")

    app.before_request(check)


def _is_one_of(host: str, trusted: frozenset[str]) -> bool:
    found = _HOST.fullmatch(host.lower())
    return found is not None and found[1] in trusted
