"""What is promoted, and whether it is on this machine yet. Opens nothing."""

import logging
from collections.abc import Callable

from shared.artifacts import Location
from shared.artifacts.snapshots import answering_bundle, bundle_store, index_store
from shared.artifacts.store import ArtifactStore
from shared.errors import ArtifactError, BundleMissing, StoreUnavailable
from shared.telemetry import event

_LOG = logging.getLogger(__name__)

Pointers = tuple[str | None, str | None]  # of the bundles and the indexes


class PromotedArtifacts:
    """The pointers of one installation.

    Attributes:
        bundles, indexes: where versions lie.
    """

    def __init__(self, storage: Location) -> None:
        self.bundles = bundle_store(storage)
        self.indexes = index_store(storage)
        self._storage = storage

    def pointers(self) -> Pointers:
        """The promoted bundle and the promoted index.

        Raises:
            BundleMissing, IndexMissing, StoreUnavailable: a pointer leads nowhere, or cannot be read.
        """
        return self.bundles.current(), self.indexes.current()

    def bundle(self) -> str:
        """The promoted bundle.

        Raises:
            BundleMissing: there is none.
        """
        version = self.bundles.current()
        if version is None:
            raise BundleMissing("no model bundle has been promoted yet; `lookalike index build` makes one")
        return version

    def answering(self) -> str:
        """The bundle that searches are answered with, see `answering_bundle`."""
        return answering_bundle(self._storage) or self.bundle()

    def fetch(self, known: Pointers | None, tell: Callable[[str], None]) -> None:
        """Bring to this machine what it needs; what is wrong with that is told by whoever opens it.

        Args:
            known: pointers of which everything is here, or cannot be.
            tell: is told what is fetched.
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
        """Whether nothing is left to fetch; not known, and so no, while the store does not answer."""
        try:
            return all(store.is_here(version) for store, version in self._needed(known))
        except StoreUnavailable:
            return False
        except ArtifactError:
            return True  # as far as it can be

    def _needed(self, known: Pointers | None) -> list[tuple[ArtifactStore, str]]:
        pointers = self.pointers()
        if pointers == known:
            return []
        bundles = {answering_bundle(self._storage), pointers[0]}
        needed = [*((self.bundles, bundle) for bundle in bundles), (self.indexes, pointers[1])]
        return [(store, version) for store, version in needed if version is not None]
