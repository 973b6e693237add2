"""Make sure that a model bundle and an index snapshot of a catalogue are live; what fits already is kept."""

import secrets
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from pipeline.building.embed import EmbeddedPhotos, decoded_batches, report_unusable, run_over_photos
from pipeline.local.locks import exclusive
from shared.artifacts.home import DEMO, catalogue_location, remember_catalogue
from shared.artifacts.snapshots import index_store, live_attributes, read_index_manifest
from shared.artifacts.store import ArtifactStore
from shared.catalogue.categories import OLDER_CATEGORIES, CataloguePhoto
from shared.catalogue.choice import CategoryChoice
from shared.catalogue.fetching import fetch_with
from shared.catalogue.tables import Catalogue, read_catalogue
from shared.changes.overrides import compact, last_overrides
from shared.errors import ArtifactError, CatalogueUnusable, IndexDamaged, IndexUnavailable
from shared.index.drafts import prune_index
from shared.index.milvus.server import MilvusServer, open_server
from shared.index.snapshot import lies_in, open_snapshot
from shared.index.vector_index import VectorIndex
from shared.jobs.reindex_contract import Promotion, ReindexMode, ReindexRequest
from shared.model.bundle import ModelBundle, Runtime, bundle_store, known_categories, open_bundle
from shared.model.embedder import Cores, Embedder
from shared.model.references import verify_embeddings
from shared.model.runtimes import open_embedder
from shared.progress import ReportProgress, progress_bar
from shared.reindex.build import Build, build_snapshot, decide, left_out, stored_as
from shared.reindex.embedding_cache import ANY_REINDEX, EmbeddingCache, Shard, joined, shard_name
from shared.reindex.plan import make_plan
from shared.reindex.quality import losses
from shared.settings import Backbone, Settings

_CATEGORIES_SHOWN = 8
_FEW_PHOTOS = 5
_BATCHES_KEPT = 64  # at a time, so that little is lost when the process is killed


@dataclass(frozen=True)
class Prepared:
    """The live bundle and index of an installation.

    Attributes:
        count: photos in the index.
        catalogue: its name.
        notice: what a person should know of the bundle, if anything.
        metrics: of the bundle's evaluation.
        built: whether anything had to be built.
        outdated: whether the index is of an earlier state of the catalogue.
        photo: file of the index's first photo; relative where it is in the catalogue.
        runtime: that the bundle runs in.
    """

    bundle_version: str
    index_version: str
    count: int
    catalogue: str
    backbone: str
    notice: str | None
    metrics: dict[str, float | int]
    built: bool
    outdated: bool
    photo: str
    runtime: Runtime


def prepare(
    settings: Settings, report_progress: ReportProgress, *, rebuild_index: bool = False, keep_outdated: bool = False
) -> Prepared:
    """Make sure that a verified bundle and a verified index of the wanted catalogue are live.

    With no catalogue named, what is live stays, and where it must be built again, the one named last is read. The demo
    catalogue is drawn only where none was ever named.

    Args:
        settings: catalogue, backbone, weights and storage.
        report_progress: receives one line for each step.
        rebuild_index: embed every photo again even if nothing changed.
        keep_outdated: leave an index of an earlier state of the catalogue as it is, for the running service to reindex.

    Raises:
        CannotStart: another process is building in this home.
        CatalogueUnusable, WeightsUnusable: what is wrong and what to do.
    """
    busy = f"another process is building in {settings.home}; wait for it"
    with exclusive(settings.home / "build.lock", busy):
        bundle = _live_bundle(settings, report_progress, verify=rebuild_index)
        keep = settings.catalogue is None and not rebuild_index
        if keep and bundle and (live := _current_state(settings, bundle, report_progress)):
            return live
        catalogue = _read_catalogue(settings, report_progress, bundle)
        if bundle is None or not _is_fitted_on(bundle, catalogue, report_progress):
            if bundle is not None:  # its categories are another catalogue's
                catalogue = _read_catalogue(settings, report_progress)
            from pipeline.building.bundle import build_bundle  # heavy, and not needed where everything is already built

            bundle, embedded = build_bundle(settings, catalogue, report_progress)
            build_index(settings, bundle, catalogue, report_progress, embedded=embedded)
        elif not rebuild_index and (
            live := _current_state(settings, bundle, report_progress, catalogue, keep_outdated=keep_outdated)
        ):
            return live
        else:
            build_index(settings, bundle, catalogue, report_progress, anew=rebuild_index)
        done = _current_state(settings, bundle, report_progress, built=True)
        assert done is not None  # it was just written for this bundle
        return done


