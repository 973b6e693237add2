"""Find the Redis of the running service: `up` writes its embedded Valkey's URL into the home, other verbs read it."""

from pathlib import Path

from shared.atomic_files import write_atomically
from shared.errors import CannotStart
from shared.settings import Settings


def running_redis_url(settings: Settings) -> str:
    """Return the URL of the Redis that a service with these settings uses.

    Raises:
        CannotStart: no service was started from this home, or its URL may not be read.
    """
    if settings.redis_url is not None:
        return settings.redis_url
    path = _path(settings.home)
    try:
        return path.read_text()
    except FileNotFoundError:
        raise CannotStart(
            f"no service is running from {settings.home}: start the service first with `make run`, "
            "or set LOOKALIKE_REDIS_URL"
        ) from None
    except OSError as exc:
        raise CannotStart(
            f"cannot read {path} ({exc.strerror}): run this as the user of the service, or set LOOKALIKE_REDIS_URL"
        ) from exc


def publish_redis_url(home: Path, url: str) -> None:
    """Write the URL of the embedded Valkey for other processes of this user only, because it holds the password."""
    with write_atomically(_path(home)) as temporary:
        temporary.touch(mode=0o600, exist_ok=False)
        temporary.write_text(url)


def withdraw_redis_url(home: Path) -> None:
    """Remove the URL when the service has stopped."""
    _path(home).unlink(missing_ok=True)


def withdrawn(home: Path) -> bool:
    """Whether there is no URL in the home; a running or a killed service leaves one."""
    return not _path(home).exists()


def _path(home: Path) -> Path:
    return home / "redis.url"
