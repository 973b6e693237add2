"""Moves feedback from Redis to the archive. Any number of workers do no harm."""

import logging

from shared.errors import ArtifactUnwritable, QueueUnavailable, StoreUnavailable
from shared.feedback.archive import archive_feedback
from shared.feedback.store import FeedbackStore
from shared.jobs.dispatcher import broker_errors
from shared.redis_client import queue_trouble
from shared.settings import Settings
from shared.telemetry import event

_LOG = logging.getLogger(__name__)


class FeedbackArchiver:
    """Archives feedback that is complete, because its job is gone, and what is too much for Redis.

    Args:
        settings: of the installation.
        store: of the feedback in Redis.
    """

    def __init__(self, settings: Settings, store: FeedbackStore) -> None:
        self._settings = settings
        self._store = store
        self._reported = ""

    def archive(self) -> None:
        """One round; what cannot be written stays in Redis for the next."""
        settings = self._settings
        try:
            with broker_errors():
                n_searches = archive_feedback(
                    self._store,
                    settings.storage,
                    older_than_s=settings.result_ttl_s,
                    limit=settings.max_feedback,
                    keep_days=settings.feedback_days,
                )
        except QueueUnavailable as exc:
            event(_LOG, "redis_unreachable", level=logging.WARNING, reason=queue_trouble(exc.__cause__))
        except (ArtifactUnwritable, StoreUnavailable) as exc:
            if str(exc) != self._reported:  # it goes on until somebody mends it
                event(_LOG, "feedback_not_archived", level=logging.ERROR, reason=str(exc))
            self._reported = str(exc)
        else:
            self._reported = ""
            if n_searches:
                event(_LOG, "feedback_archived", searches=n_searches)
