"""List, promote and roll back versions of the index, for the API and the command line, by their manifests alone."""

from pydantic import Field

from shared.artifacts import Location
from shared.artifacts.snapshots import IndexManifest, index_store, live_fingerprint, read_index_manifest
from shared.artifacts.store import ANY, ArtifactStore
from shared.errors import IndexDamaged, IndexMissing, PromotionRefused, VersionNotFound
from shared.jobs.reindex_contract import ReindexCounts, ReindexMode, ReindexReport, SnapshotQuality
from shared.jobs.view import Timestamp, View


class ReportSummary(View):
    """What a reindex found, in short."""

    mode: ReindexMode
    counts: ReindexCounts
    quality: SnapshotQuality
    gates_failed: list[str]


class VersionView(View):
    """One version of the index."""

    version: str
    live: bool
    promoted_at: Timestamp | None = Field(description="when it went live last, as far back as is remembered")
    bytes: int = Field(description="on disk")
    problem: str | None = Field(description="why it cannot be used; then what follows is null")
    built_at: str | None
    count: int | None = Field(description="photos")
    catalogue: str | None
    model_fingerprint: str | None
    report: ReportSummary | None = Field(description="null as well where no reindex made it")
    links: dict[str, str] = Field(description="report; promote, unless it is live")


class VersionReport(View):
    """A version and the whole report of the reindex that made it."""

    version: VersionView
    report: ReindexReport | None


def list_versions(storage: Location, *, prefix: str = "") -> list[VersionView]:
    """Every version, newest first, with links below the path prefix of the service."""
    store = index_store(storage)
    found = []
    for version in reversed(store.versions()):
        try:
            found.append(_view(store, version, prefix))
        except VersionNotFound:
            continue  # pruned meanwhile
    return found


def show_version(storage: Location, version: str, *, prefix: str = "") -> VersionReport:
    """One version with its report, and links below the path prefix of the service.

    Raises:
        VersionNotFound: there is none of that name.
    """
    store = index_store(storage)
    shown = _view(store, version, prefix)
    return VersionReport(version=shown, report=None if shown.problem else read_index_manifest(store, version).report)


def promote_version(storage: Location, version: str) -> None:
    """Make a version live. Its files are left to the workers to verify: they keep the old one if anything is wrong.

    Raises:
        VersionNotFound: there is none of that name.
        PromotionRefused: it is of another model than the live one, or its manifest is damaged.
    """
    store = index_store(storage)
    _require_usable(storage, _view(store, version))
    store.promote(version)


def roll_back(storage: Location, *, live: str | None = None) -> str:
    """Make live what was live before, and return its name.

    Args:
        live: refuse unless this is the live version, so that a call that is repeated goes back once.

    Raises:
        PromotionRefused: there is nothing to go back to, or as `promote_version`.
    """
    store = index_store(storage)
    history = store.history()
    if previous := store.previous():
        _require_usable(storage, _view(store, previous))
    # What was looked at is what is gone back to: nobody has promoted anything meanwhile.
    return store.rollback(expected=live or (history[-1].version if history else ANY))


def _require_usable(storage: Location, view: VersionView) -> None:
    if view.problem:
        raise PromotionRefused(view.problem)
    wanted = live_fingerprint(storage)
    if wanted is not None and view.model_fingerprint != wanted:
        raise PromotionRefused(
            f"{view.version} was built by model {(view.model_fingerprint or '')[:12]}, the live model is {wanted[:12]}"
        )


def _view(store: ArtifactStore, version: str, prefix: str = "") -> VersionView:
    manifest: IndexManifest | None = None
    problem: str | None = None
    try:
        size = store.n_bytes(version)
        manifest = read_index_manifest(store, version)
    except IndexDamaged as exc:
        problem = str(exc)
    except (IndexMissing, FileNotFoundError) as exc:
        raise VersionNotFound(f"the index has no version {version[:100]!r}") from exc
    history = store.history()
    live = bool(history) and history[-1].version == version
    at = f"{prefix}/v1/index/versions/{version}"
    report = manifest.report if manifest else None
    return VersionView(
        version=version,
        live=live,
        promoted_at=next((entry.at for entry in reversed(history) if entry.version == version), None),
        bytes=size,
        problem=problem,
        built_at=manifest.built_at if manifest else None,
        count=manifest.count if manifest else None,
        catalogue=manifest.catalogue if manifest else None,
        model_fingerprint=manifest.fingerprint if manifest else None,
        report=_summary(report) if report else None,
        links={"report": f"{at}/report"} | ({} if live else {"promote": f"{at}/promote"}),
    )


def _summary(report: ReindexReport) -> ReportSummary:
    failed = [gate.name for gate in report.gates if not gate.passed]
    return ReportSummary(mode=report.mode, counts=report.counts, quality=report.new, gates_failed=failed)
