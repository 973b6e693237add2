"""Bundle, network and weights with the real torch: what is written is what runs, and nothing is quietly replaced."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import normalize

from pipeline.training.weights.loading import load_weights
from shared.artifacts.store import MANIFEST, ArtifactStore
from shared.errors import BundleDamaged, BundleMissing
from shared.model.backbones import EMBEDDING_DIM, NORMALISATION
from shared.model.bundle import (
    SPLIT,
    WEIGHTS,
    BundleManifest,
    Normalisation,
    Precision,
    References,
    Runtime,
    Split,
    bundle_store,
    open_bundle,
    read_manifest,
    write_bundle,
)
from shared.model.fusion import Fusion
from shared.model.matching import Matching
from shared.model.network import Network
from shared.model.runtimes import TorchEmbedder
from shared.photos.images import PreprocessSpec, decode_photo
from shared.settings import Backbone
from shared.text.cleaning import TextRules
from shared.text.encoder import TextFacts
from tests.conftest import encode, noise_image

LITE0 = Backbone.EFFICIENTNET_LITE0
State = dict[str, Tensor]

MANIFEST_OF_LITE0 = BundleManifest(
    backbone=LITE0,
    weights="of this test",
    weights_sha256="",
    embedding_dim=EMBEDDING_DIM[LITE0],
    preprocess=PreprocessSpec(),
    normalisation=NORMALISATION[LITE0],
    metrics={"accuracy": 0.5},
    catalogue="none",
    built_at="2026-01-01T00:00:00+00:00",
)


def photos(n: int) -> np.ndarray:
    """(n, 224, 224, 3) uint8, each another picture."""
    spec = PreprocessSpec()
    return np.stack([decode_photo(encode(noise_image(seed, (300, 200))), spec) for seed in range(n)])


# Bundle


SMALL = {"layer.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "layer.steps": np.array(7)}

SPLIT_IN_THREE = Split(train=frozenset({"l1"}), validation=frozenset({"l2"}), test=frozenset({"l3"}))


@pytest.fixture
def small(tmp_path: Path) -> ArtifactStore:
    """A store whose current bundle has two tensors: nothing in a bundle's files depends on their number."""
    store = bundle_store(tmp_path)
    store.promote(write_bundle(store, MANIFEST_OF_LITE0, SMALL, split=SPLIT_IN_THREE))
    return store


def test_a_bundle_comes_back_as_it_was_written(small: ArtifactStore) -> None:
    bundle = open_bundle(small)
    assert bundle.version == small.current()
    assert bundle.split == SPLIT_IN_THREE
    assert bundle.split.listings == {"l1", "l2", "l3"}
    filled_in = {"weights_sha256", "fingerprint"}
    assert bundle.manifest.model_dump(exclude=filled_in) == MANIFEST_OF_LITE0.model_dump(exclude=filled_in)
    assert bundle.manifest.weights_sha256 == small.sha256(bundle.directory / WEIGHTS)
    assert bundle.manifest.fingerprint == bundle.manifest.compute_fingerprint()
    tensors = bundle.tensors()
    assert tensors.keys() == SMALL.keys()
    assert all((tensors[name] == SMALL[name]).all() for name in SMALL)


def test_equal_bundles_have_equal_fingerprints(small: ArtifactStore) -> None:
    again = write_bundle(small, MANIFEST_OF_LITE0, SMALL, split=Split())
    assert read_manifest(small, again).fingerprint == open_bundle(small).manifest.fingerprint


def test_one_changed_weight_is_another_fingerprint(small: ArtifactStore) -> None:
    changed = {**SMALL, "layer.steps": np.array(8)}
    other = write_bundle(small, MANIFEST_OF_LITE0, changed, split=Split())
    assert read_manifest(small, other).fingerprint != open_bundle(small).manifest.fingerprint


