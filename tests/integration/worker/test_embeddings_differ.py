"""A worker whose model gives other embeddings than where it was built neither serves nor embeds with it, by name"""

import json
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from shared.array_types import FloatArray
from shared.artifacts.snapshots import bundle_store, index_store
from shared.artifacts.store import MANIFEST
from shared.errors import BundleDamaged, EmbeddingsDiffer
from shared.jobs.contract import JobKind, SearchRequest
from shared.jobs.reindex_contract import ShardRequest
from shared.jobs.reindex_jobs import SHARD_OWNER
from shared.jobs.store import JobStore
from shared.model.bundle import REFERENCES, Split, open_bundle, open_bundle_directory, write_bundle
from shared.model.references import reference_pixels, references_file, verify_embeddings
from shared.model.runtimes import TorchEmbedder, open_embedder
from shared.photos.images import PreprocessSpec
from tests.conftest import encode, noise_image
from tests.integration.conftest import PLENTY, settings
from tests.support.bundles import make_bundle, make_index, random_network
from tests.support.manifests import manifest
from tests.support.runners import DECODERS
from worker.jobs.leases import Lease
from worker.serving import model_manager
from worker.serving.engine import ArtifactNotReady, Engine
from worker.serving.loaded_model import start_model
from worker.tasks.shards import ShardRunner

SPEC = PreprocessSpec(size_px=96)
PHOTOS = [encode(noise_image(seed, (120, 90))) for seed in range(4)]


def expected(home: Path) -> FloatArray:
    bundle = open_bundle(bundle_store(home), make_bundle(home, SPEC))
    return open_embedder(bundle).embed(reference_pixels(SPEC.size_px)).vectors


def with_references(home: Path, vectors: FloatArray) -> str:
    """A version of the bundle that expects these embeddings, with an index, both promoted."""
    entry, content = references_file(vectors)
    made = manifest(SPEC, references=entry)
    tensors = random_network().tensors()
    store = bundle_store(home)
    version = write_bundle(store, made, tensors, split=Split(), extra_files={REFERENCES: content})
    store.promote(version)
    index_store(home).promote(make_index(home, version, PHOTOS))
    return version


def other(vectors: FloatArray) -> FloatArray:
    """As far off as int8 without VNNI: a cosine of 0.99."""
    noise = np.random.default_rng(5).standard_normal(vectors.shape, dtype=np.float32)
    noise *= 0.14 / np.linalg.norm(noise, axis=1, keepdims=True)
    moved: FloatArray = (vectors + noise) / np.linalg.norm(vectors + noise, axis=1, keepdims=True)
    return moved


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> FloatArray:
    return expected(tmp_path_factory.mktemp("right"))


def test_a_worker_serves_a_model_whose_reference_photos_get_the_embeddings_they_got_before(
    right: FloatArray, tmp_path: Path
) -> None:
    with_references(tmp_path, right)
    engine = Engine(tmp_path)
    engine.refresh()
    assert (engine.ready, engine.problem, engine.problem_code) == (True, None, None)
    engine.run(SearchRequest(k=1), bytes(SPEC.n_bytes))
    engine.close()


def test_a_worker_whose_embeddings_differ_neither_serves_nor_embeds_and_names_the_reason_without_loading_it_again(
    right: FloatArray, tmp_path: Path
) -> None:
    version = with_references(tmp_path, other(right))
    engine = Engine(tmp_path)
    with mock.patch.object(model_manager, "start_model", wraps=start_model) as start:
        for _ in range(3):
            engine.refresh()
            assert (engine.ready, engine.can_embed, engine.problem_code) == (False, False, "embeddings_differ")
            assert (engine.problem or "").startswith(f"embeddings_differ: {version} gives other embeddings on CPU")
        for embed in (engine.live.promoted, lambda: engine.live.promoted_bundle(version)):
            with pytest.raises(EmbeddingsDiffer, match=version):
                embed()
    assert start.call_count == 1
    engine.close()


def test_a_worker_goes_on_with_the_model_it_has_when_one_is_promoted_whose_embeddings_differ(
    right: FloatArray, tmp_path: Path
) -> None:
    good = with_references(tmp_path, right)
    engine = Engine(tmp_path)
    engine.refresh()
    bad = with_references(tmp_path, other(right))
    # Its index as well: two models of one fingerprint, and the fingerprint leads to the one promoted last.
    engine.refresh()
    assert engine.live.current is not None
    assert engine.live.current.bundle.version == good
    assert engine.problem_code == "embeddings_differ"
    assert bad in (engine.problem or "")
    bundle_store(tmp_path).promote(good)
    shutil.rmtree(bundle_store(tmp_path).path(bad))
    engine.refresh()
    assert [engine.problem, engine.problem_code] == [None, None]
    engine.close()


def test_embeddings_that_are_no_numbers_are_refused(right: FloatArray, tmp_path: Path) -> None:
    bundle = open_bundle(bundle_store(tmp_path), with_references(tmp_path, np.full_like(right, np.nan)))
    with pytest.raises(EmbeddingsDiffer):
        verify_embeddings(bundle, TorchEmbedder(bundle))


def test_expected_embeddings_of_another_model_are_damage(right: FloatArray, tmp_path: Path) -> None:
    bundle = open_bundle(bundle_store(tmp_path), with_references(tmp_path, right[:, :100]))
    with pytest.raises(BundleDamaged, match="is of another model"):
        verify_embeddings(bundle, TorchEmbedder(bundle))


def test_a_bundle_whose_expected_embeddings_were_replaced_is_not_taken_in(right: FloatArray, tmp_path: Path) -> None:
    store = bundle_store(tmp_path)
    directory = store.path(with_references(tmp_path, right))
    assert open_bundle_directory(directory).manifest.references is not None
    (directory / REFERENCES).write_bytes(references_file(other(right))[1])
    listed = json.loads((directory / MANIFEST).read_text())
    listed["files"][REFERENCES]["sha256"] = store.sha256(directory / REFERENCES)
    (directory / MANIFEST).write_text(json.dumps(listed))
    with pytest.raises(BundleDamaged, match=REFERENCES):
        open_bundle_directory(directory)


def test_a_shard_goes_back_to_the_queue_of_a_worker_whose_embeddings_differ(
    right: FloatArray, tmp_path: Path, jobs: JobStore
) -> None:
    version = with_references(tmp_path, other(right))
    engine = Engine(tmp_path)
    request = ShardRequest(bundle_version=version, scope="any", photos=())
    shard = jobs.create(JobKind.SHARD, request, None, admission=PLENTY, owner=SHARD_OWNER).job
    runner = ShardRunner(
        settings("redis://127.0.0.1:1/0", home=tmp_path), jobs, engine, DECODERS, stopping=lambda: False
    )
    claim = jobs.claim_job(shard.id, "w", lease_s=15)
    assert claim is not None
    with pytest.raises(ArtifactNotReady):
        runner.run(claim, Lease(JobKind.SHARD))
    engine.close()
