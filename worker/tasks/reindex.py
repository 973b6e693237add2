"""Runs a reindex: plan, have the shards embedded, build aside, verify, promote. Embeds nothing itself.

Everything it decides follows from what lies on disk and in Redis, so that another worker can go on at any moment:
shards that are done are files, a sealed snapshot carries the job's id, and only who took the fence last may promote.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import redis

from shared.artifacts import Location
from shared.artifacts.home import catalogue_location
from shared.artifacts.snapshots import index_store, read_index_manifest
from shared.artifacts.store import ANY
from shared.catalogue.categories import CataloguePhoto
from shared.catalogue.choice import CategoryChoice
from shared.catalogue.fetching import PhotoFetcher, seldom
from shared.catalogue.scan import Scan
from shared.catalogue.tables import Catalogue, CatalogueReader, scan_catalogue
from shared.changes.log import ChangeLog
from shared.changes.overrides import compact, last_overrides
from shared.errors import (
    ArtifactError,
    FingerprintMismatch,
    IndexMissing,
    JobFinished,
    JobGone,
    JobNotFound,
    PromotionRefused,
    ShardFailed,
    StoreUnavailable,
    WorkerLost,
)
from shared.index.milvus.server import MilvusServer
from shared.index.snapshot import lies_in, open_snapshot
from shared.index.vector_index import VectorIndex
from shared.jobs.contract import Job, JobStatus
from shared.jobs.dispatcher import Dispatcher
from shared.jobs.records import Claim
from shared.jobs.reindex_contract import (
    ReindexCounts,
    ReindexMode,
    ReindexReport,
    ReindexRequest,
    ReindexResult,
    ShardPhoto,
    ShardRequest,
)
from shared.jobs.reindex_jobs import ReindexStore
from shared.jobs.store import JobStore
from shared.model.bundle import ModelBundle
from shared.reindex.build import Build, build_snapshot, decide, stored_as
from shared.reindex.embedding_cache import ANY_REINDEX, EmbeddingCache, shard_name
from shared.reindex.garbage_collection import collect_garbage
from shared.reindex.plan import Plan, make_plan
from shared.settings import Settings
from worker.jobs.leases import Lease
from worker.jobs.progress import ProgressReport
from worker.jobs.retries import while_redis_is_away, while_store_is_away
from worker.serving.engine import Engine

SHARD_PHOTOS = 64
_SHARDS_QUEUED = 32
_POLL_S = 0.25
_NOTHING = "nothing has changed"
_DIGESTS = "photo-digests.json"


@dataclass(frozen=True)
class _Shard:
    photos: tuple[ShardPhoto, ...]

    @property
    def name(self) -> str:
        return shard_name([photo.sha256 for photo in self.photos])


class Reindexer:
    """A handler for reindex jobs.

    Args:
        dispatcher: publishes the messages of shards.
        stopping: whether the worker is about to end.
        server: that gets the vectors of what is built; None: they are kept in files.
    """

    def __init__(
        self,
        settings: Settings,
        client: redis.Redis,
        jobs: JobStore,
        engine: Engine,
        *,
        dispatcher: Dispatcher,
        stopping: Callable[[], bool],
        server: MilvusServer | None = None,
    ) -> None:
        self.settings = settings
        self.jobs = jobs
        self.store = ReindexStore(client, jobs, dispatcher)
        self.log = ChangeLog(client, job_ttl_s=settings.job_ttl_s)
        self.indexes = index_store(settings.storage)
        self.catalogue = CatalogueReader(settings.home / _DIGESTS)
        self.fetcher = PhotoFetcher.by(settings)
        self.engine = engine
        self.stopping = stopping
        self.server = server

    def run(self, claim: Claim, lease: Lease) -> ReindexResult:
        """Do what the job asks for, from wherever an earlier attempt left it.

        Raises:
            CancelledError: nobody wants it any more, or another attempt has taken over.
            JobReleased: the worker is about to end.
            CatalogueUnusable, ArtifactError, ShardFailed: what is wrong.
        """
        progress = ProgressReport(self.store, claim.job, lease, self.stopping)
        return _Attempt(self, claim.job, progress).run()


@dataclass
class _Attempt:
    """One attempt at one reindex."""

    at: Reindexer
    job: Job
    progress: ProgressReport
    failed: dict[str, str] = field(default_factory=dict)  # reason by sha256

    @property
    def request(self) -> ReindexRequest:
        assert isinstance(self.job.request, ReindexRequest)
        return self.job.request

    def run(self) -> ReindexResult:
        with self.progress.stage("planning"):
            self.progress.tell("planning")
            bundle, live = self.at.engine.live.promoted()
            live_version = live.version if live else None
            if (version := self._made_before()) is not None:
                return self._conclude(version, bundle, self._take_fence())
            location = catalogue_location(self.at.settings)
            found = scan_catalogue(location)
            if self._nothing_changed(found, bundle, live):
                count = len(live) if live else 0
                return self._result(_NOTHING, live_version, ReindexCounts(seen=count, unchanged=count))
            plan = self._plan(self._read(location, found, bundle, live), bundle, live)
        if self.request.dry_run:
            return self._result("a dry run", live_version, plan.counts, plan.catalogue.unusable)
        moves = live is not None and not lies_in(live.manifest, self.at.server)
        if plan.is_live and self.request.mode is ReindexMode.CHANGED and not moves:
            return self._result(_NOTHING, live_version, plan.counts, plan.catalogue.unusable)
        fence = self._take_fence()
        if (version := self._made_before()) is not None:  # by an attempt that was still at it while this one planned
            return self._conclude(version, bundle, fence)
        scope = ANY_REINDEX if self.request.mode is ReindexMode.CHANGED else self.job.id
        cache = EmbeddingCache(self.at.settings.storage, bundle.manifest.fingerprint, scope)
        with self.progress.stage("embedding"):
            used = self._embed(plan, bundle, cache)
        with self.progress.stage("building"):
            version = self._build(plan, bundle, live, cache, used)
        result = self._conclude(version, bundle, fence)
        # Not before: what is not live is not known to the next reindex, and an attempt that was overtaken would take
        # from under the one that goes on what that is about to build with.
        if result.promoted or scope != ANY_REINDEX:
            with suppress(StoreUnavailable):  # swept another time
                cache.drop(used)
        return result

    def _take_fence(self) -> int:
        """The number to promote with: whoever finds the lease his own after taking it is the one who may."""
        fence = self.at.indexes.take_fence()
        self.progress.tell("planning")
        return fence

    # --- plan ---

    def _nothing_changed(self, found: Scan, bundle: ModelBundle, live: VectorIndex | None) -> bool:
        """Whether one look at the directory tells that the live snapshot is what would be made."""
        if live is None or self.request.mode is ReindexMode.ALL or self.request.dry_run:
            return False
        return (
            live.manifest.fingerprint == bundle.manifest.fingerprint
            and lies_in(live.manifest, self.at.server)
            and self.at.catalogue.digest(found) == live.manifest.catalogue_digest
            and while_redis_is_away(partial(self.at.log.count_after, live.manifest.compacted_through)) == 0
        )

    def _read(self, location: Location, found: Scan, bundle: ModelBundle, live: VectorIndex | None) -> Catalogue:
        types = live.manifest.attributes if live else ()
        choice = CategoryChoice.by(self.at.settings, bundle.manifest.categories, grow=False, attributes=types)
        report = seldom(partial(self.progress.tell, "fetching", for_good=0), every_s=1)
        fetch = partial(self.at.fetcher.fetch, report=report)
        return self.at.catalogue.read(location, found, wanted=choice, fetch=fetch)

    def _plan(self, catalogue: Catalogue, bundle: ModelBundle, live: VectorIndex | None) -> Plan:
        self.progress.tell("planning")
        overrides, after = last_overrides(self.at.indexes, live.version if live else None)
        entries = while_redis_is_away(lambda: list(self.at.log.read(after)))
        fingerprint = bundle.manifest.fingerprint
        merge = partial(compact, catalogue.photos, overrides, entries, schema=catalogue.attributes)
        compacted = merge(storage=self.at.settings.storage, fingerprint=fingerprint)
        return make_plan(
            catalogue,
            compacted,
            live,
            fingerprint=fingerprint,
            mode=self.request.mode,
            compacted_through=entries[-1].entry_id if entries else after,
        )

    # --- embed ---

    def _embed(self, plan: Plan, bundle: ModelBundle, cache: EmbeddingCache) -> set[str]:
        """Have what is missing embedded; returns the names of the files it lies in."""
        known = cache.known()
        used = {known[photo.sha256] for photo in plan.missing if photo.sha256 in known}
        pending: deque[_Shard] = deque()
        done = {photo.sha256 for photo in plan.missing} & known.keys()
        for start in range(0, len(plan.missing), SHARD_PHOTOS):
            # Cut before what is known is left out, so that an attempt after this one makes the very same shards.
            cut = plan.missing[start : start + SHARD_PHOTOS]
            if not (left := [photo for photo in cut if photo.sha256 not in known]):
                continue
            shard = _shard(left)
            if (found := cache.read(shard.name)) and found.sha256:  # just now: shards of an earlier attempt go on
                used.add(shard.name)
                done |= self._collect(cache, shard)
            else:
                # What is there tells only why none of these photos could be embedded then; perhaps they can be now.
                cache.drop([shard.name])
                pending.append(shard)
        running: dict[str, _Shard] = {}
        make = partial(ShardRequest, bundle_version=bundle.version, scope=cache.scope)
        try:
            while pending or running:
                while pending and len(running) < _SHARDS_QUEUED:
                    shard = pending.popleft()
                    submit = partial(self.at.store.submit_shard, self.job, make(photos=shard.photos), shard.name)
                    running[while_redis_is_away(submit)] = shard
                self.progress.tell("embedding", len(done), len(plan.missing))
                for job_id, ended in while_redis_is_away(partial(self.at.store.ended, list(running), _POLL_S)).items():
                    shard = running.pop(job_id)
                    if while_store_is_away(partial(cache.has, shard.name)):
                        used.add(shard.name)
                        done |= self._collect(cache, shard)
                    else:
                        pending += self._again(shard, ended)
                    with suppress(redis.RedisError):
                        self.at.store.forget_shard(job_id)
                    self.progress.tell("embedding", len(done), len(plan.missing))  # a store may take its time for each
        except BaseException:
            self._cancel(running)
            raise
        self.progress.tell("embedding", len(done), len(plan.missing))
        return used

    def _collect(self, cache: EmbeddingCache, shard: _Shard) -> set[str]:
        """Note the photos of a done shard that failed, and return all it is done with."""
        if (found := while_store_is_away(partial(cache.read, shard.name))) is not None:
            self.failed |= found.failed
        return {photo.sha256 for photo in shard.photos}

    def _again(self, shard: _Shard, ended: Job | None) -> list[_Shard]:
        """What to try after a shard ended without its file.

        Raises:
            ShardFailed: trying again would not help.
        """
        if ended is None or ended.status in (JobStatus.CANCELED, JobStatus.EXPIRED):
            return [shard]
        if ended.error is None:
            raise ShardFailed(
                "a worker wrote a shard where this one does not see it; all workers need the same LOOKALIKE_STORE"
            )
        if ended.error.code != WorkerLost.code:
            raise ShardFailed(f"a shard failed: {ended.error.code}: {ended.error.detail}")
        if len(shard.photos) == 1:
            self.failed[shard.photos[0].sha256] = "photo ends the worker that embeds it"
            return []
        return [_Shard((photo,)) for photo in shard.photos]

    def _cancel(self, shards: Iterable[str]) -> None:
        for job_id in shards:
            with suppress(redis.RedisError, JobFinished, JobGone, JobNotFound):
                self.at.jobs.cancel(job_id)

    # --- build ---

    def _build(
        self,
        plan: Plan,
        bundle: ModelBundle,
        live: VectorIndex | None,
        cache: EmbeddingCache,
        shards: Collection[str],
    ) -> str:
        build = Build(
            plan=plan,
            bundle=bundle,
            live=live,
            cache=cache,
            shards=tuple(shards),
            failed=self.failed,
            request=self.request,
            n_embedded=len(plan.missing) - len(self.failed),
            made_by=self.job.id,
            timings_s=self.progress.timings_s,
            vectors=stored_as(self.at.settings),
        )
        return build_snapshot(self.at.indexes, build, self.progress.tell, server=self.at.server)

    # --- promote ---

    def _made_before(self) -> str | None:
        """The snapshot that an earlier attempt has sealed."""
        if self.job.attempt == 1:
            return None
        for version in reversed(self.at.indexes.versions()):
            with suppress(ArtifactError):
                if read_index_manifest(self.at.indexes, version).made_by == self.job.id:
                    return version
        return None

    def _conclude(self, version: str, bundle: ModelBundle, fence: int) -> ReindexResult:
        """Promote a sealed snapshot if it is good enough, tidy up, and tell."""
        with self.progress.stage("promoting"):
            self.progress.tell("promoting")
            report = read_index_manifest(self.at.indexes, version).report
            assert report is not None  # build_snapshot wrote it
            promoted, decision = decide(report, self.request)
            if promoted:
                promoted, decision = self._promote(version, bundle, report, fence, decision)
            with suppress(StoreUnavailable, OSError):  # the next one collects it
                fingerprint = bundle.manifest.fingerprint
                collect_garbage(
                    self.at.settings, self.at.indexes, self.at.log, fingerprint=fingerprint, server=self.at.server
                )
        result = self._result(decision, report.live_version, report.counts, report.reasons)
        return result.model_copy(
            update={
                "index_version": version,
                "promoted": promoted,
                "report": report,
                "timings_s": report.timings_s | result.timings_s,
            }
        )

    def _promote(
        self, version: str, bundle: ModelBundle, report: ReindexReport, fence: int, decision: str
    ) -> tuple[bool, str]:
        store = self.at.indexes
        with suppress(IndexMissing):  # the pointer may lead nowhere, and be mended by this
            if store.current() == version:  # an earlier attempt got as far as that
                return True, decision
        try:
            self.at.engine.live.promoted_bundle(bundle.version)
            open_snapshot(store, fingerprint=bundle.manifest.fingerprint, version=version, server=self.at.server)
            store.promote(version, expected=report.live_version or ANY, fence=fence)
        except (FingerprintMismatch, PromotionRefused) as exc:
            return False, str(exc)
        return True, decision

    def _result(
        self, decision: str, live: str | None, counts: ReindexCounts, reasons: Mapping[str, int] | None = None
    ) -> ReindexResult:
        return ReindexResult(
            mode=self.request.mode,
            dry_run=self.request.dry_run,
            counts=counts,
            reasons=dict(reasons or {}),
            live_version=live,
            decision=decision,
            timings_s=dict(self.progress.timings_s),
        )


def _shard(photos: Sequence[CataloguePhoto]) -> _Shard:
    return _Shard(tuple(ShardPhoto(path=str(photo.path), sha256=photo.sha256) for photo in photos))