DECISIVE: dict[str, object] = {
    "weights_sha256": "ab",
    "backbone": "resnet50",
    "embedding_layer": "another layer",
    "embedding_dim": 640,
    "categories": tuple(reversed(MANIFEST_OF_LITE0.categories)),
    "preprocess": PreprocessSpec(fill=128),
    "normalisation": Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.25)),
    "runtime": Runtime.OPENVINO,
    "precision": Precision.INT8,
    "graph_sha256": {"graph.xml": "0" * 64},
    "text": TextFacts(
        attributes=("title",), dimension=8, evidence=0.5, temperature=1, slope=1, offset=0, rules=TextRules()
    ),
}
FOR_PEOPLE: dict[str, object] = {
    "weights": "elsewhere",
    "recipe": "finetune",
    "temperature": 1.5,
    "abstain_below": 0.4,
    "abstain_below_by_level": (0.3, 0.4),
    "fusion": Fusion(words_weight=0.5),
    "matching": Matching(k=40, bias=0, lead=1, nearness=1, same_from=0.9),
    "matching_by_doubt": Matching(k=40, bias=0, lead=0, nearness=1, log_lead=1, doubt=1, same_from=0.9),
    "metrics": {"accuracy": 0.9},
    "catalogue": "another",
    "notice": "read this",
    "head_came_with_weights": True,
    "gate": {"mean_cosine": 0.5},
    "libraries": {"torch": "0"},
    "references": References(drawing="another", sha256="0" * 64),
    "built_at": "2030-01-01T00:00:00+00:00",
}


@pytest.mark.parametrize(("field", "value"), DECISIVE.items(), ids=DECISIVE)
def test_a_field_that_decides_the_embedding_changes_the_fingerprint(field: str, value: object) -> None:
    changed = MANIFEST_OF_LITE0.model_copy(update={field: value})
    assert changed.compute_fingerprint() != MANIFEST_OF_LITE0.compute_fingerprint()


@pytest.mark.parametrize(("field", "value"), FOR_PEOPLE.items(), ids=FOR_PEOPLE)
def test_a_field_for_people_leaves_the_fingerprint(field: str, value: object) -> None:
    changed = MANIFEST_OF_LITE0.model_copy(update={field: value})
    assert changed.compute_fingerprint() == MANIFEST_OF_LITE0.compute_fingerprint()


def test_every_field_of_the_manifest_is_known_to_decide_or_not() -> None:
    assert set(BundleManifest.model_fields) == {*DECISIVE, *FOR_PEOPLE, "fingerprint"}


def test_without_a_promoted_bundle_the_command_that_makes_one_is_named(tmp_path: Path) -> None:
    store = bundle_store(tmp_path)
    with pytest.raises(BundleMissing, match="lookalike index build"):
        open_bundle(store)
    write_bundle(store, MANIFEST_OF_LITE0, SMALL, split=Split())
    with pytest.raises(BundleMissing, match="lookalike index build"):
        open_bundle(store)


@pytest.mark.parametrize("name", [WEIGHTS, SPLIT, MANIFEST])
@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "missing"])
def test_a_damaged_file_is_refused_by_name(small: ArtifactStore, name: str, damage: str) -> None:
    path = open_bundle(small).directory / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if damage != "missing":
        path.write_bytes(content if damage == "flipped bit" else content[:-5])
    with pytest.raises(BundleDamaged, match=name):
        open_bundle(small)


def reseal(store: ArtifactStore, contents: dict[str, bytes]) -> str:
    """A copy of the current bundle, some of its files replaced, under a seal that is in order."""
    version = store.current()
    assert version is not None
    with store.write() as draft:
        for path in store.path(version).iterdir():
            (draft.directory / path.name).write_bytes(contents.get(path.name, path.read_bytes()))
    return draft.version


@pytest.mark.parametrize(
    ("field", "value"),
    [("precision", "int8"), ("fingerprint", "0" * 64), ("fingerprint", None), ("embedding_dim", "many")],
)
def test_a_manifest_that_contradicts_its_fingerprint_is_refused(
    small: ArtifactStore, field: str, value: object
) -> None:
    manifest = json.loads((open_bundle(small).directory / MANIFEST).read_text())
    resealed = reseal(small, {MANIFEST: json.dumps(manifest | {field: value}).encode()})
    with pytest.raises(BundleDamaged):
        open_bundle(small, resealed)


