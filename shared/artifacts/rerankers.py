"""The artifact store of re-rankers, and the manifest of one, which is all of it."""

from datetime import UTC, datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.artifacts import Location
from shared.artifacts.backends import backend_at
from shared.artifacts.store import MANIFEST, ArtifactStore
from shared.errors import RerankerDamaged, RerankerMissing
from shared.jobs.reindex_contract import QualityGate


class RankingWeights(BaseModel):
    """What each feature of a result counts; see `shared.index.reranking.ranking_features`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    score: float = 0.0
    nearness: float = 0.0
    category: float = 0.0
    words: float = 0.0
    price: float = 0.0
    typical_price: float = 0.0
    recency: float = 0.0
    price_agreement: float = 0.0


class RerankerManifest(BaseModel):
    """A re-ranker.

    Attributes:
        fingerprint: of the model whose searches it ranks.
        weights: of the features; None: results stay as they are.
        examination: how often a result at each position is looked at, beside that at the first, 0..1.
        n_searches: with feedback, that it was fitted on.
        n_held_out: that it was measured on.
        gates: the quality gates it passed.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    fingerprint: str
    weights: RankingWeights | None
    built_at: str
    examination: tuple[float, ...] = ()
    n_searches: int = 0
    n_held_out: int = 0
    gates: tuple[QualityGate, ...] = ()

    @classmethod
    def none(cls, fingerprint: str) -> Self:
        """The re-ranker that changes nothing: what the first real one is rolled back to."""
        return cls(fingerprint=fingerprint, weights=None, built_at=datetime.now(UTC).isoformat(timespec="seconds"))


def reranker_store(storage: Location) -> ArtifactStore:
    """The artifact store of an installation's re-rankers."""
    backend = backend_at(storage, "rerankers", damaged=RerankerDamaged)
    return ArtifactStore(backend, missing=RerankerMissing, damaged=RerankerDamaged)


def seal_reranker(store: ArtifactStore, manifest: RerankerManifest) -> str:
    """Write a version, not promoted, and return its name.

    Raises:
        ArtifactUnwritable: the disk is full or may not be written.
    """
    with store.write() as draft:
        (draft.directory / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
    return draft.version


def read_reranker(store: ArtifactStore, version: str) -> RerankerManifest:
    """The manifest of a version, verified.

    Raises:
        RerankerMissing, RerankerDamaged: not there, or not what was written.
    """
    store.verify(version)
    try:
        return RerankerManifest.model_validate(store.manifest(version))
    except ValidationError as exc:
        raise RerankerDamaged(f"{version}: {MANIFEST} is not that of a re-ranker") from exc
