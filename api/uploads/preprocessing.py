"""Preprocessing and categories of the serving model, and the index's attributes: read whenever another one is live."""

import logging
import threading
import time
from collections.abc import Callable

from pydantic import TypeAdapter, ValidationError

from shared.artifacts import Location
from shared.artifacts.snapshots import answering_bundle, bundle_store, index_store, read_index_manifest
from shared.attributes.schema import NO_ATTRIBUTES, AttributeSchema
from shared.blocking import to_thread
from shared.catalogue.categories import OLDER_CATEGORIES, Categories
from shared.errors import ArtifactError, StoreUnavailable
from shared.exhaustion import raise_exhaustion
from shared.photos.preprocessing import PreprocessSpec
from shared.telemetry import event

_LOG = logging.getLogger(__name__)
_READ_EVERY_S = 1.0
_NAMES = TypeAdapter(tuple[str, ...])
_TEXT = TypeAdapter(dict[str, object])


class ServingPreprocessing:
    """Preprocessing and categories of the model that serves and the attributes of its index, kept up to date.

    If it cannot be read, the last one stays in use. A job carries the spec of its pixels, so that a worker whose model
    has another one notices it.

    Args:
        storage: where bundles and snapshots are.
        clock: monotonic time in seconds.
    """

    def __init__(self, storage: Location, clock: Callable[[], float] = time.monotonic) -> None:
        self._storage = storage
        self._clock = clock
        self._reading = threading.Lock()
        self._read_at = float("-inf")
        self._pointers: tuple[str | None, str | None] | None = None
        self._spec = PreprocessSpec()
        self._categories = OLDER_CATEGORIES
        self._attributes = NO_ATTRIBUTES
        self._words: tuple[str, ...] = ()

    def current(self) -> PreprocessSpec:
        """Return the spec, read at most a second ago unless it cannot be read.

        Raises:
            StoreUnavailable, OSError: it could not be read yet: the store does not answer, or the process may open no
                more files. Photos made with a guessed spec would be useless.
        """
        unknown = self._pointers is None  # then callers wait for the read; later ones take the last spec meanwhile
        if (unknown or self._clock() >= self._read_at) and self._reading.acquire(blocking=unknown):
            try:
                self._update()
            except StoreUnavailable:
                if self._pointers is None:
                    raise
            finally:
                self._read_at = self._clock() + _READ_EVERY_S
                self._reading.release()
        return self._spec

    def categories(self) -> Categories:
        """Return the categories that the model tells apart; raises as `current`."""
        self.current()
        return self._categories

    def words(self) -> tuple[str, ...]:
        """Return the attributes that are a listing's words; none: the model knows no words. Raises as `current`."""
        self.current()
        return self._words

    def attributes(self) -> AttributeSchema:
        """Return the attributes of the live index; raises as `current`."""
        self.current()
        return self._attributes

    def _update(self) -> None:
        """Read the manifest again if the live model or index has changed."""
        try:
            bundle = to_thread(self._read)
        except (ArtifactError, OSError, ValidationError) as exc:
            if self._pointers is None:
                raise_exhaustion(exc)
            return  # workers report what is wrong
        if bundle is not None:
            event(_LOG, "spec", spec=str(self._spec), bundle=bundle)

    def _read(self) -> str | None:
        """Returns the version of the bundle that was read, "none" where there is none; None if nothing has changed."""
        bundles = bundle_store(self._storage)
        indexes = index_store(self._storage)
        pointers = (bundles.current(), indexes.current())
        if pointers == self._pointers:
            return None
        version = answering_bundle(self._storage)
        if version is not None:
            manifest = bundles.manifest(version)
            self._spec = PreprocessSpec.model_validate(manifest.get("preprocess"))
            text = _TEXT.validate_python(manifest.get("text") or {})
            self._words = _NAMES.validate_python(text.get("attributes", ()))
            self._categories = Categories(_NAMES.validate_python(manifest.get("categories", OLDER_CATEGORIES.names)))
        if pointers[1] is not None:
            self._attributes = AttributeSchema(read_index_manifest(indexes, pointers[1]).attributes)
        self._pointers = pointers
        return version or "none"
