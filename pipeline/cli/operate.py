"""`lookalike keys`, `jobs` and `audit`: manage API keys and jobs of a running service through its Redis."""

import getpass

import click

from pipeline.cli.common import dispatch, json_option, print_facts, report_errors, running_jobs, running_redis, when
from pipeline.cli.help import with_examples
from shared.api_keys import KeyRing, Scope
from shared.jobs.contract import Job, JobKind, JobStatus
from shared.jobs.listing import JobListing
from shared.jobs.records import Admission
from shared.settings import load_settings


@click.group()
def keys() -> None:
    """Make, list and revoke API keys. While there is none, the service is open, and on loopback only."""


@with_examples(
    "lookalike keys create --name shop", "lookalike keys create --name nightly --scopes admin --requests-per-minute 60"
)
@keys.command("create")
@click.option("--name", required=True, help="Whose it is; shown in lists.")
@click.option("--scopes", default="submit,read", show_default=True, help="submit, read, admin; comma-separated.")
@click.option("--requests-per-minute", type=click.IntRange(0), default=0, help="0: as LOOKALIKE_REQUESTS_PER_MINUTE.")
@json_option
@report_errors
def keys_create(name: str, scopes: str, requests_per_minute: int, as_json: bool) -> None:
    """Make a key and print it. It cannot be shown again."""
    wanted = {scope.strip() for scope in scopes.split(",")}
    if unknown := wanted - set(Scope):
        raise click.UsageError(f"--scopes: {', '.join(sorted(unknown))!r} is none of {', '.join(Scope)}")
    if not 0 < len(name) <= 100:
        raise click.UsageError("--name: 1 to 100 characters are needed")
    ring = KeyRing(running_redis())
    key, token = ring.create(name, {Scope(scope) for scope in wanted}, requests_per_minute=requests_per_minute)
    ring.record(_user(), "keys.create", key.id)
    print_facts(as_json, {"id": key.id, "name": name, "scopes": sorted(key.scopes), "key": token}, token)


@with_examples("lookalike keys list")
@keys.command("list")
@json_option
@report_errors
def keys_list(as_json: bool) -> None:
    """Every key, without its secret."""
    found = sorted(KeyRing(running_redis()).all().values(), key=lambda key: key.created_at)
    facts = [key.model_dump(mode="json", exclude={"sha256"}) for key in found]
    lines = [
        f"{key.id}  {','.join(sorted(key.scopes)):20s}  {when(key.created_at)}  "
        + (f"revoked {when(key.revoked_at)}  " if key.revoked_at else "")
        + key.name
        for key in found
    ]
    print_facts(as_json, {"keys": facts}, "\n".join(lines) or "no keys: the service is open, on loopback only")


@with_examples("lookalike keys revoke KEY_ID")
@keys.command("revoke")
@click.argument("key_id")
@json_option
@report_errors
def keys_revoke(key_id: str, as_json: bool) -> None:
    """End the key KEY_ID, within a second."""
    ring = KeyRing(running_redis())
    ring.revoke(key_id)
    ring.record(_user(), "keys.revoke", key_id)
    print_facts(as_json, {"revoked": key_id}, f"revoked {key_id}")


@with_examples("lookalike keys reset")
@keys.command("reset")
@click.confirmation_option(prompt="This opens the service to everybody who can reach it. Go on?")
@json_option
@report_errors
def keys_reset(as_json: bool) -> None:
    """Forget every key, revoked or not: the service is open again, as before the first one."""
    ring = KeyRing(running_redis())
    count = ring.forget_all()
    ring.record(_user(), "keys.reset", f"{count} keys")
    print_facts(as_json, {"forgotten": count}, f"forgot {count} keys; the service is open")


@with_examples("lookalike audit", "lookalike audit --limit 10 --json")
@click.command()
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@json_option
@report_errors
def audit(limit: int, as_json: bool) -> None:
    """What administrators did, newest first."""
    entries = KeyRing(running_redis()).audit(limit)
    facts = [{"at": when(e.at), "actor": e.actor, "action": e.action, "subject": e.subject} for e in entries]
    lines = [f"{when(e.at)}  {e.actor:20s}  {e.action:15s}  {e.subject}" for e in entries]
    print_facts(as_json, {"entries": facts}, "\n".join(lines) or "nothing yet")


@click.group()
def jobs() -> None:
    """See, retry and cancel jobs of a running service."""


@with_examples("lookalike jobs list --status failed", "lookalike jobs list --kind reindex --limit 5")
@jobs.command("list")
@click.option("--status", type=click.Choice([status.value for status in JobStatus]), help="failed: the dead letters.")
@click.option("--kind", type=click.Choice([kind.value for kind in JobKind]))
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@json_option
@report_errors
def jobs_list(status: str | None, kind: str | None, limit: int, as_json: bool) -> None:
    """Jobs of every key, newest first."""
    asked_status, asked_kind = JobStatus(status) if status else None, JobKind(kind) if kind else None
    found: list[Job] = []
    cursor = None
    listing = JobListing(running_redis(), n_replicas=load_settings().redis_replicas)
    while len(found) < limit:
        page = listing.page(
            owner=None, limit=min(200, limit - len(found)), status=asked_status, kind=asked_kind, cursor=cursor
        )
        found += page.jobs
        if (cursor := page.cursor) is None:
            break
    print_facts(as_json, {"jobs": [_facts(job) for job in found]}, "\n".join(map(_line, found)) or "no such jobs")


@with_examples("lookalike jobs show JOB_ID", "lookalike jobs show JOB_ID --json")
@jobs.command("show")
@click.argument("job_id")
@json_option
@report_errors
def jobs_show(job_id: str, as_json: bool) -> None:
    """One job."""
    job = running_jobs().get(job_id)
    print_facts(as_json, _facts(job), _line(job))


@with_examples("lookalike jobs retry JOB_ID")
@jobs.command("retry")
@click.argument("job_id")
@json_option
@report_errors
def jobs_retry(job_id: str, as_json: bool) -> None:
    """Submit the failed job JOB_ID again, as a new job."""
    settings = load_settings()
    admission = Admission(settings.max_queued, settings.max_queued_per_key)
    again = running_jobs().retry(job_id, admission=admission).job
    KeyRing(running_redis()).record(_user(), "jobs.retry", job_id)
    dispatch(again)
    print_facts(as_json, _facts(again), f"submitted again as {again.id}")


@with_examples("lookalike jobs cancel JOB_ID")
@jobs.command("cancel")
@click.argument("job_id")
@json_option
@report_errors
def jobs_cancel(job_id: str, as_json: bool) -> None:
    """Cancel the job JOB_ID."""
    job = running_jobs().cancel(job_id)
    KeyRing(running_redis()).record(_user(), "jobs.cancel", job_id)
    print_facts(as_json, _facts(job), _line(job))


def _user() -> str:
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):  # a container's user without a name
        return "cli"


def _facts(job: Job) -> dict[str, object]:
    return {
        "id": job.id,
        "kind": job.kind,
        "status": job.status,
        "owner": job.owner,
        "created_at": when(job.created_at),
        "attempt": job.attempt,
        "error": job.error.model_dump() if job.error else None,
    }


def _line(job: Job) -> str:
    error = f"  {job.error.code}: {job.error.detail}" if job.error else ""
    return f"{job.id}  {job.kind:<13}{job.status:<10}{when(job.created_at)}  attempt {job.attempt}{error}"
