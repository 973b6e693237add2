"""Verbs for the index: make it, renew it, see its versions, move between them. Those of `index` need no service."""

import dataclasses
import signal
import sys
from pathlib import Path

import click
from tqdm import tqdm

from pipeline.cli_common import (
    backbone_option,
    catalogue_option,
    json_option,
    print_facts,
    reported,
    running_jobs,
    running_redis,
    say,
    when,
)
from shared.cron import next_slot
from shared.errors import IndexMissing
from shared.job_view import view
from shared.jobs import Job, JobKind, JobStatus
from shared.reindex import Promotion, ReindexMode, ReindexRequest, ReindexResult
from shared.settings import Settings, load_settings
from shared.snapshots import bundle_store, index_store
from shared.store.jobs import JobStore
from shared.store.records import Admission
from shared.store.schedule import Schedule
from shared.versions import VersionView, list_versions, promote_version, roll_back, show_version

_NOT_PROMOTED = 3
_LOOK_EVERY_S = 0.5


@click.command()
@catalogue_option
@backbone_option
@json_option
@reported
def prepare(catalogue: Path | None, backbone: str | None, as_json: bool) -> None:
    """Make the model bundle and the index where they are missing or do not fit the catalogue; start nothing."""
    _prepare(load_settings(catalogue=catalogue, backbone=backbone), as_json, rebuild_index=False)


@click.command()
@click.option("--mode", type=click.Choice([m.value for m in ReindexMode]), default="changed", show_default=True)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--promote", type=click.Choice([p.value for p in Promotion]), default="if_better", show_default=True)
@click.option("--force", is_flag=True, help="Promote even when far fewer photos are left than are live.")
@click.option("--wait/--no-wait", default=None, help="Show how far it is until it ends. Default: on a terminal.")
@json_option
@reported
def reindex(mode: str, dry_run: bool, promote: str, force: bool, wait: bool | None, as_json: bool) -> None:
    """Have the running service build a new index from its catalogue, and promote it if it is as good.

    Exit code: 0 when it is live, or there was nothing to do; 1 when it failed; 3 when it was built and not promoted,
    unless that was asked for.
    """
    request = ReindexRequest(mode=ReindexMode(mode), dry_run=dry_run, promote=Promotion(promote), force=force)
    job = run_reindex(running_jobs(), request, wait=sys.stdout.isatty() if wait is None else wait)
    print_facts(as_json, view(job).model_dump(mode="json"), outcome(job))
    sys.exit(exit_code(job, request))


@click.group()
def index() -> None:
    """Build and check the index of the catalogue, and move between its versions."""


@index.command("build")
@catalogue_option
@backbone_option
@json_option
@reported
def index_build(catalogue: Path | None, backbone: str | None, as_json: bool) -> None:
    """Embed every photo of the catalogue anew and promote the snapshot; makes the model bundle if there is none."""
    _prepare(load_settings(catalogue=catalogue, backbone=backbone), as_json, rebuild_index=True)


@index.command("list")
@json_option
@reported
def index_list(as_json: bool) -> None:
    """Every version, newest first."""
    found = list_versions(load_settings().home)
    facts = {"versions": [version.model_dump(mode="json") for version in found]}
    print_facts(as_json, facts, "\n".join(map(_line, found)) or "no versions yet: `lookalike prepare` makes one")


@index.command("show")
@click.argument("version", required=False)
@json_option
@reported
def index_show(version: str | None, as_json: bool) -> None:
    """VERSION, or the live one, with the report of the reindex that made it."""
    home = load_settings().home
    found = show_version(home, version or _live(home))
    lines = [_line(found.version)]
    if report := found.report:
        lines += [f"  {'passed' if gate.passed else 'FAILED'}  {gate.name}: {gate.detail}" for gate in report.gates]
        lines += [f"  {name}: {count}" for name, count in report.counts if count]
        lines += [f"  left out: {count} x {reason}" for reason, count in sorted(report.reasons.items())]
        lines += [f"  {seconds:.1f} s {stage}" for stage, seconds in report.timings_s.items()]
    print_facts(as_json, found.model_dump(mode="json"), "\n".join(lines))


@index.command("promote")
@click.argument("version")
@json_option
@reported
def index_promote(version: str, as_json: bool) -> None:
    """Check every file of VERSION and make it live; a running service takes it up."""
    home = load_settings().home
    show_version(home, version)
    index_store(home).verify(version)
    promote_version(home, version)
    print_facts(as_json, {"live": version}, f"{version} is live")


@index.command("rollback")
@json_option
@reported
def index_rollback(as_json: bool) -> None:
    """Make live what was live before; a second time goes back two."""
    version = roll_back(load_settings().home)
    print_facts(as_json, {"live": version}, f"{version} is live again")


