"""Runs duplicates jobs, and tells what a photo that is put duplicates."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import redis

from shared.artifacts.home import indexed_photo, live_photo
from shared.artifacts.snapshots import index_store
from shared.catalogue.decode import ahead
from shared.changes.log import PutPhoto
from shared.duplicates.groups import SAME_BYTES, Evidence, count_labels, group_duplicates
from shared.duplicates.looks import Look, LookCache, look_of
from shared.duplicates.report import n_pages, write_report
from shared.duplicates.search import CANDIDATE_SCORE, compare_looks, same_pictures, similar_pictures, sorted_pair
from shared.duplicates.verdicts import Pair, VerdictStore
from shared.errors import ArtifactError, IndexMissing, InputError, StoreUnavailable, VersionNotFound
from shared.exhaustion import raise_exhaustion
from shared.index.delta.index import DeltaIndex
from shared.index.delta.live_photos import LivePhoto, LivePhotos
from shared.index.metadata.rows import PhotoTable
from shared.jobs.contract import PutImageRequest, SearchRequest
from shared.jobs.duplicates_contract import (
    GROUPS_A_PAGE,
    DuplicateImage,
    DuplicateLabel,
    DuplicateOf,
    DuplicatesRequest,
    DuplicatesResult,
    Verdict,
)
from shared.jobs.records import Claim
from shared.jobs.reindex_jobs import ReindexStore
from shared.settings import Settings
from shared.telemetry import event
from worker.jobs.leases import Lease
from worker.jobs.progress import ProgressReport
from worker.jobs.retries import while_redis_is_away
from worker.serving.engine import Engine

_LOG = logging.getLogger(__name__)
_LOOKS = "looks.sqlite"
_AHEAD = 16  # photos read before they are needed: a store answers after a while
_DECODED_AT_A_TIME = 2
_LOOKS_WRITTEN = 256
_SAME_THING_SCORE = DuplicatesRequest().same_thing_score
_PUT_NEIGHBOURS = 8  # of a photo that is put: compared with it at most
_PUT_DECODED = 3  # of those, files that are decoded because their looks are not known


class PhotoLooks:
    """Looks of the photos of an index: from the cache of this machine, or computed from their files and kept there.

    Args:
        settings: of the installation.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cache = LookCache(settings.home / _LOOKS)

    def read(self, sha256s: Iterable[str]) -> dict[str, Look]:
        """Return the looks that are known; see `LookCache.read`."""
        return self._cache.read(sha256s)

    def compute(self, photos: Iterable[LivePhoto], tell: Callable[[int, int], None] = lambda done, total: None) -> int:
        """Have the looks of photos known, as far as their files can be read; returns how many cannot.

        Args:
            photos: of an index.
            tell: called now and then with how many are done, and of how many.
        """
        by_content = {photo.sha256: photo for photo in photos}
        known = self._cache.known(by_content)
        missing = [photo for sha256, photo in by_content.items() if sha256 not in known]
        n_unreadable = 0
        made: list[tuple[str, Look]] = []
        with ThreadPoolExecutor(_DECODED_AT_A_TIME, thread_name_prefix="looks") as pool:
            for done, (photo, look) in enumerate(ahead(pool, self._look, missing, n_ahead=_AHEAD)):
                tell(done, len(missing))
                if look is None:
                    n_unreadable += 1
                    continue
                made.append((photo.sha256, look))
                if len(made) == _LOOKS_WRITTEN:
                    self._cache.write(made)
                    made = []
        self._cache.write(made)
        return n_unreadable

    def prune(self, photos: Iterable[LivePhoto]) -> None:
        """Forget the looks of all photos but these."""
        self._cache.prune(photo.sha256 for photo in photos)

    def _look(self, photo: LivePhoto) -> Look | None:
        """The look of a photo; None if its file is gone, or is another one now."""
        try:
            if photo.path:
                file = indexed_photo(self._settings, photo.path, photo.sha256)
            else:
                file = live_photo(self._settings.storage, photo.sha256)
            content = file.read_bytes()
            return look_of(content) if hashlib.sha256(content).hexdigest() == photo.sha256 else None
        except (OSError, InputError) as exc:
            raise_exhaustion(exc)
            return None