def embed_catalogue(
    settings: Settings, bundle: ModelBundle, catalogue: Catalogue, report_progress: ReportProgress
) -> EmbeddedPhotos:
    """Embed every photo of a catalogue with a bundle's model; photos that cannot be decoded are reported and left out.

    Raises:
        CatalogueUnusable: not one photo can be decoded.
        EmbeddingsDiffer: on this machine the model gives other embeddings than where it was built.
    """
    embedder = _open_verified(settings, bundle)
    photos, batches, unusable = run_over_photos(
        catalogue.photos,
        bundle.manifest.preprocess,
        partial(embedder.embed, cores=Cores.STREAM),
        desc="embeddings",
        n_at_once=embedder.n_streams,
    )
    report_unusable(unusable, report_progress)
    return EmbeddedPhotos(photos, joined(batches))


def build_index(
    settings: Settings,
    bundle: ModelBundle,
    catalogue: Catalogue,
    report_progress: ReportProgress,
    *,
    embedded: EmbeddedPhotos | None = None,
    anew: bool = False,
) -> str:
    """Bring the index to the state of the catalogue, as a reindex of a running service does, and promote it.

    Args:
        bundle: the live one.
        embedded: embeddings that are known already.
        anew: embed every photo, even if its embedding is known.

    Returns:
        the new version.

    Raises:
        IndexDamaged: the new snapshot fails its quality gates; it is kept, and not promoted.
        EmbeddingsDiffer: as `embed_catalogue`.
    """
    store = index_store(settings.storage)
    server = open_server(settings)
    fence = store.take_fence()
    live = _live_snapshot(store, server)
    fingerprint = bundle.manifest.fingerprint
    # Changes that came after the live snapshot stay in their log: a running service searches them with the new one too.
    overrides, compacted_through = last_overrides(store, live.version if live else None)
    compacted = compact(
        catalogue.photos,
        overrides,
        (),
        storage=settings.storage,
        fingerprint=fingerprint,
        schema=catalogue.attributes,
    )
    mode = ReindexMode.ALL if anew else ReindexMode.CHANGED
    plan = make_plan(
        catalogue, compacted, live, fingerprint=fingerprint, mode=mode, compacted_through=compacted_through
    )
    cache = EmbeddingCache(settings.storage, fingerprint, secrets.token_hex(8) if anew else ANY_REINDEX)
    if embedded:
        _cache_embeddings(cache, embedded)
    failed: dict[str, str] = {}
    known = cache.known()
    missing = [photo for photo in plan.missing if photo.sha256 not in known]
    _embed(settings, bundle, missing, cache, failed)
    report_unusable(left_out(plan.photos, failed), report_progress)
    request = ReindexRequest(mode=mode, promote=Promotion.IF_VALID, force=True)
    shards = tuple(cache.names())
    build = Build(
        plan, bundle, live, cache, shards, failed, request, n_embedded=len(missing), vectors=stored_as(settings)
    )
    version = build_snapshot(store, build, server=server)
    snapshot = open_snapshot(store, fingerprint=fingerprint, version=version, server=server)
    assert snapshot.manifest.report is not None  # build_snapshot wrote it
    good, decision = decide(snapshot.manifest.report, request)
    if not good:
        raise IndexDamaged(f"index {version} is not promoted: {decision}")
    store.promote(version, fence=fence)
    cache.drop(shards)  # not before: a reindex of the service that has taken over needs them
    prune_index(store, settings.keep_snapshots, server)
    for loss in losses(snapshot.manifest.report.gates):
        report_progress(f"notice: {loss}")
    report_progress(f"index {version}: {len(snapshot)} photos of {catalogue.name}")
    return version


