"""`lookalike prepare`, `index` and `schedule`: build the index, manage its versions, show the reindex schedule."""

import dataclasses
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.common import (
    backbone_option,
    catalogue_option,
    json_option,
    print_facts,
    print_progress,
    report_errors,
    running_jobs,
    running_redis,
    when,
)
from pipeline.cli.completion import index_versions
from pipeline.cli.help import with_examples
from pipeline.cli.reindex import run_reindex
from pipeline.cli.search import shown_number
from shared.artifacts import Location
from shared.artifacts.home import catalogue_location
from shared.artifacts.snapshots import PHOTOS, bundle_store, index_store, read_index_manifest
from shared.artifacts.versions import VersionView, list_versions, promote_version, roll_back, show_version
from shared.attributes.schema import Attribute
from shared.errors import IndexMissing, ReindexRunning
from shared.jobs.reindex_contract import ReindexRequest
from shared.schedule.cron import next_slot
from shared.schedule.slots import Schedule
from shared.settings import Settings, load_settings

if TYPE_CHECKING:  # heavy: only what builds needs it
    from pipeline.building.index import Prepared

_VALUES_SHOWN = 5


@with_examples("lookalike prepare", "lookalike prepare --catalogue /data/listings --backbone resnet50")
@click.command()
@catalogue_option
@backbone_option
@click.option(
    "--by-service", is_flag=True, help="Where the catalogue has changed, have the running service reindex it."
)
@json_option
@report_errors
def prepare(catalogue: Path | None, backbone: str | None, by_service: bool, as_json: bool) -> None:
    """Make the model bundle and the index where they are missing or do not fit the catalogue; start nothing."""
    settings = load_settings(catalogue=catalogue, backbone=backbone)
    if by_service:
        catalogue_location(settings)  # raises where the one used last is not mounted any more
    if _prepare(settings, as_json, keep_outdated=by_service).outdated:
        print_progress("the catalogue has changed: the running service reindexes it")
        with suppress(ReindexRunning):
            run_reindex(running_jobs(), ReindexRequest(), wait=False)


@click.group()
def index() -> None:
    """Build and check the index of the catalogue, and move between its versions."""


@with_examples("lookalike index build", "lookalike index build --catalogue /data/listings")
@index.command("build")
@catalogue_option
@backbone_option
@json_option
@report_errors
def index_build(catalogue: Path | None, backbone: str | None, as_json: bool) -> None:
    """Embed every photo of the catalogue anew and promote the snapshot; makes the model bundle if there is none."""
    _prepare(load_settings(catalogue=catalogue, backbone=backbone), as_json, rebuild_index=True)


@with_examples("lookalike index list", "lookalike index list --json | jq -r '.versions[] | select(.live) | .version'")
@index.command("list")
@json_option
@report_errors
def index_list(as_json: bool) -> None:
    """Every version, newest first."""
    found = list_versions(load_settings().storage)
    facts = {"versions": [version.model_dump(mode="json") for version in found]}
    print_facts(as_json, facts, "\n".join(map(_line, found)) or "no versions yet: `lookalike prepare` makes one")


@with_examples("lookalike index show", "lookalike index show VERSION --json | jq .report")
@index.command("show")
@click.argument("version", required=False, shell_complete=index_versions)
@json_option
@report_errors
def index_show(version: str | None, as_json: bool) -> None:
    """VERSION, or the live one, with its attributes and the report of the reindex that made it."""
    storage = load_settings().storage
    found = show_version(storage, version or _live(storage))
    lines = [_line(found.version)]
    if not found.version.problem and (place := _in_milvus(storage, found.version.version)):
        lines.append(f"  {place}")
    facts = found.model_dump(mode="json")
    if not found.version.problem:
        attributes = read_index_manifest(index_store(storage), found.version.version).attributes
        facts["attributes"] = [attribute.model_dump(mode="json") for attribute in attributes]
        lines += _attribute_lines(storage, found.version.version, attributes)
    if report := found.report:
        lines += [f"  {'passed' if gate.passed else 'FAILED'}  {gate.name}: {gate.detail}" for gate in report.gates]
        lines += [f"  {name}: {count}" for name, count in report.counts if count]
        lines += [f"  left out: {count} x {reason}" for reason, count in sorted(report.reasons.items())]
        lines += [f"  {seconds:.1f} s {stage}" for stage, seconds in report.timings_s.items()]
    print_facts(as_json, facts, "\n".join(lines))


def _attribute_lines(storage: Location, version: str, attributes: Sequence[Attribute]) -> list[str]:
    """A line for each attribute: type, share of the listings that have it, range or most frequent values."""
    from shared.index.metadata.rows import PhotoTable

    if not attributes:
        return []
    n_listings = PhotoTable(index_store(storage).file(version, PHOTOS).parent).n_listings()
    lines = []
    for one in attributes:
        found = ", ".join(f"{value.value} {value.count}" for value in one.values[:_VALUES_SHOWN])
        if one.n_values > _VALUES_SHOWN:
            found += f", … ({one.n_values} values)"
        if one.quantiles:
            ends = (shown_number(number, one.type) for number in (one.quantiles[0], one.quantiles[-1]))
            found = f"{' to '.join(ends)} {', '.join(one.currencies)}".rstrip()
        share = one.n_listings / max(1, n_listings)
        lines.append(f"  {one.type.value:8}  {share:4.0%}  {one.name}" + (f": {found}" if found else ""))
    return [f"  attributes of {n_listings} listings", *lines]


