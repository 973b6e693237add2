"""What every verb of the command line does alike: how it prints, and how it fails."""

import json
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, ParamSpec

import click
import redis

from shared.errors import LookalikeError, QueueUnavailable

P = ParamSpec("P")

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """Errors of ours end the program with their message and exit code 1, without a stack trace."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except LookalikeError as exc:
            _refuse(exc, as_json=bool(kwargs.get("as_json")))
        except redis.RedisError as exc:
            away = QueueUnavailable(
                f"Redis does not answer ({type(exc).__name__}); is the service running?", retry_after_s=5
            )
            _refuse(away, as_json=bool(kwargs.get("as_json")))
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(128 + signal.SIGINT)

    return run


def _refuse(error: LookalikeError, *, as_json: bool) -> NoReturn:
    if as_json:
        click.echo(json.dumps({"error": {"code": error.code, "detail": str(error)}}))
    else:
        click.echo(f"error: {error}", err=True)
    sys.exit(1)


def say(line: str) -> None:
    click.echo(line, err=True)


def print_facts(as_json: bool, facts: dict[str, Any], text: str) -> None:
    click.echo(json.dumps(facts, ensure_ascii=False) if as_json else text)
