"""`lookalike quality`: what a sample of the running service's searches says of its answers."""

import sys
from collections.abc import Iterator

import click

from pipeline.cli.common import duration, json_option, print_facts, report_errors, running_redis
from pipeline.cli.help import with_examples
from pipeline.cli.status import NOT_READY
from shared.jobs.worker_registry import WorkerRegistry, most_served
from shared.quality.contract import CheckState, QualityFigures, QualityReport
from shared.quality.store import KEPT_S, STAGES, QualityStore

_CATEGORIES_SHOWN = 5


@with_examples("lookalike quality --since 7d", "lookalike quality --since 24h --json | jq .checks")
@click.command()
@click.option(
    "--since",
    "since_s",
    callback=duration(KEPT_S),
    default="7d",
    show_default=True,
    metavar="TIME",
    help="How far back, such as 30m, 24h or 7d; 8d at most.",
)
@json_option
@report_errors
def quality(since_s: int, as_json: bool) -> None:
    """Show how good answers are of late: a sample of searches, compared with exact search by the workers.

    Exit code: 3 when a check of the last searches alarms.
    """
    client = running_redis()
    report = QualityStore(client).report(since_s, most_served(WorkerRegistry(client).live()))
    print_facts(as_json, report.model_dump(mode="json"), "\n".join(_lines(report)))
    sys.exit(NOT_READY if any(one.state == CheckState.ALARM for one in report.checks) else 0)


def _lines(report: QualityReport) -> Iterator[str]:
    """The report, for people."""
    for check in report.checks:
        yield f"{check.name:9s} {check.state:8s} {check.detail}"
    figures = report.figures
    if not figures.n_searches:
        yield "no search was shadowed in that time; LOOKALIKE_SHADOW_SHARE says how many are"
        return
    yield ""
    head = ("", "shadowed", "recall@10", "best score", "not sure", "damaged", *STAGES)
    rows = [head, _row("altogether", figures)]
    rows += [_row(day.day, day.figures) for day in report.days]
    rows += [_row(one.version, one.figures) for one in report.versions]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    some = list(figures.categories.items())[:_CATEGORIES_SHOWN]
    yield ""
    yield "categories: " + ", ".join(f"{name} {share:.0%}" for name, share in some)


def _row(name: str, figures: QualityFigures) -> tuple[str, ...]:
    shares = (figures.recall_at_10, figures.best_score, figures.not_sure)
    stages = (figures.stages.get(stage) for stage in STAGES)
    return (
        name,
        str(figures.n_searches),
        *("-" if share is None else f"{share:.3f}" for share in shares),
        f"{figures.rows_damaged} of {figures.rows_audited}",
        *(f"{stage.mean_ms:.1f} ms" if stage else "-" for stage in stages),
    )
