"""The `lookalike` command: its group, `up`, and the verbs of the other modules."""

import errno
import json
import os
import sys
import tomllib
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

import click

from pipeline.cli.bundle import bundle
from pipeline.cli.clean import clean
from pipeline.cli.common import (
    backbone_option,
    catalogue_option,
    json_option,
    print_progress,
    report_errors,
)
from pipeline.cli.completion import completion
from pipeline.cli.doctor import doctor
from pipeline.cli.duplicates import duplicates
from pipeline.cli.evaluate import evaluate, plot
from pipeline.cli.feedback import feedback
from pipeline.cli.help import with_examples
from pipeline.cli.index import index, prepare, schedule
from pipeline.cli.operate import audit, jobs, keys
from pipeline.cli.quality import quality
from pipeline.cli.reindex import reindex
from pipeline.cli.reranker import reranker
from pipeline.cli.search import search
from pipeline.cli.status import status, workers
from pipeline.cli.train import train
from shared.settings import load_settings

_UNWRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
EXIT_CODES = """\b
Exit codes:
  0    done
  1    not done: the reason is on standard error, or with --json in `error`
  2    the command line makes no sense
  3    done, and not as wished: an index not promoted, a service not ready
  130  interrupted by Ctrl-C

`lookalike doctor` says what is wrong with a machine, `lookalike completion` teaches your shell these verbs.
"""


def _version() -> str:
    """The project's version; where it is not installed, as in an image, that of the code."""
    try:
        return version("lookalike")
    except PackageNotFoundError:
        project = Path(__file__).parents[2] / "pyproject.toml"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])


def _print_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"lookalike, version {_version()}")
        ctx.exit()


class _Program(click.Group):
    """A group that ends with one line and exit code 1 where its output cannot be written, as on a full disk."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except OSError as exc:
            if exc.filename is not None or exc.errno not in _UNWRITTEN:
                raise
            _end_unwritten(exc)


def _end_unwritten(error: OSError) -> NoReturn:
    with suppress(OSError):
        click.echo(f"error: the output cannot be written ({error.strerror})", err=True)
    # What is left in the buffers would be tried again at exit, and end in a traceback.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
    sys.exit(1)


@click.group(
    cls=_Program,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Show it and exit."
)
def main() -> None:
    """Visual search for marketplaces: which category is this photo, and which listings look like it."""


@with_examples("lookalike up", "lookalike up --catalogue /data/listings --port 18080")
@main.command()
@catalogue_option
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the API. Default: 8080.")
@backbone_option
@json_option
@report_errors
def up(catalogue: Path | None, port: int | None, backbone: str | None, as_json: bool) -> None:
    """Prepare what is missing, then run Valkey, a worker and the API until Ctrl-C."""
    from pipeline.local.up import up as run

    settings = load_settings(catalogue=catalogue, port=port, backbone=backbone)

    def print_json_message(line: str) -> None:
        click.echo(json.dumps({"message": line}))

    run(settings, print_json_message if as_json else print_progress)


for command in (
    *(search, clean, train, prepare, index, bundle, reindex, duplicates, feedback, reranker, schedule, evaluate, plot),
    *(keys, jobs, audit, status, quality, workers, doctor, completion),
):
    main.add_command(command)
