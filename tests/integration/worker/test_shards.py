"""A shard of a reindex keeps the model busy, however many photos its passes hold."""

import hashlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from shared.artifacts.snapshots import bundle_store, index_store
from shared.jobs.contract import JobKind
from shared.jobs.reindex_contract import ShardPhoto, ShardRequest
from shared.jobs.reindex_jobs import SHARD_OWNER
from shared.jobs.store import JobStore
from shared.model.bundle import ModelBundle
from shared.model.embedder import Embeddings
from shared.photos.images import Pixels, PreprocessSpec
from tests.conftest import encode, noise_image
from tests.integration.conftest import PLENTY, settings
from tests.support.bundles import make_bundle, make_index
from tests.support.runners import DECODERS
from worker.jobs.leases import Lease
from worker.serving.engine import Engine
from worker.serving.loaded_model import EngineOptions
from worker.tasks.shards import ShardRunner

_PASS = 24  # more than a shard has under way as a rule


class _WholePasses(Engine):
    """Runs nothing until a whole pass of photos waits."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.waiting: list[tuple[Pixels, Future[Embeddings]]] = []

    def embed(
        self, bundle: ModelBundle, photo: Pixels, *, unwanted: Callable[[], bool] = lambda: False
    ) -> "Future[Embeddings]":
        future: Future[Embeddings] = Future()
        self.waiting.append((photo, future))
        if len(self.waiting) % _PASS == 0:
            for waiting, answer in self.waiting[-_PASS:]:
                super().embed(bundle, waiting, unwanted=unwanted).add_done_callback(
                    lambda done, answer=answer: answer.set_result(done.result())  # type: ignore[misc]
                )
        return future


def test_a_shard_has_a_whole_pass_of_photos_under_way(tmp_path: Path, jobs: JobStore) -> None:
    version = make_bundle(tmp_path, PreprocessSpec(size_px=96))
    photos = []
    for number in range(2 * _PASS):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(content := encode(noise_image(number, (120, 90))))
        photos.append(ShardPhoto(path=str(path), sha256=hashlib.sha256(content).hexdigest()))
    bundle_store(tmp_path).promote(version)
    index_store(tmp_path).promote(make_index(tmp_path, version, [encode(noise_image(0))]))
    engine = _WholePasses(tmp_path, EngineOptions(streams=1, max_batch=_PASS))
    request = ShardRequest(bundle_version=version, scope="any", photos=tuple(photos))
    shard = jobs.create(JobKind.SHARD, request, None, admission=PLENTY, owner=SHARD_OWNER).job
    runner = ShardRunner(
        settings("redis://127.0.0.1:1/0", home=tmp_path), jobs, engine, DECODERS, stopping=lambda: False
    )
    claim = jobs.claim_job(shard.id, "w", lease_s=15)
    assert claim
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(runner.run, claim, Lease(JobKind.SHARD))
        try:
            assert done.result(60).name
        finally:
            for _, future in engine.waiting:  # of a pass that never filled
                future.cancel()
    assert len(engine.waiting) == len(photos)
    engine.close()