def _live_snapshot(store: ArtifactStore, server: MilvusServer | None) -> VectorIndex | None:
    """The promoted snapshot, of whatever model; None when it is not there or cannot be used."""
    try:
        if (version := store.current()) is None:
            return None
        fingerprint = read_index_manifest(store, version).fingerprint
        return open_snapshot(store, fingerprint=fingerprint, version=version, server=server)
    except ArtifactError as exc:
        if isinstance(exc, IndexUnavailable) and server:
            raise  # it is there, and perhaps answers the next time
        return None


def _embed(
    settings: Settings,
    bundle: ModelBundle,
    photos: Sequence[CataloguePhoto],
    cache: EmbeddingCache,
    failed: dict[str, str],
) -> None:
    """Embed photos into the cache group by group, so that a killed process loses one group at most."""
    if not photos:
        return
    embedder = _open_verified(settings, bundle)
    batches = decoded_batches(photos, bundle.manifest.preprocess, failed, desc="embeddings")
    while group := list(islice(batches, _BATCHES_KEPT)):
        embeddings = joined([embedder.embed(pixels) for _, pixels in group])
        _cache_embeddings(cache, EmbeddedPhotos([photo for batch, _ in group for photo in batch], embeddings))


def _open_verified(settings: Settings, bundle: ModelBundle) -> Embedder:
    """Load a bundle whose embeddings on this machine are those of the machine that it was built on."""
    embedder = open_embedder(bundle, threads=settings.threads)
    verify_embeddings(bundle, embedder)
    return embedder


def _cache_embeddings(cache: EmbeddingCache, embedded: EmbeddedPhotos) -> None:
    contents = [photo.sha256 for photo in embedded.photos]
    cache.write(shard_name(contents), Shard(contents, embedded.embeddings, {}))


def _read_catalogue(
    settings: Settings, report_progress: ReportProgress, bundle: ModelBundle | None = None
) -> Catalogue:
    """Read the wanted catalogue: with the categories of a bundle, or else with its own."""
    location = catalogue_location(settings)
    if location == settings.home / DEMO:
        _draw_demo(settings.home / DEMO, report_progress)
    known = known_categories(settings.storage) if bundle is None else bundle.manifest.categories
    types = live_attributes(settings.storage)
    wanted = CategoryChoice.by(settings, known, grow=bundle is None, attributes=types)
    fetch = fetch_with(settings, report_progress)
    try:
        catalogue = read_catalogue(location, wanted, fetch=fetch)
    except CatalogueUnusable:
        if bundle is None:
            raise
        catalogue = read_catalogue(
            location, CategoryChoice.by(settings), fetch=fetch
        )  # which the bundle was not fitted on
    remember_catalogue(settings, location)
    report_progress(
        f"catalogue {catalogue.name}: {catalogue.n_listings} listings, {len(catalogue.photos)} labelled photos"
    )
    _report_categories(catalogue, report_progress)
    report_unusable(catalogue.unusable, report_progress)
    for reason, count in sorted(Counter(row.reason for row in catalogue.odd).items()):
        report_progress(f"odd: {count} x {reason}; `lookalike clean` shows which")
    return catalogue


def _report_categories(catalogue: Catalogue, report_progress: ReportProgress) -> None:
    """Tell which categories were read from where, unless they are the older service's; and which have few photos."""
    names, source = catalogue.categories.names, catalogue.source
    if catalogue.categories != OLDER_CATEGORIES:
        some = ", ".join(names[:_CATEGORIES_SHOWN]) + (", ..." if len(names) > _CATEGORIES_SHOWN else "")
        report_progress(f"{len(names)} categories, {source}: {some}")
    counts = Counter(photo.category for photo in catalogue.photos)
    few = [f"{name} ({counts[position]})" for position, name in enumerate(names) if counts[position] < _FEW_PHOTOS]
    if few:
        some = ", ".join(few[:_CATEGORIES_SHOWN]) + (", ..." if len(few) > _CATEGORIES_SHOWN else "")
        report_progress(f"{len(few)} categories have fewer than {_FEW_PHOTOS} photos, too few to be learnt: {some}")


