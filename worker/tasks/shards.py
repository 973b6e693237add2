"""Runs the shards of a reindex: decode, embed, store. Knows nothing of the plan they come from."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial
from pathlib import Path

from shared.errors import CatalogueUnusable, EmbeddingsDiffer, InternalError
from shared.jobs.contract import Job
from shared.jobs.records import Claim
from shared.jobs.reindex_contract import ShardRequest, ShardResult
from shared.jobs.store import JobStore
from shared.model.bundle import ModelBundle
from shared.model.embedder import Embeddings
from shared.reindex.embedding_cache import EmbeddingCache, Shard, joined, shard_name
from shared.settings import Settings
from worker.jobs.leases import Lease
from worker.jobs.runner import JobReleased
from worker.serving.engine import ArtifactNotReady, Engine
from worker.tasks.shard_decoder import ShardDecoders

# Photos waiting for the model, of each of two shards: all that its passes hold, or this many, so that it never waits.
_EMBEDDED_AHEAD = 16
_CHECKED_EVERY = 16  # photos, between looks whether the shard is still wanted


class ShardRunner:
    """A handler for shard jobs; safe to call from several threads.

    Args:
        stopping: whether the worker is about to end.
    """

    def __init__(
        self,
        settings: Settings,
        jobs: JobStore,
        engine: Engine,
        decoders: ShardDecoders,
        *,
        stopping: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._engine = engine
        self._stopping = stopping
        self._decoders = decoders

    def run(self, claim: Claim, lease: Lease) -> ShardResult:
        """Embed the photos of a shard, and write them where the reindex looks for them.

        Raises:
            CancelledError: nobody wants the shard any more.
            JobReleased: the worker is about to end.
            CatalogueUnusable: this worker does not see the catalogue.
            FingerprintMismatch: another model was promoted since the shard was made.
            ArtifactNotReady: this worker's processor gives other embeddings: the shard is for another worker.
            ArtifactUnwritable: the disk is full or may not be written.
        """
        job, request = claim.job, claim.job.request
        assert isinstance(request, ShardRequest)
        self._check(job, lease)
        folders = {Path(photo.path).parent for photo in request.photos if "://" not in photo.path}
        if folders and not any(folder.is_dir() for folder in folders):
            raise CatalogueUnusable(f"{min(folders)} is gone, or not there for every worker")
        try:
            bundle = self._engine.live.promoted_bundle(request.bundle_version)
        except EmbeddingsDiffer as exc:  # here; where the reindex runs, they do not
            raise ArtifactNotReady from exc
        cache = EmbeddingCache(self._settings.storage, bundle.manifest.fingerprint, request.scope)
        name = shard_name([photo.sha256 for photo in request.photos])
        if not cache.has(name):
            cache.write(name, self._embed(job, lease, request, bundle))
        return ShardResult(name=name)

    def _embed(self, job: Job, lease: Lease, request: ShardRequest, bundle: ModelBundle) -> Shard:
        spec = bundle.manifest.preprocess
        n_ahead = max(_EMBEDDED_AHEAD, self._engine.live.model(bundle.version).max_concurrency)
        done: list[str] = []
        rows: list[Embeddings] = []
        failed: dict[str, str] = {}
        waiting: deque[tuple[str, Future[Embeddings]]] = deque()

        def take(n_left: int) -> None:
            while len(waiting) > n_left:
                sha256, future = waiting.popleft()
                try:
                    rows.append(future.result())
                    done.append(sha256)
                except CancelledError:
                    if lease.unwanted():
                        raise
                    raise JobReleased from None  # the model is closed: the worker ends, or another was promoted
                except InternalError as error:  # the photo's own; whatever else it is ends the job
                    failed[sha256] = f"photo cannot be used: {error.code}"

        check = partial(self._check, job, lease)
        with self._decoders.decoded(request.photos, spec, self._settings.buckets.cache, check) as decoded:
            for i, (photo, pixels) in enumerate(zip(request.photos, decoded, strict=True)):
                if i % _CHECKED_EVERY == 0:
                    check()
                if isinstance(pixels, str):
                    failed[photo.sha256] = pixels
                    continue
                take(n_ahead - 1)
                waiting.append((photo.sha256, self._engine.embed(bundle, pixels, unwanted=lease.unwanted)))
        take(0)
        return Shard(done, joined(rows), failed)

    def _check(self, job: Job, lease: Lease) -> None:
        """Raises CancelledError or JobReleased when it is time to leave the shard."""
        if self._stopping():
            raise JobReleased
        held = (job.id, job.attempt)
        if held not in self._jobs.extend([held], lease_s=self._settings.lease_s):
            lease.wanted = False
        if lease.unwanted():
            raise CancelledError("the reindex was cancelled")
