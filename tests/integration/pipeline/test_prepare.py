"""Catalogue -> live bundle and index with the real network: built once, rebuilt exactly when something calls for it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import redis
import torch
from click.testing import CliRunner
from PIL import Image
from torchvision.models import resnet50

from pipeline.building import index
from pipeline.cli.main import main
from pipeline.demo.catalogue import generate
from shared.artifacts.snapshots import answering_bundle, index_store
from shared.artifacts.store import ArtifactStore
from shared.errors import CatalogueUnusable, EmbeddingsDiffer, WeightsUnusable
from shared.index.snapshot import open_snapshot
from shared.index.vectors.stored_vectors import VECTORS
from shared.jobs.contract import JobKind, SearchRequest
from shared.jobs.listing import JobListing
from shared.model.bundle import WEIGHTS, ModelBundle, bundle_store, open_bundle
from shared.model.embedder import Embedder
from shared.model.runtimes import TorchEmbedder
from shared.photos.images import PreprocessSpec, decode_photo
from shared.settings import Backbone
from tests import ROOT
from tests.support.catalogues import GERMAN, draw_catalogue, drawn
from tests.support.installation import Installation
from tests.support.snapshots import write_doubting


@pytest.fixture(scope="module")
def small(built: Installation, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The same bundle over the first ten photos only: what is embedded again and again should be little."""
    installation = built.copy(tmp_path_factory.mktemp("small"))
    installation.keep_photos(10)
    installation.prepare()
    return installation


@pytest.fixture
def installation(small: Installation, tmp_path: Path) -> Installation:
    """A small installation to change at will."""
    return small.copy(tmp_path)


def live_versions(home: Path) -> tuple[str | None, str | None]:
    return bundle_store(home).current(), index_store(home).current()


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_an_empty_home_becomes_a_live_bundle_and_an_index_of_every_photo(built: Installation) -> None:
    bundle = open_bundle(bundle_store(built.home))
    snapshot = open_snapshot(index_store(built.home), fingerprint=bundle.manifest.fingerprint)
    assert bundle.manifest.backbone == Backbone.EFFICIENTNET_LITE0
    photos = list(snapshot.photos())
    expected = [(row["id"], row["product_id"]) for row in built.photo_rows()]
    assert [(photo.image_id, photo.listing_id) for photo in photos] == expected
    assert bundle.split.listings == {photo.listing_id for photo in photos}
    assert bundle.split.train.isdisjoint(bundle.split.test)
    assert bundle.split.test
    assert snapshot.manifest.catalogue == bundle.manifest.catalogue == "catalogue"


def test_the_index_holds_what_the_bundle_gives_for_each_photo(built: Installation) -> None:
    bundle = open_bundle(bundle_store(built.home))
    snapshot = open_snapshot(index_store(built.home), fingerprint=bundle.manifest.fingerprint)
    image_ids = [snapshot.photo(row).image_id for row in range(3)]
    contents = [(built.catalogue / "images" / f"{image_id}.jpg").read_bytes() for image_id in image_ids]
    embedded = TorchEmbedder(bundle).embed(np.stack([decode_photo(content, PreprocessSpec()) for content in contents]))
    for row, image_id in enumerate(image_ids):
        stored = snapshot.stored(image_id)
        # Batches of 3 and of 8 take other kernels, which sum float32 in another order.
        np.testing.assert_allclose(embedded.vectors[row], stored.vectors[0], atol=1e-5)
        np.testing.assert_allclose(embedded.scores[row], stored.scores[0], atol=1e-4)
        assert snapshot.search(embedded.vectors[row], SearchRequest(k=1))[0].image_id == image_id


def test_prepared_a_second_time_nothing_is_built(built: Installation) -> None:
    before = live_versions(built.home)
    again = built.prepare()
    assert not again.built
    assert again.count == 52
    assert (again.bundle_version, again.index_version) == live_versions(built.home) == before
    assert not built.heard("rebuilding")


