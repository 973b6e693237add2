"""Options, output and error handling that the verbs of the command line share."""

import json
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, ParamSpec

import click
import redis

from shared.artifacts.addresses import SCHEME
from shared.artifacts.home import catalogue_location
from shared.durations import parse_duration
from shared.errors import LookalikeError, QueueUnavailable
from shared.jobs.contract import Job
from shared.jobs.store import JobStore
from shared.redis_address import running_redis_url
from shared.redis_client import connect, queue_trouble
from shared.settings import Backbone, Settings, load_settings

TIMEOUT_S = 5

P = ParamSpec("P")


class _CatalogueLocation(click.Path):
    """Parameter type: an existing directory, or an address in an object store."""

    name = "directory"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if str(value).startswith(SCHEME) else super().convert(value, param, ctx)


catalogue_option = click.option(
    "--catalogue",
    type=_CatalogueLocation(exists=True, file_okay=False),
    help="Raw dump: Products.csv, Images.csv, images/. Default: LOOKALIKE_CATALOGUE.",
)
backbone_option = click.option("--backbone", type=click.Choice([b.value for b in Backbone]), help="Default: auto.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def duration(most_s: int | None = None) -> Callable[[click.Context, click.Parameter, str | None], int | None]:
    """Make the callback of an option that is a duration such as 7d: in seconds; None: it was not given.

    Args:
        most_s: the longest that is taken, in whole days; None: any.
    """

    def read(_context: click.Context, _parameter: click.Parameter, given: str | None) -> int | None:
        try:
            return None if given is None else parse_duration(given, most_s=most_s)
        except ValueError as exc:
            raise click.BadParameter(str(exc)) from exc

    return read


def report_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Decorate a verb: known errors are printed without a stack trace and end the program with exit code 1.

    A `LookalikeError` or a Redis that does not answer exits with 1, Ctrl-C with 130.
    """

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except LookalikeError as exc:
            exit_with_error(exc.code, str(exc), as_json=bool(kwargs.get("as_json")))
        except redis.RedisError as exc:
            exit_with_error(QueueUnavailable.code, _redis_trouble(exc), as_json=bool(kwargs.get("as_json")))
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(128 + signal.SIGINT)

    return run


def _redis_trouble(error: redis.RedisError) -> str:
    if isinstance(error, redis.ResponseError | redis.AuthenticationError | redis.BusyLoadingError):
        return queue_trouble(error)
    return f"Redis does not answer ({type(error).__name__}); is the service running?"


def exit_with_error(code: str, detail: str, *, as_json: bool) -> NoReturn:
    """Print an error, as one JSON object on standard output or as text on standard error, and exit with code 1."""
    if as_json:
        click.echo(json.dumps({"error": {"code": code, "detail": detail}}))
    else:
        click.echo(f"error: {detail}", err=True)
    sys.exit(1)


def print_progress(line: str) -> None:
    """Print one line on standard error; a `ReportProgress`."""
    click.echo(line, err=True)


def print_facts(as_json: bool, facts: dict[str, Any], text: str) -> None:
    """Print a verb's result on standard output: the facts as one JSON object, or else the text."""
    click.echo(json.dumps(facts, ensure_ascii=False) if as_json else text)


def existing_catalogue(settings: Settings) -> Path:
    """Find the directory of the catalogue that is named, or else was used last.

    Raises:
        UsageError: there is none, or it lies in an object store.
    """
    directory = catalogue_location(settings)
    if not isinstance(directory, Path):
        raise click.UsageError(f"this reads a catalogue from a directory; copy {directory} to one and name that")
    if not directory.is_dir():
        raise click.UsageError("name a catalogue: --catalogue DIR, or LOOKALIKE_CATALOGUE")
    return directory


def running_redis() -> redis.Redis:
    """The Redis of the running service.

    Raises:
        CannotStart: no service runs from here.
    """
    return connect(running_redis_url(load_settings()), timeout_s=TIMEOUT_S)


def running_jobs() -> JobStore:
    """The jobs of the running service; raises as `running_redis`."""
    settings = load_settings()
    return JobStore(
        running_redis(),
        job_ttl_s=settings.job_ttl_s,
        result_ttl_s=settings.result_ttl_s,
        n_replicas=settings.redis_replicas,
    )


def dispatch(job: Job) -> None:
    """Have a worker of the running service begin with a job that was written."""
    from shared.jobs.celery_config import make_celery
    from shared.jobs.dispatcher import Dispatcher

    celery = make_celery(running_redis_url(load_settings()), socket_timeout_s=TIMEOUT_S)
    with suppress(QueueUnavailable):  # it is accepted; workers publish again what they miss
        Dispatcher(celery, running_redis()).dispatch(job)


def when(seconds: float) -> str:
    """Seconds since the epoch as an ISO 8601 time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
