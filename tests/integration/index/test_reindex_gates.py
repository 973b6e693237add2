"""New versions of a small drawn catalogue with the real network: ordinary changes go live, wrong embeddings do not."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.building.embed import decoded_batches
from shared.artifacts.snapshots import index_store, read_index_manifest
from shared.catalogue.categories import CataloguePhoto
from shared.catalogue.tables import read_catalogue
from shared.changes.overrides import compact
from shared.index.snapshot import open_snapshot
from shared.jobs.reindex_contract import ReindexMode, ReindexReport, ReindexRequest
from shared.model.bundle import ModelBundle, bundle_store, open_bundle
from shared.model.embedder import Embedder, Embeddings
from shared.model.runtimes import TorchEmbedder, open_embedder
from shared.photos.images import Pixels
from shared.reindex.build import Build, build_snapshot, decide
from shared.reindex.embedding_cache import EmbeddingCache, Shard, joined, shard_name
from shared.reindex.plan import make_plan
from tests.conftest import encode, noise_image
from tests.support.installation import Installation

PASSED = (True, "every gate was passed")


def as_it_is(pixels: Pixels) -> Pixels:
    return pixels


def embedded(
    photos: Sequence[CataloguePhoto], embedder: Embedder, see: Callable[[Pixels], Pixels], **preprocess: object
) -> Embeddings:
    spec = embedder.manifest.preprocess.model_copy(update=preprocess)
    return joined([embedder.embed(see(pixels)) for _, pixels in decoded_batches(photos, spec, {}, desc="photos")])


def reindexed(
    installation: Installation,
    *,
    mode: ReindexMode = ReindexMode.CHANGED,
    new_model: bool = False,
    embedder: Embedder | None = None,
    see: Callable[[Pixels], Pixels] = as_it_is,
    **preprocess: object,
) -> tuple[ReindexReport, bool, str]:
    """The report of the next version, whether it would go live, and why; it is not promoted.

    Args:
        installation: with the catalogue as it is now.
        mode: what to embed.
        new_model: the embeddings are said to be another model's.
        embedder: instead of that of the bundle.
        see: what becomes of the pixels before they are embedded.
        preprocess: other than the bundle says.
    """
    store = index_store(installation.home)
    bundle = open_bundle(bundle_store(installation.home))
    live = open_snapshot(store, fingerprint=bundle.manifest.fingerprint)
    if new_model:
        bundle = replace(bundle, manifest=bundle.manifest.model_copy(update={"fingerprint": "f" * 64}))
    fingerprint = bundle.manifest.fingerprint
    catalogue = read_catalogue(installation.catalogue)
    compacted = compact(catalogue.photos, {}, (), storage=installation.home, fingerprint=fingerprint)
    plan = make_plan(catalogue, compacted, live, fingerprint=fingerprint, mode=mode, compacted_through="0-0")
    cache, shards = EmbeddingCache(installation.home, fingerprint, "test"), []
    if plan.missing:
        contents = [photo.sha256 for photo in plan.missing]
        embeddings = embedded(plan.missing, embedder or open_embedder(bundle), see, **preprocess)
        cache.write(shard_name(contents), Shard(contents, embeddings, {}))
        shards.append(shard_name(contents))
    request = ReindexRequest.model_validate({"mode": mode})
    report = read_index_manifest(
        store, build_snapshot(store, Build(plan, bundle, live, cache, tuple(shards), {}, request))
    ).report
    assert report is not None
    return report, *decide(report, request)


@pytest.fixture
def installation(built: Installation, tmp_path: Path) -> Installation:
    return built.copy(tmp_path)


def change_table(installation: Installation, name: str, change: Callable[[list[str]], list[str]]) -> None:
    """Change the rows below a table's header."""
    path = installation.catalogue / name
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *change(rows)]) + "\n")


def add_listings(installation: Installation, n: int, photo: Callable[[int], bytes]) -> None:
    """Append listings of one photo, in the columns that the tables have."""
    tables = {name: (installation.catalogue / name).read_text() for name in ("Products.csv", "Images.csv")}
    product, image = (tables[name].splitlines()[0].split(",") for name in tables)
    for i in range(n):
        cells = {"id": f"new-{i}", "product_id": f"new-{i}", "category": "Appliances"}
        tables["Products.csv"] += ",".join(cells.get(column, "1") for column in product) + "\n"
        tables["Images.csv"] += ",".join(cells.get(column, "1") for column in image) + "\n"
        installation.photo(f"new-{i}").write_bytes(photo(i))
    for name, text in tables.items():
        (installation.catalogue / name).write_text(text)


def test_new_listings_go_live(installation: Installation) -> None:
    add_listings(installation, 8, lambda i: encode(noise_image(i)))
    assert reindexed(installation)[1:] == PASSED


def test_listings_without_a_picture_go_live(installation: Installation) -> None:
    add_listings(installation, 12, lambda i: encode(noise_image(1)))
    report, *outcome = reindexed(installation)
    assert (report.counts.new, *outcome) == (12, *PASSED)
    assert any("left out: one photo of 12 listings, such as new-0" in gate.detail for gate in report.gates)


def test_other_rows_order_and_spelling_of_categories_go_live(installation: Installation) -> None:
    change_table(installation, "Images.csv", lambda rows: rows[::-1])
    change_table(
        installation,
        "Products.csv",
        lambda rows: [row.replace("Home & Garden", "Home & Garden / Other") for row in rows],
    )
    assert reindexed(installation)[1:] == PASSED


def test_everything_embedded_anew_goes_live(installation: Installation) -> None:
    assert reindexed(installation, mode=ReindexMode.ALL)[1:] == PASSED
    assert reindexed(installation, new_model=True)[1:] == PASSED


@pytest.mark.parametrize(
    "wrong",
    [
        {"see": lambda pixels: np.ascontiguousarray(pixels[..., ::-1])},
        {"fit": "crop"},
        {"fit": "stretch"},
        {"fill": 128},
    ],
    ids=["channels swapped", "cropped", "stretched", "grey bars"],
)
def test_photos_embedded_otherwise_than_the_model_says_are_refused(
    installation: Installation, wrong: dict[str, object]
) -> None:
    _, promoted, decision = reindexed(installation, mode=ReindexMode.ALL, **wrong)  # type: ignore[arg-type]
    assert not promoted
    assert "same_embeddings: " in decision
    assert "cause: model: other weights or preprocessing" in decision


def test_a_model_of_shuffled_weights_is_refused_every_night(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    bundle = open_bundle(bundle_store(installation.home))
    weights = {name: rng.permuted(values.ravel()).reshape(values.shape) for name, values in bundle.tensors().items()
               if values.ndim > 1}  # fmt: skip
    with monkeypatch.context() as patch:
        whole = bundle.tensors() | weights
        patch.setattr(ModelBundle, "tensors", lambda bundle: whole)
        embedder = TorchEmbedder(bundle)
    for night in range(2):
        add_listings(installation, 4 * night, lambda i: encode(noise_image(i)))
        _, promoted, decision = reindexed(installation, new_model=True, embedder=embedder)
        assert not promoted
        assert "sibling_recall_at_4: " in decision
        assert "cause: model: the embeddings of the new model find less" in decision
        shutil.rmtree(installation.home / "embeddings")
