"""Reads which bundle and index are promoted, and fetches their files to this machine without opening them."""

import logging
from collections.abc import Callable

from shared.artifacts import Location
from shared.artifacts.snapshots import answering_bundle, bundle_store, index_store
from shared.artifacts.store import ArtifactStore
from shared.errors import ArtifactError, BundleMissing, StoreUnavailable
from shared.telemetry import event

_LOG = logging.getLogger(__name__)

Pointers = tuple[str | None, str | None]  # promoted versions: of the bundle, of the index


class PromotedArtifacts:
    """The promoted versions of one installation.

    Args:
        storage: of the installation.

    Attributes:
        bundles, indexes: the artifact stores.
    """

    def __init__(self, storage: Location) -> None:
        self.bundles = bundle_store(storage)
        self.indexes = index_store(storage)
        self._storage = storage

    def pointers(self) -> Pointers:
        """Read the versions of the promoted bundle and the promoted index; None where none is promoted.

        Raises:
            BundleMissing, IndexMissing: a pointer names a version that is not there.
            StoreUnavailable: the object store does not answer.
        """
        return self.bundles.current(), self.indexes.current()

    def bundle(self) -> str:
        """Read the version of the promoted bundle.

        Raises:
            BundleMissing: none is promoted.
        """
        version = self.bundles.current()
        if version is None:
            raise BundleMissing("no model bundle has been promoted yet; `lookalike index build` makes one")
        return version

    def answering(self) -> str:
        """Return the version of the bundle that searches use, see `answering_bundle`."""
        return answering_bundle(self._storage) or self.bundle()

    def fetch(self, known: Pointers | None, tell: Callable[[str], None]) -> None:
        """Fetch the promoted versions to this machine. Errors are ignored here: opening the version reports them.

        Args:
            known: pointers whose files were fetched before; these are skipped.
            tell: called with a message about each fetch, for people.
        """
        try:
            for store, version in self._needed(known):
                if not store.is_here(version):
                    tell(f"{version} is being fetched from {store.place}")
                    event(_LOG, "fetching", version=version, store=store.place)
                    store.path(version)
        except (ArtifactError, StoreUnavailable, OSError):
            pass

    def is_here(self, known: Pointers | None) -> bool:
        """Tell whether nothing is left to fetch; false while the object store does not answer.

        Args:
            known: see `fetch`.
        """
        try:
            return all(store.is_here(version) for store, version in self._needed(known))
        except StoreUnavailable:
            return False
        except ArtifactError:
            return True  # fetching again would not help

    def _needed(self, known: Pointers | None) -> list[tuple[ArtifactStore, str]]:
        pointers = self.pointers()
        if pointers == known:
            return []
        bundles = {answering_bundle(self._storage), pointers[0]}
        needed = [*((self.bundles, bundle) for bundle in bundles), (self.indexes, pointers[1])]
        return [(store, version) for store, version in needed if version is not None]
