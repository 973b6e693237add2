"""Whether the API's port can be listened on."""

import socket

from shared.settings import Settings


def port_trouble(settings: Settings) -> str | None:
    """Say why the API could not listen on its host and port, in the words of the system; None if it could."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.create_server((settings.host, settings.port), family=family):
            return None
    except OSError as exc:
        return str(exc.strerror).partition(" (while")[0]  # Python adds the address
