"""Refuses requests that other web sites make through a browser, by their Host, Sec-Fetch-Site and Origin headers.

A service on loopback needs this too: a browser on the same machine sends it requests for any page that it shows.
"""

from flask import Flask, request

from shared.errors import CrossSiteRefused, HostNotTrusted
from shared.settings import Settings
from shared.web_addresses import is_origin_of, is_trusted

# Kubelets, load balancers and Prometheus ask these by an address that no operator knows beforehand.
HEALTH_ENDPOINTS = frozenset({"ops.livez", "ops.readyz", "ops.metrics", "legacy.healthcheck"})
_READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES = frozenset({"same-origin", "none"})  # none: the user's own doing, such as a bookmark


def install(app: Flask, settings: Settings) -> None:
    """Check every request of `app` before its other handlers see it.

    A request is refused with HostNotTrusted if its Host header is none of the service's names, except to the health
    endpoints; and with CrossSiteRefused if a page of another origin sends it and it could change something.
    """
    trusted = settings.trusted_host_list
    origins = settings.trusted_origin_list

    def check() -> None:
        # DNS rebinding: a page whose host name now resolves to 127.0.0.1 still sends that name.
        host = request.headers.get("Host")
        if trusted and host is not None and request.endpoint not in HEALTH_ENDPOINTS and not is_trusted(host, trusted):
            raise HostNotTrusted("the Host header names another service; LOOKALIKE_TRUSTED_HOSTS lists those served")
        # Browsers let any site's form post a file here, without script or permission.
        if request.method not in _READING_METHODS and _is_foreign(origins):
            raise CrossSiteRefused(
                "a page of another origin may not change anything here; LOOKALIKE_TRUSTED_ORIGINS lists those that may"
            )

    app.before_request(check)


def _is_foreign(trusted_origins: tuple[str, ...]) -> bool:
    """Whether a browser sends the current request for a page of another origin that is not trusted.

    `same-site` is foreign too: it means another port or subdomain, such as another program's page on localhost.
    """
    origin = request.headers.get("Origin")
    if origin is not None and origin.lower() in trusted_origins:
        return False
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in _OWN_SITES
    # Over plain HTTP browsers send Sec-Fetch-Site to loopback only. Programs send neither header.
    return origin is not None and not is_origin_of(origin, request.headers.get("Host", ""))
