"""Where the running service's Redis is: `up` leaves its embedded Valkey's URL in the home, other verbs read it."""

from pathlib import Path

from shared.atomic_files import write_atomically
from shared.errors import CannotStart
from shared.settings import Settings


def running_redis_url(settings: Settings) -> str:
    """The URL of the Redis that a service with these settings runs on.

    Raises:
        CannotStart: no service was started from this home, or its URL is not ours to read.
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
    """Let other processes of this user find the embedded Valkey; the URL holds its password."""
    with write_atomically(_path(home)) as temporary:
        temporary.touch(mode=0o600, exist_ok=False)
        temporary.write_text(url)


def withdraw_redis_url(home: Path) -> None:
    """Nothing runs here any more."""
    _path(home).unlink(missing_ok=True)


def withdrawn(home: Path) -> bool:
    """Whether no URL is left here: a service that runs, or was killed, leaves its own."""
    return not _path(home).exists()


def _path(home: Path) -> Path:
    return home / "redis.url"