def test_with_everything_in_place_torch_is_never_imported(built: Installation) -> None:
    script = (
        "import sys; from pathlib import Path; from pipeline.building.index import prepare; "
        "from shared.settings import Settings; "
        "done = prepare(Settings(home=Path(sys.argv[1]), catalogue=Path(sys.argv[2])), print); "
        "assert not done.built; assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", script, str(built.home), str(built.catalogue)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stderr


def test_where_torch_is_not_installed_a_model_that_runs_in_it_is_refused(built: Installation, tmp_path: Path) -> None:
    script = (
        "import sys; from tests.support.hidden import hide; hide('torch', 'torchvision'); "
        "from pipeline.building.index import prepare; from shared.settings import Settings; "
        "prepare(Settings.model_validate(dict(zip(('home', 'catalogue', 'runtime'), sys.argv[1:]))), print)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "new"), str(built.catalogue), "torch"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert "TorchMissing: LOOKALIKE_RUNTIME=torch needs torch" in done.stderr


def test_without_a_catalogue_what_is_live_stays(installation: Installation) -> None:
    before = live_versions(installation.home)
    shutil.rmtree(installation.catalogue)
    kept = installation.prepare(catalogue=None, backbone=Backbone.AUTO)
    assert (kept.built, kept.catalogue, kept.count) == (False, "catalogue", 10)
    assert live_versions(installation.home) == before
    assert not (installation.home / "demo-catalogue").exists()


def test_a_changed_catalogue_is_a_new_index_under_the_same_bundle(installation: Installation) -> None:
    bundle_before, index_before = live_versions(installation.home)
    installation.keep_photos(7)
    changed = installation.prepare()
    assert (changed.built, changed.count) == (True, 7)
    assert (changed.bundle_version, changed.index_version) == live_versions(installation.home)
    assert changed.bundle_version == bundle_before
    assert changed.index_version != index_before
    assert installation.heard("rebuilding the index", "changed")
    assert not installation.prepare().built


def test_by_service_an_older_index_stays_and_the_service_is_asked_to_reindex(
    installation: Installation, client: redis.Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = live_versions(installation.home)
    for name in ("home", "catalogue"):
        monkeypatch.setenv(f"LOOKALIKE_{name.upper()}", str(getattr(installation, name)))
    monkeypatch.setenv("LOOKALIKE_REDIS_URL", valkey_url)
    assert CliRunner().invoke(main, ["prepare", "--by-service"]).exit_code == 0
    assert reindexes(client) == 0
    installation.keep_photos(7)
    for _ in range(2):  # the second finds one under way
        assert CliRunner().invoke(main, ["prepare", "--by-service"]).exit_code == 0
        assert reindexes(client) == 1
    assert live_versions(installation.home) == before
    monkeypatch.delenv("LOOKALIKE_CATALOGUE")
    (installation.home / "catalogue").write_text("/nowhere\n")
    refused = CliRunner().invoke(main, ["prepare", "--by-service"])
    assert (refused.exit_code, "/nowhere, is gone" in refused.output) == (1, True)


def reindexes(client: redis.Redis) -> int:
    page = JobListing(client).page(owner=None, limit=10, status=None, kind=JobKind.REINDEX, cursor=None)
    return len(page.jobs)


def test_a_photo_replaced_under_its_old_name_is_embedded_anew(installation: Installation) -> None:
    _, index_before = live_versions(installation.home)
    one, other = (row["id"] for row in installation.photo_rows()[0:10:9])
    shutil.copy(installation.catalogue / "images" / f"{other}.jpg", installation.catalogue / "images" / f"{one}.jpg")
    after = installation.prepare()
    assert after.index_version != index_before
    fingerprint = open_bundle(bundle_store(installation.home)).manifest.fingerprint
    snapshot = open_snapshot(index_store(installation.home), fingerprint=fingerprint)
    # The same bytes in other places of their batches: float32 rounding.
    np.testing.assert_allclose(snapshot.stored(one).vectors, snapshot.stored(other).vectors, atol=1e-5)


def test_rebuilding_on_demand_is_a_new_index_under_the_same_bundle(installation: Installation) -> None:
    bundle_before, index_before = live_versions(installation.home)
    done = installation.prepare(rebuild_index=True)
    assert (done.built, done.bundle_version) == (True, bundle_before)
    assert done.index_version != index_before


def test_another_catalogue_is_a_new_bundle(installation: Installation, tmp_path: Path) -> None:
    bundle_before, index_before = live_versions(installation.home)
    generate(tmp_path / "other", n_listings=13, seed=99)
    ours = {row["product_id"] for row in installation.photo_rows()}
    others = Installation(tmp_path / "nowhere", tmp_path / "other").photo_rows()
    assert not ours & {row["product_id"] for row in others}
    done = installation.prepare(catalogue=tmp_path / "other")
    assert (done.built, done.catalogue, done.count) == (True, "other", 26)
    assert done.bundle_version != bundle_before
    assert done.index_version != index_before
    assert installation.heard("rebuilding the model bundle", "fitted on catalogue", "not on other")


def test_until_a_new_bundle_has_an_index_the_one_that_answers_is_kept(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = live_versions(installation.home)
    generate(tmp_path / "other", n_listings=13, seed=99)

    def end_here(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(index, "build_index", end_here)  # as by Ctrl-C, with the bundle built and no index yet
    with pytest.raises(KeyboardInterrupt):
        installation.prepare(catalogue=tmp_path / "other", keep_snapshots=1)
    assert live_versions(installation.home)[0] != before
    assert answering_bundle(installation.home) == before


def test_a_damaged_index_is_rebuilt_under_the_same_bundle_and_said(installation: Installation) -> None:
    bundle_before, index_before = live_versions(installation.home)
    assert index_before is not None
    flip_bit(index_store(installation.home).path(index_before) / VECTORS)
    done = installation.prepare()
    assert (done.built, done.bundle_version) == (True, bundle_before)
    assert done.index_version != index_before
    assert installation.heard("rebuilding the index", VECTORS)


def test_a_damaged_bundle_is_rebuilt_with_its_index_and_said(installation: Installation) -> None:
    bundle_before, index_before = live_versions(installation.home)
    assert bundle_before is not None
    flip_bit(bundle_store(installation.home).path(bundle_before) / WEIGHTS)
    done = installation.prepare()
    assert done.built
    assert done.bundle_version != bundle_before
    assert done.index_version != index_before
    assert installation.heard("rebuilding the model bundle", WEIGHTS)


def test_a_bundle_whose_embeddings_differ_here_embeds_nothing_and_is_rebuilt_where_an_index_build_is_asked_for(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = live_versions(installation.home)

    def refuse(bundle: ModelBundle, embedder: Embedder) -> None:
        raise EmbeddingsDiffer(f"{bundle.version} gives other embeddings")

    monkeypatch.setattr(index, "verify_embeddings", refuse)
    photo = installation.photo(installation.photo_rows()[0]["id"])
    content = photo.read_bytes()
    Image.open(photo).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(photo)
    with pytest.raises(EmbeddingsDiffer):
        installation.prepare()
    assert live_versions(installation.home) == live
    photo.write_bytes(content)
    done = installation.prepare(rebuild_index=True)
    assert done.built
    assert done.bundle_version != live[0]
    assert installation.heard("rebuilding the model bundle", "gives other embeddings")


def resnet50_file(path: Path) -> Path:
    """Random ResNet50 weights; one number per output channel keeps the file small, over the fan-in features finite."""
    generator = torch.Generator().manual_seed(1)
    state = {
        name: (torch.randn(len(value), *[1] * (value.dim() - 1), generator=generator) / value[0].numel()).expand(
            value.shape
        )
        if value.dim() > 1
        else value
        for name, value in resnet50().state_dict().items()
    }
    torch.save(state, path)
    return path


def test_another_backbone_or_weights_file_is_a_new_bundle(installation: Installation, tmp_path: Path) -> None:
    installation.keep_photos(4)
    weights = resnet50_file(tmp_path / "resnet.pth")
    lite0, _ = live_versions(installation.home)
    first = installation.prepare(backbone=Backbone.RESNET50, weights=weights)
    assert (first.built, first.backbone, first.count) == (True, Backbone.RESNET50, 4)
    assert installation.heard("rebuilding the model bundle", "resnet50 is wanted", "efficientnet_lite0 is live")
    assert lite0 != first.bundle_version
    kept = installation.prepare(backbone=Backbone.AUTO, weights=weights)
    assert (kept.built, kept.bundle_version) == (False, first.bundle_version)
    torch.save({**torch.load(weights), "bn1.bias": torch.full((64,), 0.1)}, weights)
    second = installation.prepare(backbone=Backbone.AUTO, weights=weights)
    assert (second.built, second.backbone) == (True, Backbone.RESNET50)
    assert second.bundle_version != first.bundle_version
    assert installation.heard("rebuilding the model bundle", "is wanted", "is live")
    back = installation.prepare()
    assert (back.built, back.backbone) == (True, Backbone.EFFICIENTNET_LITE0)


def test_an_unusable_weights_file_leaves_what_is_live(installation: Installation, tmp_path: Path) -> None:
    before = live_versions(installation.home)
    (tmp_path / "garbage.pth").write_bytes(b"<html>")
    with pytest.raises(WeightsUnusable):
        installation.prepare(backbone=Backbone.RESNET50, weights=tmp_path / "garbage.pth")
    assert live_versions(installation.home) == before
    assert not installation.prepare().built


def test_a_photo_that_cannot_be_decoded_is_left_out_and_said_once(installation: Installation) -> None:
    rows = installation.photo_rows()
    (installation.catalogue / "images" / f"{rows[0]['id']}.jpg").write_bytes(b"not a photo")
    truncated = installation.catalogue / "images" / f"{rows[7]['id']}.jpg"
    truncated.write_bytes(truncated.read_bytes()[:500])
    done = installation.prepare()
    assert done.count == 8
    assert installation.heard("left out: 1 x", "unsupported_format")
    assert installation.heard("left out: 1 x", "photo_undecodable")
    bundle = open_bundle(bundle_store(installation.home))
    snapshot = open_snapshot(index_store(installation.home), fingerprint=bundle.manifest.fingerprint)
    assert [photo.image_id for photo in snapshot.photos()] == [
        row["id"] for n, row in enumerate(rows) if n not in (0, 7)
    ]
    assert not installation.prepare().built


def test_a_catalogue_of_mostly_broken_photos_is_still_built_only_once(built: Installation, tmp_path: Path) -> None:
    shutil.copytree(built.catalogue, tmp_path / "catalogue")
    installation = Installation(tmp_path / "home", tmp_path / "catalogue")
    installation.keep_photos(12)
    for row in installation.photo_rows()[4:]:
        (installation.catalogue / "images" / f"{row['id']}.jpg").write_bytes(b"not a photo")
    first = installation.prepare()
    assert first.count == 4
    again = installation.prepare()
    assert not again.built, installation.said
    assert again.bundle_version == first.bundle_version


def test_a_catalogue_without_one_decodable_photo_leaves_what_is_live(installation: Installation) -> None:
    before = live_versions(installation.home)
    installation.keep_photos(2)
    for row in installation.photo_rows():
        (installation.catalogue / "images" / f"{row['id']}.jpg").write_bytes(b"not a photo")
    with pytest.raises(CatalogueUnusable, match="none of 2 photos can be decoded"):
        installation.prepare()
    assert live_versions(installation.home) == before


def test_a_missing_index_is_built_under_the_live_bundle(installation: Installation) -> None:
    bundle_before, _ = live_versions(installation.home)
    shutil.rmtree(index_store(installation.home).root)
    done = installation.prepare()
    assert (done.built, done.count, done.bundle_version) == (True, 10, bundle_before)


def test_every_version_ever_promoted_is_whole(installation: Installation) -> None:
    installation.prepare(rebuild_index=True)
    stores: list[ArtifactStore] = [bundle_store(installation.home), index_store(installation.home)]
    for store, n_versions in zip(stores, (1, 3), strict=True):
        assert len(store.versions()) == n_versions
        for version in store.versions():
            store.verify(version)


def test_without_a_catalogue_the_one_used_last_is_read_again_never_the_demo(
    built: Installation, tmp_path: Path
) -> None:
    installation = built.copy(tmp_path)
    version = index_store(installation.home).current()
    assert version is not None
    vectors = index_store(installation.home).path(version) / VECTORS
    content = bytearray(vectors.read_bytes())
    content[len(content) // 2] ^= 1
    vectors.write_bytes(content)
    done = installation.prepare(catalogue=None)
    assert (done.catalogue, done.count) == ("catalogue", 52)
    assert not (installation.home / "demo-catalogue").exists()
    (installation.home / "catalogue").write_text("/nowhere\n")
    with pytest.raises(CatalogueUnusable, match="CATALOGUE="):
        installation.prepare(catalogue=None, rebuild_index=True)


def test_a_model_that_came_with_its_head_is_kept_whatever_the_catalogue(built: Installation, tmp_path: Path) -> None:
    installation = built.copy(tmp_path)
    installation.keep_photos(4)
    network = resnet50(num_classes=13)
    torch.save(network.state_dict(), tmp_path / "own.pth")
    first = installation.prepare(weights=tmp_path / "own.pth", backbone="auto", runtime="torch")
    assert installation.heard("notice", "not known")
    generate(tmp_path / "other", n_listings=2, seed=5)
    second = installation.prepare(catalogue=tmp_path / "other", backbone="auto", runtime="torch")
    assert second.bundle_version == first.bundle_version
    assert second.backbone == "resnet50"
    assert second.index_version != first.index_version


def test_of_categories_of_two_levels_the_root_is_certain_where_nothing_shows_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = GERMAN[:3]
    installation = Installation(tmp_path / "home", draw_catalogue(tmp_path / "german", names, listings_each=6))
    installation.prepare(category_level=0)
    assert installation.heard(f"6 categories, whole paths of the column `category`: {names[0]} / Teil 0")
    bundle_store(installation.home).promote(write_doubting(installation.home, 0.6))  # so few photos calibrate nothing
    drawn(1, len(names), 7_005).save(tmp_path / "query.jpg", quality=90)
    monkeypatch.setenv("LOOKALIKE_HOME", str(installation.home))
    answer = CliRunner().invoke(main, ["search", str(tmp_path / "query.jpg"), "--json"])
    category = json.loads(answer.stdout)["category"]
    part = category["certain_path"]
    assert (category["certain"], part["name"], part["path"]) == (False, names[1], [names[1]])
    assert category["name"].startswith(f"{names[1]} / Teil ")
    below = [one["probability"] for one in category["top"] if one["name"].startswith(names[1])]
    assert part["probability"] == pytest.approx(sum(below), abs=2e-6)  # as each is rounded
    again = CliRunner().invoke(main, ["search", "--together", *2 * [str(tmp_path / "query.jpg")], "--json"])
    assert json.loads(again.stdout)["category"]["name"] == category["name"]
    first = json.loads(answer.stdout)["neighbours"][0]
    by_listing = CliRunner().invoke(main, ["search", "--listing", first["listing_id"], "-k", "100", "--json"])
    assert first["listing_id"] not in {one["listing_id"] for one in json.loads(by_listing.stdout)["neighbours"]}
