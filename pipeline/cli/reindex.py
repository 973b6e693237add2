"""`lookalike reindex`: submit a reindex to the running service, show its progress, and print its outcome."""

import sys

import click

from pipeline.cli.common import json_option, print_facts, report_errors, running_jobs
from pipeline.cli.help import with_examples
from pipeline.cli.watch import run_job
from shared.jobs.contract import Job, JobKind, JobStatus
from shared.jobs.reindex_contract import Promotion, ReindexMode, ReindexRequest, ReindexResult
from shared.jobs.store import JobStore
from shared.jobs.view import view

_NOT_PROMOTED = 3


@with_examples(
    "lookalike reindex --wait", "lookalike reindex --dry-run", "lookalike reindex --mode all --promote never"
)
@click.command()
@click.option("--mode", type=click.Choice([m.value for m in ReindexMode]), default="changed", show_default=True)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--promote", type=click.Choice([p.value for p in Promotion]), default="if_better", show_default=True)
@click.option("--force", is_flag=True, help="Promote even when far fewer photos are left than are live.")
@click.option("--wait/--no-wait", default=None, help="Show how far it is until it ends. Default: on a terminal.")
@json_option
@report_errors
def reindex(mode: str, dry_run: bool, promote: str, force: bool, wait: bool | None, as_json: bool) -> None:
    """Have the running service build a new index from its catalogue, and promote it if it is as good.

    Exit code: 0 when it is live, or there was nothing to do; 1 when it failed; 3 when it was built and not promoted,
    unless that was asked for.
    """
    request = ReindexRequest(mode=ReindexMode(mode), dry_run=dry_run, promote=Promotion(promote), force=force)
    job = run_reindex(running_jobs(), request, wait=sys.stdout.isatty() if wait is None else wait)
    print_facts(as_json, view(job).model_dump(mode="json"), outcome(job))
    sys.exit(exit_code(job, request))


def run_reindex(jobs: JobStore, request: ReindexRequest, *, wait: bool) -> Job:
    """Submit a reindex to the running service.

    Args:
        jobs: of the service.
        request: what to reindex, and when to promote.
        wait: show its progress until it ends.

    Returns:
        the job, as it is when it ended or was submitted.

    Raises:
        ReindexRunning: there is one already.
    """
    return run_job(jobs, JobKind.REINDEX, request, wait=wait)


def outcome(job: Job) -> str:
    """Describe the state or the result of a reindex, for people."""
    if job.error:
        return f"{job.status}: {job.error.code}: {job.error.detail}"
    if not isinstance(job.result, ReindexResult):
        return f"{job.status}: {job.id}"
    result = job.result
    lines = [result.decision or job.status.value]
    lines += [f"  {name}: {count}" for name, count in result.counts if count]
    lines += [f"  left out: {count} x {reason}" for reason, count in sorted(result.reasons.items())]
    if result.report:
        lines += [f"  FAILED  {gate.name}: {gate.detail}" for gate in result.report.gates if not gate.passed]
    if result.index_version:
        lines.append(f"  version {result.index_version}" + ("" if result.promoted else ", not live"))
    return "\n".join(lines)


def exit_code(job: Job, request: ReindexRequest) -> int:
    """Exit code: 0 if the job is done or not finished yet, 1 if it failed, 3 if an index was built and not promoted."""
    if not job.status.terminal:
        return 0
    if job.status is not JobStatus.SUCCEEDED or not isinstance(job.result, ReindexResult):
        return 1
    wanted = job.result.index_version is not None and request.promote is not Promotion.NEVER
    return _NOT_PROMOTED if wanted and not job.result.promoted else 0
