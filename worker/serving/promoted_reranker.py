"""Follows which re-ranker is promoted."""

import logging
import threading

from shared.artifacts import Location
from shared.artifacts.rerankers import RerankerManifest, read_reranker, reranker_store
from shared.errors import ArtifactError, StoreUnavailable
from shared.index.reranking import Reranker
from shared.telemetry import event

_LOG = logging.getLogger(__name__)


class PromotedReranker:
    """The promoted re-ranker of one installation; thread-safe. One that cannot be read leaves the one before in use.

    Args:
        storage: of the installation.
    """

    def __init__(self, storage: Location) -> None:
        self._store = reranker_store(storage)
        self._refreshing = threading.Lock()
        self._tried: str | None = None
        self._current: tuple[str, RerankerManifest] | None = None

    def refresh(self) -> None:
        """Take up what is promoted now."""
        with self._refreshing:
            version = self._tried
            try:
                version = self._store.current()
                if version != self._tried:
                    self._current = None if version is None else (version, read_reranker(self._store, version))
                    self._tried = version
                    event(_LOG, "reranker_loaded", version=version)
            except (StoreUnavailable, OSError):
                return  # the next round asks again
            except ArtifactError as exc:
                if version != self._tried:
                    event(_LOG, "reranker_refused", level=logging.ERROR, version=version, reason=str(exc))
                self._tried = version

    def of(self, fingerprint: str) -> Reranker | None:
        """Return the re-ranker of a model's searches; None: there is none, or it is another model's."""
        current = self._current
        return None if current is None else Reranker.of(*current, fingerprint)