def _draw_demo(directory: Path, report_progress: ReportProgress) -> None:
    """Draw the demo catalogue unless it is there."""
    if not directory.is_dir():
        from pipeline.demo.catalogue import generate

        for leftover in directory.parent.glob(f".{DEMO}.*.tmp"):  # of a run that was killed while it drew
            shutil.rmtree(leftover, ignore_errors=True)
        report_progress("no CATALOGUE given: drawing a demo catalogue (403 listings, 806 photos)")
        generate(directory, progress=lambda listings: progress_bar(listings, total=403, desc="drawing"))


def _live_bundle(settings: Settings, report_progress: ReportProgress, *, verify: bool) -> ModelBundle | None:
    """The live bundle; None if it is damaged, or another backbone or weights file is asked for.

    Args:
        verify: None, too, if it gives other embeddings on this machine than where it was built.
    """
    try:
        store = bundle_store(settings.storage)
        if store.current() is None:
            return None
        bundle = open_bundle(store)
        if verify:
            _open_verified(settings, bundle)
    except ArtifactError as exc:
        report_progress(f"rebuilding the model bundle: {exc}")
        return None
    if settings.backbone not in (Backbone.AUTO, bundle.manifest.backbone):
        report_progress(
            f"rebuilding the model bundle: {settings.backbone} is wanted, {bundle.manifest.backbone} is live"
        )
        return None
    if settings.text_encoder and (words := bundle.manifest.text):
        from pipeline.training.words.sentences import source_of

        live = words.sentences.source if words.sentences else "none"
        if (wanted := source_of(settings.text_encoder)) != live:
            report_progress(f"rebuilding the model bundle: sentence encoder {wanted} is wanted, {live} is live")
            return None
    if settings.weights is not None:
        from pipeline.training.weights.loading import source_of_file

        if (source := source_of_file(settings.weights)) != bundle.manifest.weights:
            report_progress(f"rebuilding the model bundle: {source} is wanted, {bundle.manifest.weights} is live")
            return None
    return bundle


def _is_fitted_on(bundle: ModelBundle, catalogue: Catalogue, report_progress: ReportProgress) -> bool:
    """Whether the head was fitted on this catalogue or an earlier state of it, or came with the weights."""
    if catalogue.categories.names != bundle.manifest.categories:  # none of its listings is in the bundle's
        report_progress("rebuilding the model bundle: the catalogue has other categories")
        return False
    if bundle.manifest.head_came_with_weights:
        return True
    listings = {photo.listing_id for photo in catalogue.photos}
    if 2 * len(listings & bundle.split.listings) >= len(listings):
        return True
    report_progress(
        f"rebuilding the model bundle: it was fitted on {bundle.manifest.catalogue}, not on {catalogue.name}"
    )
    return False


def _current_state(
    settings: Settings,
    bundle: ModelBundle,
    report_progress: ReportProgress,
    catalogue: Catalogue | None = None,
    *,
    built: bool = False,
    keep_outdated: bool = False,
) -> Prepared | None:
    """The live bundle and index; None if the index is missing, damaged, of another bundle or of another catalogue."""
    store, server = index_store(settings.storage), open_server(settings)
    try:
        if store.current() is None:
            return None
        snapshot = open_snapshot(store, fingerprint=bundle.manifest.fingerprint, server=server)
    except ArtifactError as exc:
        if isinstance(exc, IndexUnavailable) and server:
            raise  # it is there, and perhaps answers the next time
        report_progress(f"rebuilding the index: {exc}")
        return None
    if not lies_in(snapshot.manifest, server):
        report_progress(f"rebuilding the index: its vectors belong in {settings.index}")
        return None
    outdated = catalogue is not None and not (
        snapshot.manifest.catalogue_digest == catalogue.digest
        and catalogue.attributes.is_that_of(snapshot.manifest.attributes)
    )
    if outdated and not keep_outdated:
        report_progress("rebuilding the index: the catalogue has changed")
        return None
    manifest = bundle.manifest
    return Prepared(
        bundle.version,
        snapshot.version,
        len(snapshot),
        snapshot.manifest.catalogue,
        manifest.backbone,
        manifest.notice,
        manifest.metrics,
        built,
        outdated,
        str(snapshot.photo(0).path),
        manifest.runtime,
    )
