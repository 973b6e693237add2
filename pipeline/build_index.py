"""Catalogue -> promoted model bundle and index snapshot; what is already there and fits is kept."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.clean_tables import Catalogue, read_catalogue
from pipeline.embed import Embedded, run_over_photos, say_unusable
from pipeline.locks import exclusive
from shared.errors import ArtifactError, CatalogueUnusable
from shared.settings import Backbone, Settings
from shared.vision.bundle import ModelBundle, bundle_store, open_bundle
from shared.vision.embedder import Embeddings
from shared.vision.index import index_store, open_snapshot, write_snapshot

DEMO = "demo-catalogue"
_NAMED_CATALOGUE = "catalogue"  # file of the home that holds the path of the catalogue used last

Say = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """What an installation serves now."""

    bundle_version: str
    index_version: str
    count: int
    catalogue: str
    backbone: str
    notice: str | None
    metrics: dict[str, float | int]
    built: bool  # False: everything was already there


def prepare(settings: Settings, say: Say, *, rebuild_index: bool = False) -> Prepared:
    """Make sure that a verified bundle and a verified index of the wanted catalogue are live.

    With no catalogue named, what is live stays, and where it must be built again, the one named last is read. The demo
    catalogue is drawn only where none was ever named.

    Args:
        say: receives one line for each thing a person should know.
        rebuild_index: embed every photo again even if nothing changed.

    Raises:
        CatalogueUnusable, WeightsUnusable: what is wrong and what to do.
    """
    busy = f"another process is building in {settings.home}; wait for it"
    with exclusive(settings.home / "build.lock", busy):
        bundle = _live_bundle(settings, say)
        keep = settings.catalogue is None and not rebuild_index
        if keep and bundle and (live := _prepared(settings, bundle, say)):
            return live
        catalogue = _catalogue(settings, say)
        if bundle is None or not _fits(bundle, catalogue, say):
            from pipeline.build_bundle import build_bundle  # heavy, and not needed where everything is already built

            bundle, embedded = build_bundle(settings, catalogue, say)
        elif not rebuild_index and (live := _prepared(settings, bundle, say, catalogue)):
            return live
        else:
            embedded = embed_catalogue(settings, bundle, catalogue, say)
        write_index(settings, bundle, catalogue, embedded, say)
        done = _prepared(settings, bundle, say, built=True)
        assert done is not None  # it was just written for this bundle
        return done


def embed_catalogue(settings: Settings, bundle: ModelBundle, catalogue: Catalogue, say: Say) -> Embedded:
    """Run the bundle over every photo of the catalogue."""
    from shared.vision.runtimes import open_embedder

    embedder = open_embedder(bundle, threads=settings.threads)
    photos, batches, unusable = run_over_photos(
        catalogue.photos, bundle.manifest.preprocess, embedder.embed, desc="embeddings"
    )
    say_unusable(unusable, say)
    vectors, scores = (np.concatenate(part) for part in zip(*batches, strict=True))
    return Embedded(photos, Embeddings(vectors, scores))


def write_index(settings: Settings, bundle: ModelBundle, catalogue: Catalogue, embedded: Embedded, say: Say) -> str:
    """Write the snapshot, open it as a worker would, and only then promote it."""
    store = index_store(settings.home)
    version = write_snapshot(
        store,
        embedded.photos,
        embedded.embeddings,
        fingerprint=bundle.manifest.fingerprint,
        catalogue=catalogue.name,
        catalogue_digest=catalogue.digest,
    )
    open_snapshot(store, fingerprint=bundle.manifest.fingerprint, version=version)
    store.promote(version)
    say(f"index {version}: {len(embedded.photos)} photos of {catalogue.name}")
    return version


def catalogue_directory(settings: Settings) -> Path:
    """The catalogue that is named, else the one used last, else the demo's place, drawn or not.

    Raises:
        CatalogueUnusable: the one used last is gone.
    """
    named = settings.home / _NAMED_CATALOGUE
    if settings.catalogue is not None or not named.is_file():
        return settings.catalogue or settings.home / DEMO
    directory = Path(named.read_text().strip())
    if not directory.is_dir():
        raise CatalogueUnusable(f"the catalogue used last, {directory}, is gone; name one with CATALOGUE=DIR")
    return directory


def _catalogue(settings: Settings, say: Say) -> Catalogue:
    named = settings.home / _NAMED_CATALOGUE
    directory = catalogue_directory(settings)
    if directory == settings.home / DEMO:
        _draw_demo(directory, say)
    catalogue = read_catalogue(directory)
    if directory == settings.home / DEMO:
        named.unlink(missing_ok=True)
    else:
        named.write_text(f"{directory}\n")
    say(f"catalogue {catalogue.name}: {catalogue.n_listings} listings, {len(catalogue.photos)} labelled photos")
    say_unusable(catalogue.unusable, say)
    return catalogue


def _draw_demo(directory: Path, say: Say) -> None:
    """The demo catalogue, drawn the first time."""
    if not directory.is_dir():
        from pipeline.demo import generate
        from pipeline.embed import progress_bar

        for leftover in directory.parent.glob(f".{DEMO}.*.tmp"):  # of a run that was killed while it drew
            shutil.rmtree(leftover, ignore_errors=True)
        say("no CATALOGUE given: drawing a demo catalogue (403 listings, 806 photos)")
        generate(directory, progress=lambda listings: progress_bar(listings, total=403, desc="drawing"))


def _live_bundle(settings: Settings, say: Say) -> ModelBundle | None:
    """The current bundle, unless it is damaged or another backbone or weights file is asked for."""
    try:
        store = bundle_store(settings.home)
        if store.current() is None:
            return None
        bundle = open_bundle(store)
    except ArtifactError as exc:
        say(f"rebuilding the model bundle: {exc}")
        return None
    if settings.backbone not in (Backbone.AUTO, bundle.manifest.backbone):
        say(f"rebuilding the model bundle: {settings.backbone} is wanted, {bundle.manifest.backbone} is live")
        return None
    if settings.weights is not None:
        from pipeline.weights import source_of_file

        if (source := source_of_file(settings.weights)) != bundle.manifest.weights:
            say(f"rebuilding the model bundle: {source} is wanted, {bundle.manifest.weights} is live")
            return None
    return bundle


def _fits(bundle: ModelBundle, catalogue: Catalogue, say: Say) -> bool:
    """Whether the head was fitted on this catalogue or an earlier state of it, or is not ours to fit."""
    if bundle.manifest.head_came_with_weights:
        return True
    listings = {photo.listing_id for photo in catalogue.photos}
    if 2 * len(listings & bundle.fitted_on) >= len(listings):
        return True
    say(f"rebuilding the model bundle: it was fitted on {bundle.manifest.catalogue}, not on {catalogue.name}")
    return False


def _prepared(
    settings: Settings, bundle: ModelBundle, say: Say, catalogue: Catalogue | None = None, *, built: bool = False
) -> Prepared | None:
    """What is live, if the current index is whole, of this bundle and, where one is given, of this catalogue."""
    store = index_store(settings.home)
    try:
        if store.current() is None:
            return None
        snapshot = open_snapshot(store, fingerprint=bundle.manifest.fingerprint)
    except ArtifactError as exc:
        say(f"rebuilding the index: {exc}")
        return None
    if catalogue is not None and snapshot.manifest.catalogue_digest != catalogue.digest:
        say("rebuilding the index: the catalogue has changed")
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
    )
