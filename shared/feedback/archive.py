"""The archive of feedback: files of the artifact store, into which workers move what Redis holds.

A file has one search a line, as JSON. The same search may be in several, because more came of it later or because a
worker died before it had told Redis: whoever reads joins them.
"""

import gzip
import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime

from shared.artifacts import Location
from shared.artifacts.backends import backend_at
from shared.feedback.contract import JobFeedback
from shared.feedback.store import FeedbackStore

_KIND = "feedback"
_DAY_S = 86_400


def archive_feedback(
    store: FeedbackStore, storage: Location, *, older_than_s: float, limit: int, keep_days: int
) -> int:
    """Move feedback from Redis to the archive, and delete files of it that are too old.

    Args:
        store: of the feedback in Redis.
        storage: of the installation.
        older_than_s: since the last event of a search, from which its feedback is complete.
        limit: searches with feedback in Redis, at most; above half of it they are archived whatever their age.
        keep_days: that a file is kept.

    Returns:
        the number of searches whose feedback was archived.

    Raises:
        ArtifactUnwritable, StoreUnavailable: it cannot be written, and stays in Redis.
    """
    due = store.due(older_than_s=older_than_s, at_most=limit // 2)
    if not due:
        return 0
    files = backend_at(storage, _KIND)
    content = "".join(f"{held.feedback.model_dump_json(exclude_none=True)}\n" for held in due).encode()
    # Named by what is in it: of several workers that archive the same at once, each writes the same file.
    digest = hashlib.sha256(content).hexdigest()[:16]
    newest = datetime.fromtimestamp(max(one.at for one in due[-1].feedback.events), UTC)
    files.write(f"{newest:%Y-%m}/{newest:%dT%H%M%S}-{digest}.jsonl.gz", gzip.compress(content, mtime=0))
    store.forget(due)
    files.sweep(keep_days * _DAY_S)
    return len(due)


def read_feedback(store: FeedbackStore | None, storage: Location) -> list[JobFeedback]:
    """Read all feedback, archived or not, in the order of the searches.

    Args:
        store: of the feedback in Redis; None: what is archived alone.
        storage: of the installation.

    Raises:
        StoreUnavailable: the object store does not answer.
    """
    found: dict[str, JobFeedback] = {}
    # Redis first: what is archived meanwhile is then read twice rather than not at all.
    _join(found, store.read() if store else ())
    files = backend_at(storage, _KIND)
    for stored in files.entries():
        lines = gzip.decompress(files.at(stored.key).read_bytes()).splitlines()
        _join(found, map(JobFeedback.model_validate_json, lines))
    return sorted(found.values(), key=lambda one: (one.impression.searched_at, one.impression.job_id))


def _join(found: dict[str, JobFeedback], more: Iterable[JobFeedback]) -> None:
    for one in more:
        job_id = one.impression.job_id
        found[job_id] = found[job_id].joined(one) if job_id in found else one