# Embedder


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> TorchEmbedder:
    """EfficientNet-Lite0 with the package's weights and a random head, through a bundle on disk."""
    network = load_weights(LITE0, None, download_timeout_s=1).network
    store = bundle_store(tmp_path_factory.mktemp("home"))
    version = write_bundle(store, MANIFEST_OF_LITE0, network.tensors(), split=Split())
    return TorchEmbedder(open_bundle(store, version))


def test_embeddings_are_unit_vectors_with_thirteen_scores(embedder: TorchEmbedder) -> None:
    vectors, scores = embedder.embed(photos(3))
    assert (vectors.shape, scores.shape) == ((3, 1280), (3, 13))
    assert vectors.dtype == scores.dtype == np.float32
    # float32 sums of 1280 squares round to within 1e-6 of 1.
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_photo_alone_and_in_a_batch_of_eight_gets_the_same_embedding(embedder: TorchEmbedder) -> None:
    batch = photos(8)
    together = embedder.embed(batch)
    for row in (0, 3, 7):
        alone = embedder.embed(batch[row : row + 1])
        # Another batch size picks another kernel, which sums float32 in another order.
        np.testing.assert_allclose(alone.vectors[0], together.vectors[row], atol=1e-5)
        np.testing.assert_allclose(alone.scores[0], together.scores[row], atol=1e-4)  # not normalised: up to 10


def test_different_photos_get_different_embeddings(embedder: TorchEmbedder) -> None:
    vectors = embedder.embed(photos(4)).vectors
    similarity = vectors @ vectors.T - 2 * np.eye(4)
    assert similarity.max() < 0.99


@pytest.mark.parametrize("level", [0, 255])
def test_a_photo_of_one_colour_still_gets_a_unit_vector(embedder: TorchEmbedder, level: int) -> None:
    vectors, scores = embedder.embed(np.full((1, 224, 224, 3), level, dtype=np.uint8))
    assert np.isfinite(scores).all()
    assert np.linalg.norm(vectors) == pytest.approx(1, abs=1e-5)  # float32 rounding


def test_pixels_straight_from_the_decoder_are_taken_without_a_warning(embedder: TorchEmbedder) -> None:
    pixels = decode_photo(encode(noise_image(1)), PreprocessSpec())
    assert embedder.embed(pixels[None]).vectors.shape == (1, 1280)  # warnings are errors in these tests


@pytest.mark.parametrize("backbone", [LITE0, Backbone.RESNET50])
def test_weights_of_another_network_are_damage(tmp_path: Path, backbone: Backbone) -> None:
    store = bundle_store(tmp_path)
    manifest = MANIFEST_OF_LITE0.model_copy(update={"backbone": backbone})
    version = write_bundle(store, manifest, SMALL, split=Split())
    with pytest.raises(BundleDamaged, match=f"do not fit {backbone}"):
        TorchEmbedder(open_bundle(store, version))


# Network


def random_resnet50() -> Network:
    torch.manual_seed(0)
    return Network(Backbone.RESNET50, NORMALISATION[Backbone.RESNET50])


def trained_lite0() -> Network:
    # Its random features are about 1e-8: any two pipelines would agree.
    return load_weights(LITE0, None, download_timeout_s=1).network


@pytest.mark.parametrize(("backbone", "build"), [(Backbone.RESNET50, random_resnet50), (LITE0, trained_lite0)])
def test_normalisation_in_the_graph_equals_that_of_torchvision(
    backbone: Backbone, build: Callable[[], Network]
) -> None:
    network = build()
    pixels = torch.from_numpy(photos(1))
    scaled = pixels.permute(0, 3, 1, 2).float() / 255
    mean, std = NORMALISATION[backbone].mean, NORMALISATION[backbone].std
    with torch.inference_mode():
        expected = network.features.trunk(normalize(scaled, list(mean), list(std)))
        pooled = network.features(pixels)
    assert expected.abs().max() > 0.01
    # One multiply-add instead of two divisions, and channels_last kernels: float32 rounding through 50 layers.
    torch.testing.assert_close(pooled, expected, atol=1e-4, rtol=1e-4)
