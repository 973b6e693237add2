"""How photos are made square for the model that answers searches: read from its manifest, and again when it changes."""

import logging
import threading
import time
from collections.abc import Callable

from pydantic import ValidationError

from shared.artifacts import Location
from shared.artifacts.snapshots import answering_bundle, bundle_store, index_store
from shared.errors import ArtifactError, StoreUnavailable
from shared.photos.preprocessing import PreprocessSpec
from shared.telemetry import event

_LOG = logging.getLogger(__name__)
_LOOK_EVERY_S = 1.0


class ServingPreprocessing:
    """Follows the pointers of one installation.

    What cannot be read leaves things as they were: photos say by which spec they were made, so that a worker whose
    model has another sees it.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, storage: Location, clock: Callable[[], float] = time.monotonic) -> None:
        self._storage = storage
        self._clock = clock
        self._looking = threading.Lock()
        self._look_at = float("-inf")
        self._seen: tuple[str | None, str | None] | None = None
        self._spec = PreprocessSpec()

    def look(self) -> PreprocessSpec:
        """The spec, at most a second old, but for the time in which it cannot be seen.

        Raises:
            StoreUnavailable: it could not be seen once yet; made by another, photos would come for nothing.
        """
        blind = self._seen is None  # then they wait for each other; later ones take what was seen last
        if (blind or self._clock() >= self._look_at) and self._looking.acquire(blocking=blind):
            try:
                self._follow()
            except StoreUnavailable:
                if self._seen is None:
                    raise
            finally:
                self._look_at = self._clock() + _LOOK_EVERY_S
                self._looking.release()
        return self._spec

    def _follow(self) -> None:
        bundles = bundle_store(self._storage)
        try:
            pointers = (bundles.current(), index_store(self._storage).current())
            if pointers == self._seen:
                return
            version = answering_bundle(self._storage)
            if version is not None:
                self._spec = PreprocessSpec.model_validate(bundles.manifest(version).get("preprocess"))
            self._seen = pointers
        except (ArtifactError, OSError, ValidationError):
            pass  # workers say what is wrong
        else:
            event(_LOG, "spec", spec=str(self._spec), bundle=version or "none")
