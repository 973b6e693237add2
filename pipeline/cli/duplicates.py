"""`lookalike duplicates`: have the running service find duplicates, and print the groups."""

import sys
from collections.abc import Iterator

import click

from pipeline.cli.common import json_option, print_facts, report_errors, running_jobs
from pipeline.cli.help import with_examples
from pipeline.cli.watch import run_job
from shared.artifacts.versions import show_version
from shared.duplicates.report import n_pages, read_report
from shared.jobs.contract import Job, JobKind
from shared.jobs.duplicates_contract import DuplicateGroup, DuplicatesRequest, DuplicatesResult
from shared.jobs.view import view
from shared.settings import load_settings

_IMAGES_SHOWN = 8


@with_examples("lookalike duplicates", "lookalike duplicates --since 20261122T151717681824Z-3628e303 --json")
@click.command()
@click.option("--since", metavar="VERSION", help="Only groups with photos that are not in that version of the index.")
@click.option(
    "--same-thing-score",
    type=click.FloatRange(0.6, 1),
    default=DuplicatesRequest().same_thing_score,
    show_default=True,
    help="Similarity from which other pictures count as the same thing; 1: none do.",
)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Show how far it is until it ends.")
@json_option
@report_errors
def duplicates(since: str | None, same_thing_score: float, wait: bool, as_json: bool) -> None:
    """Find photos of different listings that are duplicates of one another, by the running service.

    Exit code: 0 when it is done, or was submitted; 1 when it failed.
    """
    settings = load_settings()
    if since is not None:
        show_version(settings.storage, since)
    request = DuplicatesRequest(since=since, same_thing_score=same_thing_score)
    job = run_job(running_jobs(), JobKind.DUPLICATES, request, wait=wait)
    facts = view(job).model_dump(mode="json")
    groups: list[DuplicateGroup] = []
    if isinstance(job.result, DuplicatesResult):
        groups = list(job.result.groups)
        for page in range(1, n_pages(job.result.n_groups)):
            groups += read_report(settings.storage, job.id, page)
        facts["result"] |= {"groups": [group.model_dump(mode="json") for group in groups], "next_cursor": None}
    print_facts(as_json, facts, "\n".join(_lines(job, groups)))
    sys.exit(1 if job.status.terminal and job.error else 0)


def _lines(job: Job, groups: list[DuplicateGroup]) -> Iterator[str]:
    """The groups, for people."""
    if job.error:
        yield f"{job.status}: {job.error.code}: {job.error.detail}"
    elif not isinstance(job.result, DuplicatesResult):
        yield f"{job.status}: {job.id}"
    else:
        found = job.result
        told = ", ".join(f"{n} {label}" for label, n in found.groups_by_label.items())
        yield f"{found.n_photos} photos: {told}" + (f"; {found.n_refuted} pairs refuted" if found.n_refuted else "")
        for group in groups:
            shown = [f"{image.image_id} ({image.listing_id})" for image in group.images[:_IMAGES_SHOWN]]
            more = f" and {group.n_images - len(shown)} more" if group.n_images > len(shown) else ""
            yield f"  {group.label}: {', '.join(shown)}{more}"