def _in_milvus(storage: Location, version: str) -> str | None:
    """Name the Milvus collection of a version; None if its vectors are in files."""
    from shared.index.milvus.server import alias_of

    store = index_store(storage)
    facts = read_index_manifest(store, version).index
    if not facts or not facts.collection:
        return None
    return f"vectors in Milvus: {facts.collection}; the live one is {alias_of(store.place)}"


@with_examples("lookalike index promote VERSION")
@index.command("promote")
@click.argument("version", shell_complete=index_versions)
@json_option
@report_errors
def index_promote(version: str, as_json: bool) -> None:
    """Check every file of VERSION and make it live; a running service takes it up."""
    storage = load_settings().storage
    show_version(storage, version)
    index_store(storage).verify(version)
    promote_version(storage, version)
    print_facts(as_json, {"live": version}, f"{version} is live")


@with_examples("lookalike index rollback")
@index.command("rollback")
@json_option
@report_errors
def index_rollback(as_json: bool) -> None:
    """Make live what was live before; a second time goes back two."""
    version = roll_back(load_settings().storage)
    print_facts(as_json, {"live": version}, f"{version} is live again")


@with_examples("lookalike index verify", "lookalike index verify VERSION")
@index.command("verify")
@click.argument("version", required=False, shell_complete=index_versions)
@json_option
@report_errors
def index_verify(version: str | None, as_json: bool) -> None:
    """Check every file of VERSION, or of the live index, and of the live bundle, and that they belong together."""
    from shared.index.milvus.server import open_server
    from shared.index.snapshot import open_snapshot
    from shared.model.bundle import open_bundle

    settings = load_settings()
    bundle = open_bundle(bundle_store(settings.storage))
    snapshot = open_snapshot(
        index_store(settings.storage),
        fingerprint=bundle.manifest.fingerprint,
        version=version or _live(settings.storage),
        server=open_server(settings),
    )
    facts = {
        "ok": True,
        "index_version": snapshot.version,
        "bundle_version": bundle.version,
        "count": len(snapshot),
        "fingerprint": bundle.manifest.fingerprint,
    }
    print_facts(as_json, facts, f"whole: index {snapshot.version} ({len(snapshot)} photos), bundle {bundle.version}")


@with_examples("lookalike index prune --keep 2")
@index.command("prune")
@click.option("--keep", type=click.IntRange(1), help="Default: LOOKALIKE_KEEP_SNAPSHOTS.")
@json_option
@report_errors
def index_prune(keep: int | None, as_json: bool) -> None:
    """Remove old versions, but for the last ones and those a rollback comes by."""
    from shared.index.drafts import prune_index
    from shared.index.milvus.server import open_server

    settings = load_settings()
    removed = prune_index(index_store(settings.storage), keep or settings.keep_snapshots, open_server(settings))
    text = "\n".join(f"removed {version}" for version in removed)
    print_facts(as_json, {"removed": removed}, text or "nothing to remove")


@click.group()
def schedule() -> None:
    """When the running service reindexes by itself."""


@with_examples("lookalike schedule show")
@schedule.command("show")
@json_option
@report_errors
def schedule_show(as_json: bool) -> None:
    """The expression the workers keep, its next slot, and the last one with its job."""
    found = Schedule(running_redis(), running_jobs())
    last = found.last()
    if last is None:
        print_facts(as_json, {"cron": None}, "no schedule: LOOKALIKE_REINDEX_CRON is not set")
        return
    following = when(next_slot(last.cron, found.now()))
    taken = {"last": when(last.slot), "job": last.job} if last.job else {"last": None, "job": None}
    last_run = f"{taken['last']}  job {last.job}" if last.job else "none"
    text = f"{last.cron}  (UTC)\nnext  {following}\nlast  {last_run}"
    print_facts(as_json, {"cron": last.cron, "next": following, **taken}, text)


def _prepare(
    settings: Settings, as_json: bool, *, rebuild_index: bool = False, keep_outdated: bool = False
) -> "Prepared":
    from pipeline.building.index import prepare as make

    done = make(settings, print_progress, rebuild_index=rebuild_index, keep_outdated=keep_outdated)
    print_facts(as_json, dataclasses.asdict(done), f"{done.index_version}: {done.count} photos of {done.catalogue}")
    return done


def _live(storage: Location) -> str:
    version = index_store(storage).current()
    if version is None:
        raise IndexMissing("no version is live yet; `lookalike prepare` makes one")
    return version


def _line(version: VersionView) -> str:
    mark = "*" if version.live else " "
    if version.problem:
        return f"{mark} {version.version}  unusable: {version.problem}"
    size = f"{version.bytes / 1e6:.1f} MB"
    contents = (
        f"{version.count:9d} photos  {size:>10s}  model {(version.model_fingerprint or '')[:12]}  {version.catalogue}"
    )
    failed = version.report.gates_failed if version.report else []
    return f"{mark} {version.version}  {contents}" + (f"  failed: {', '.join(failed)}" if failed else "")
