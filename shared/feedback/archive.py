"""The archive of feedback: files of the artifact store, into which workers move what Redis holds.

A file has one search a line, as JSON. The same search may be in several, because more came of it later or because a
worker died before it had told Redis: whoever reads joins them.
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime

from pydantic import ValidationError

from shared.artifacts import Location
from shared.artifacts.backend import Backend
from shared.artifacts.backends import backend_at
from shared.errors import ArtifactError
from shared.feedback.contract import JobFeedback
from shared.feedback.store import FeedbackStore

_KIND = "feedback"
_SUFFIX = ".jsonl.gz"
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
    files.write(f"{newest:%Y-%m}/{newest:%dT%H%M%S}-{digest}{_SUFFIX}", gzip.compress(content, mtime=0))
    store.forget(due)
    files.sweep(keep_days * _DAY_S)
    return len(due)


def read_feedback(store: FeedbackStore | None, storage: Location) -> list[JobFeedback]:
    """Read all feedback, archived or not, in the order of the searches.

    Args:
        store: of the feedback in Redis; None: what is archived alone.
        storage: of the installation.

    Raises:
        ArtifactError: a file of the archive is not what was written.
        StoreUnavailable: the object store does not answer.
    """
    found: dict[str, JobFeedback] = {}
    # Redis first: what is archived meanwhile is then read twice rather than not at all.
    _join(found, store.read() if store else ())
    files = backend_at(storage, _KIND)
    for stored in files.entries():
        if stored.key.endswith(_SUFFIX):  # people and their programs leave other files in directories
            with suppress(FileNotFoundError):  # it was too old, and has been deleted meanwhile
                _join(found, _read(files, stored.key))
    return sorted(found.values(), key=lambda one: (one.impression.searched_at, one.impression.job_id))


def _read(files: Backend, name: str) -> list[JobFeedback]:
    content = files.at(name).read_bytes()
    try:
        lines = gzip.decompress(content).splitlines()
        if not lines:
            raise EOFError("it is empty")
        return [JobFeedback.model_validate_json(line) for line in lines]
    except (gzip.BadGzipFile, EOFError, zlib.error, ValidationError) as exc:
        raise ArtifactError(
            f"{files.place.rstrip('/')}/{name} is not what was written ({str(exc).splitlines()[0]}): restore it from a "
            "backup, or move it away to go on without the searches that are in it"
        ) from exc


def _join(found: dict[str, JobFeedback], more: Iterable[JobFeedback]) -> None:
    for one in more:
        job_id = one.impression.job_id
        found[job_id] = found[job_id].joined(one) if job_id in found else one