@index.command("verify")
@click.argument("version", required=False)
@json_option
@reported
def index_verify(version: str | None, as_json: bool) -> None:
    """Check every file of VERSION, or of the live index, and of the live bundle, and that they belong together."""
    from shared.vision.bundle import open_bundle
    from shared.vision.index import open_snapshot

    settings = load_settings()
    bundle = open_bundle(bundle_store(settings.home))
    snapshot = open_snapshot(
        index_store(settings.home), fingerprint=bundle.manifest.fingerprint, version=version or _live(settings.home)
    )
    facts = {
        "ok": True,
        "index_version": snapshot.version,
        "bundle_version": bundle.version,
        "count": len(snapshot),
        "fingerprint": bundle.manifest.fingerprint,
    }
    print_facts(as_json, facts, f"whole: index {snapshot.version} ({len(snapshot)} photos), bundle {bundle.version}")


@index.command("prune")
@click.option("--keep", type=click.IntRange(1), help="Default: LOOKALIKE_KEEP_SNAPSHOTS.")
@json_option
@reported
def index_prune(keep: int | None, as_json: bool) -> None:
    """Remove old versions, but for the last ones and those a rollback comes by."""
    settings = load_settings()
    removed = index_store(settings.home).prune(keep or settings.keep_snapshots)
    text = "\n".join(f"removed {version}" for version in removed)
    print_facts(as_json, {"removed": removed}, text or "nothing to remove")


@click.group()
def schedule() -> None:
    """When the running service reindexes by itself."""


@schedule.command("show")
@json_option
@reported
def schedule_show(as_json: bool) -> None:
    """The expression the workers keep, its next slot, and the last one with its job."""
    found = Schedule(running_redis(), running_jobs())
    last = found.last()
    if last is None:
        print_facts(as_json, {"cron": None}, "no schedule: LOOKALIKE_REINDEX_CRON is not set")
        return
    following = when(next_slot(last.cron, found.now()))
    taken = {"last": when(last.slot), "job": last.job} if last.job else {"last": None, "job": None}
    told = f"{taken['last']}  job {last.job}" if last.job else "none"
    text = f"{last.cron}  (UTC)\nnext  {following}\nlast  {told}"
    print_facts(as_json, {"cron": last.cron, "next": following, **taken}, text)


def _prepare(settings: Settings, as_json: bool, *, rebuild_index: bool) -> None:
    from pipeline.build_index import prepare as make

    done = make(settings, say, rebuild_index=rebuild_index)
    print_facts(as_json, dataclasses.asdict(done), f"{done.index_version}: {done.count} photos of {done.catalogue}")


def _live(home: Path) -> str:
    version = index_store(home).current()
    if version is None:
        raise IndexMissing("no version is live yet; `lookalike prepare` makes one")
    return version


def _line(version: VersionView) -> str:
    mark = "*" if version.live else " "
    if version.problem:
        return f"{mark} {version.version}  unusable: {version.problem}"
    size = f"{version.bytes / 1e6:.1f} MB"
    told = (
        f"{version.count:9d} photos  {size:>10s}  model {(version.model_fingerprint or '')[:12]}  {version.catalogue}"
    )
    failed = version.report.gates_failed if version.report else []
    return f"{mark} {version.version}  {told}" + (f"  failed: {', '.join(failed)}" if failed else "")


def run_reindex(jobs: JobStore, request: ReindexRequest, *, wait: bool) -> Job:
    """Submit a reindex to the running service, and watch it if it is to be waited for.

    Raises:
        ReindexRunning: there is one already.
    """
    n_queued = load_settings().max_queued
    job, _ = jobs.create(JobKind.REINDEX, request, None, admission=Admission(n_queued, n_queued), request_id="cli")
    return _watch(jobs, job) if wait else job


def _watch(jobs: JobStore, job: Job) -> Job:
    """The job once it has ended; meanwhile a bar says how far it is. Ctrl-C ends the watching, not the job."""
    stage = ""
    try:
        with tqdm(desc="queued", dynamic_ncols=True) as bar:
            while not job.status.terminal:
                job = jobs.wait(job.id, _LOOK_EVERY_S)
                if job.progress is None:
                    continue
                if job.progress.stage != stage:
                    stage = job.progress.stage
                    bar.reset()
                    bar.set_description(stage)
                bar.total, bar.n = job.progress.total, job.progress.done
                bar.refresh()
    except KeyboardInterrupt:
        say(f"reindex {job.id} goes on; `lookalike jobs cancel {job.id}` ends it")
        sys.exit(128 + signal.SIGINT)
    return job


def outcome(job: Job) -> str:
    """How a reindex stands, for people."""
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
    """0 when what was asked for is done or in hand, 1 when it failed, 3 when an index was built and is not live."""
    if not job.status.terminal:
        return 0
    if job.status is not JobStatus.SUCCEEDED or not isinstance(job.result, ReindexResult):
        return 1
    wanted = job.result.index_version is not None and request.promote is not Promotion.NEVER
    return _NOT_PROMOTED if wanted and not job.result.promoted else 0
