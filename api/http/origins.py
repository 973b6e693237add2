"""Which web pages may ask: none but our own. A browser on this machine reaches loopback for any page it shows."""

import re

from flask import Flask, request

from shared.errors import CrossSiteRefused, HostNotTrusted
from shared.settings import Settings

_NAME = re.compile(r"(\[[^\]]*\]|[^:]*)(:[0-9]*)?")
_HARMLESS = frozenset({"GET", "HEAD", "OPTIONS"})


def install(app: Flask, settings: Settings) -> None:
    """Check every request before anything else looks at it."""
    trusted = settings.trusted_names

    def check() -> None:
        # A page whose own name was rebound to 127.0.0.1 still sends that name.
        host = request.headers.get("Host")
        if trusted and host is not None and not _is_one_of(host, trusted):
            raise HostNotTrusted("the Host header names another service; LOOKALIKE_TRUSTED_HOSTS lists those served")
        # A form needs no script and no permission to post a file here.
        if request.headers.get("Sec-Fetch-Site") == "cross-site" and request.method not in _HARMLESS:
            raise CrossSiteRefused("another web site may not change anything here")

    app.before_request(check)


def _is_one_of(host: str, trusted: frozenset[str]) -> bool:
    found = _NAME.fullmatch(host.lower())
    return found is not None and found[1] in trusted