class DuplicateFinder:
    """A handler for duplicates jobs, and what tells of a photo that is put what it duplicates.

    Args:
        settings: of the installation.
        client: Redis, with the verdicts.
        store: to report progress to.
        engine: whose index is looked at.
        stopping: whether the worker is about to end.
    """

    def __init__(
        self,
        settings: Settings,
        client: redis.Redis,
        store: ReindexStore,
        engine: Engine,
        *,
        stopping: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._verdicts = VerdictStore(client)
        self._store = store
        self._engine = engine
        self._stopping = stopping
        self._looks = PhotoLooks(settings)

    def run(self, claim: Claim, lease: Lease) -> DuplicatesResult:
        """Find the duplicates in the live index, and write down what does not fit into a record.

        Raises:
            CancelledError: nobody wants it any more, or another attempt has taken over.
            JobReleased: the worker is about to end.
            IndexMissing: no index is loaded yet.
            VersionNotFound: there is no version of the name in `since`.
            ArtifactUnwritable, StoreUnavailable: the report cannot be written.
        """
        request = claim.job.request
        assert isinstance(request, DuplicatesRequest)
        progress = ProgressReport(self._store, claim.job, lease, self._stopping)
        tell = progress.tell_seldom
        index = self._engine.live.answering(None).index
        with progress.stage("hashing"):
            live = index.live_photos()
            rows = live.rows()
            fresh = None if request.since is None else self._fresh(live, rows, request.since)
            if fresh is None:
                self._looks.prune(live.photos[row] for row in rows)
            n_unreadable = self._looks.compute((live.photos[row] for row in rows), partial(tell, "hashing"))
        with progress.stage("searching"):
            wanted = rows if fresh is None else [row for row in rows if live.photos[row].image_id in fresh]
            similar = similar_pictures(live, wanted, tell)
        with progress.stage("comparing"):
            alike = same_pictures(similar, self._looks.read, tell)
            for pair, score in similar.items():
                if pair not in alike and score >= request.same_thing_score:
                    alike[pair] = Evidence(DuplicateLabel.SAME_THING, score)
        with progress.stage("grouping"):
            found = group_duplicates(_by_content(live, rows), alike, self._valid_verdicts(live, rows), fresh=fresh)
            groups = found.groups
            write_report(self._settings.storage, claim.job.id, groups, ttl_s=self._settings.result_ttl_s)
        return DuplicatesResult(
            index_version=index.version,
            since=request.since,
            n_photos=len(rows),
            n_unreadable=n_unreadable,
            n_groups=len(groups),
            groups_by_label=count_labels(groups),
            n_refuted=found.n_refuted,
            groups=groups[:GROUPS_A_PAGE],
            next_cursor="1" if n_pages(len(groups)) > 1 else None,
            timings_s=progress.timings_s,
        )

    def of_put(self, request: PutImageRequest, put: PutPhoto, file: bytes) -> list[DuplicateOf] | None:
        """Find what a photo that is put duplicates, among its nearest neighbours of other listings.

        Args:
            request: of the put.
            put: the photo, with its embedding.
            file: its working copy.

        Returns:
            the surest first; None where it cannot be told now, which is no reason to refuse the photo.
        """
        try:
            index = self._engine.live.answering(None).index
            return self._of_put(index, request, put, file) if index.manifest.fingerprint == put.fingerprint else None
        except (ArtifactError, StoreUnavailable, OSError) as exc:  # OSError: no more files may be opened
            reason = exc.strerror if isinstance(exc, OSError) else exc.code
            event(_LOG, "duplicates_unknown", level=logging.WARNING, image_id=request.image_id, reason=reason)
            return None

    def _of_put(self, index: DeltaIndex, request: PutImageRequest, put: PutPhoto, file: bytes) -> list[DuplicateOf]:
        search = SearchRequest(k=_PUT_NEIGHBOURS, exclude_listing=request.listing_id, min_score=CANDIDATE_SCORE)
        near = [(n, index.photo(n.row)) for n in index.search(put.vector, search) if n.image_id != request.image_id]
        if not near:
            return []
        looks = self._looks.read(photo.sha256 for _, photo in near)
        missing = [photo for _, photo in near if photo.sha256 not in looks][:_PUT_DECODED]
        self._looks.compute(missing)
        looks |= self._looks.read(photo.sha256 for photo in missing)
        compared = [photo.sha256 for _, photo in near if photo.sha256 in looks]
        confirmed = dict(zip(compared, compare_looks(look_of(file), [looks[key] for key in compared]), strict=True))
        refuted = self._refuted({request.image_id: put.sha256} | {photo.image_id: photo.sha256 for _, photo in near})
        found = []
        for neighbour, photo in near:
            evidence = SAME_BYTES if photo.sha256 == put.sha256 else confirmed.get(photo.sha256)
            if evidence is None and neighbour.score >= _SAME_THING_SCORE:
                evidence = Evidence(DuplicateLabel.SAME_THING, 0.0)
            if evidence is not None and sorted_pair(request.image_id, photo.image_id) not in refuted:
                facts = evidence._replace(score=neighbour.score)._asdict()
                found.append(DuplicateOf(image_id=photo.image_id, listing_id=photo.listing_id, **facts))
        return sorted(found, key=lambda one: (list(DuplicateLabel).index(one.label), -one.score))

    def _refuted(self, content: Mapping[str, str]) -> set[Pair]:
        """Pairs of the first of some images with the others that somebody found no duplicates, as they are now.

        Args:
            content: SHA-256 by image id.
        """
        first, *others = content
        pairs = [sorted_pair(first, other) for other in others]
        given = while_redis_is_away(partial(self._verdicts.of, pairs))
        return {one.image_ids for one in given if one.verdict is Verdict.NOT_DUPLICATE and one.holds(content)}

    def _fresh(self, live: LivePhotos, rows: list[int], since: str) -> frozenset[str]:
        """Image ids of the live photos that a version did not have, or had with another picture."""
        store = index_store(self._settings.storage)
        try:
            before = {photo.image_id: photo.sha256 for photo in PhotoTable(store.path(since))}
        except IndexMissing as exc:
            raise VersionNotFound(f"since: the index has no version {since[:100]!r}") from exc
        photos = (live.photos[row] for row in rows)
        return frozenset(photo.image_id for photo in photos if before.get(photo.image_id) != photo.sha256)

    def _valid_verdicts(self, live: LivePhotos, rows: list[int]) -> dict[Pair, Verdict]:
        """Verdicts on pairs whose photos still are what they were."""
        content = {live.photos[row].image_id: live.photos[row].sha256 for row in rows}
        given = while_redis_is_away(lambda: list(self._verdicts.all()))
        return {one.image_ids: one.verdict for one in given if tuple(map(content.get, one.image_ids)) == one.sha256s}


def _by_content(live: LivePhotos, rows: list[int]) -> dict[str, list[DuplicateImage]]:
    found: dict[str, list[DuplicateImage]] = defaultdict(list)
    for row in rows:
        photo = live.photos[row]
        found[photo.sha256].append(DuplicateImage(image_id=photo.image_id, listing_id=photo.listing_id))
    return found
