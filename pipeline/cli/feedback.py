"""`lookalike feedback`: store what people did with results, and export it as a table."""

from datetime import UTC, datetime
from typing import BinaryIO

import click
import redis
from pydantic import ValidationError

from pipeline.cli.common import (
    duration,
    json_option,
    print_facts,
    print_progress,
    report_errors,
    running_jobs,
    running_redis,
)
from pipeline.cli.help import with_examples
from shared.artifacts.snapshots import answering_bundle, bundle_store
from shared.catalogue.categories import Categories
from shared.errors import InvalidRequest
from shared.feedback.archive import read_feedback
from shared.feedback.contract import FeedbackEvent, FeedbackRequest, JobFeedback, impression_of
from shared.feedback.store import FeedbackStore
from shared.model.bundle import read_manifest
from shared.redis_address import withdrawn
from shared.settings import Settings, load_settings

_STDOUT = "<stdout>"


@click.group()
def feedback() -> None:
    """What people did with the results of searches: store it, export it."""


@with_examples(
    "lookalike feedback give 0c19a02a593470df39c877227f92fe8c right 75b2bd1b-…",
    'lookalike feedback give 0c19a02a593470df39c877227f92fe8c category "Home & Garden"',
)
@feedback.command("give")
@click.argument("job_id")
@click.argument("event", type=click.Choice([event.value for event in FeedbackEvent]))
@click.argument("subject", metavar="IMAGE|CATEGORY")
@json_option
@report_errors
def feedback_give(job_id: str, event: str, subject: str, as_json: bool) -> None:
    """Store an event: what was done with the result IMAGE of the search JOB_ID, or the CATEGORY that is right."""
    of = "category" if event == FeedbackEvent.CATEGORY else "image_id"
    try:
        request = FeedbackRequest.model_validate({"job_id": job_id, "event": event, of: subject})
    except ValidationError as exc:
        raise InvalidRequest("; ".join(f"{one['loc'][0]}: {one['msg']}" for one in exc.errors())) from exc
    impression, position = impression_of(running_jobs().get(job_id), request)
    settings = load_settings()
    if request.category is not None and (bundle := answering_bundle(settings.storage)):
        Categories(read_manifest(bundle_store(settings.storage), bundle).categories).position(request.category)
    FeedbackStore(running_redis()).give(impression, request, limit=settings.max_feedback)
    facts = {**request.model_dump(mode="json"), "position": position, "index_version": impression.index_version}
    where = f" at position {position} of index {impression.index_version}" if position else ""
    print_facts(as_json, facts, f"stored: {event} {subject}{where}")


@with_examples("lookalike feedback export feedback.parquet", "lookalike feedback export - --since 7d > recent.parquet")
@feedback.command("export")
@click.argument("file", type=click.File("wb"))
@click.option(
    "--since", "since_s", callback=duration(), metavar="TIME", help="Only of searches of late, such as 30m, 24h or 7d."
)
@json_option
@report_errors
def feedback_export(file: BinaryIO, since_s: int | None, as_json: bool) -> None:
    """Write all feedback to FILE, a Parquet table with a row for each result of each search that has some.

    With `-` as FILE the table is written to standard output, and nothing else is. Without a running service it is what
    is archived: everything but the last hours'.
    """
    found = stored_feedback(load_settings())
    if since_s is not None:
        after = datetime.now(UTC).timestamp() - since_s
        found = [one for one in found if one.impression.searched_at >= after]
    from pipeline.feedback.table import feedback_table

    table = feedback_table(found)
    file.write(table.to_parquet(index=False))
    file.flush()  # of a small table nothing is written before: at exit a full disk would be told in another way
    if file.name != _STDOUT:
        facts = {"file": file.name, "searches": len(found), "rows": len(table)}
        print_facts(as_json, facts, f"{file.name}: {len(table)} results of {len(found)} searches")


def stored_feedback(settings: Settings) -> list[JobFeedback]:
    """All feedback: what is archived, and if a service runs, what it holds.

    Raises:
        ArtifactError, StoreUnavailable: as of `read_feedback`.
        CannotStart: a service runs, and where its Redis is may not be read.
        redis.AuthenticationError: Redis refuses the password.
    """
    if settings.redis_url is None and withdrawn(settings.home):
        reason = f"no service runs from {settings.home}"
    else:
        try:
            return read_feedback(FeedbackStore(running_redis()), settings.storage)
        except redis.AuthenticationError:
            raise
        except redis.ConnectionError:
            reason = "Redis cannot be reached"
    print_progress(f"{reason}: this is the feedback that is archived")
    return read_feedback(None, settings.storage)
