"""Train a re-ranker on feedback, take it through the quality gates, and promote it if it passes all of them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from pipeline.ranking.choices import Fit, fit_choices, gains
from pipeline.ranking.sessions import Session, sessions_of
from shared.artifacts import Location
from shared.artifacts.rerankers import RerankerManifest, reranker_store, seal_reranker
from shared.artifacts.store import ArtifactStore
from shared.errors import RerankerDamaged, RerankerMissing
from shared.feedback.contract import JobFeedback
from shared.index.answers import Asked
from shared.index.delta.index import DeltaIndex
from shared.index.reranking import Reranker, promoted_reranker, reranked_result
from shared.jobs.contract import SearchRequest
from shared.jobs.reindex_contract import QualityGate
from shared.model.bundle import BundleManifest
from shared.progress import ReportProgress
from shared.reindex.comparison import MAX_LOSS
from shared.reindex.neighbours import sampling_order
from shared.reindex.paired import Difference, compare_pairs
from shared.reindex.quality import SAMPLE

MIN_SESSIONS = 300
MIN_GAIN = 0.005  # of nDCG@4
_NEAREST = 4


class TrainedReranker(NamedTuple):
    """What came of a training.

    Attributes:
        manifest: with the quality gates; weights are None where there was too little feedback to fit any.
        version: in the store; None: it did not pass, and nothing was stored.
    """

    manifest: RerankerManifest
    version: str | None


def train_reranker(
    storage: Location,
    feedback: Sequence[JobFeedback],
    index: DeltaIndex,
    model: BundleManifest,
    report_progress: ReportProgress,
) -> TrainedReranker:
    """Fit a re-ranker on most of the feedback, measure it on the rest and on the index, and promote it if it is better.

    The one that is live goes on if the new one does not pass. Before the first, one that changes nothing is promoted,
    so that a rollback leads back to the answers that there were.

    Args:
        storage: of the installation.
        feedback: all there is.
        index: the live index.
        model: manifest of the model that answers.
        report_progress: receives what was found, a line at a time.

    Raises:
        ArtifactUnwritable: it cannot be stored.
        PromotionRefused: another was promoted meanwhile.
    """
    store = reranker_store(storage)
    before = store.current()
    live = _usable(store, model.fingerprint, report_progress)
    sessions = sessions_of(feedback, index)
    training = [session for session in sessions if not session.held_out]
    held_out = [session for session in sessions if session.held_out]
    report_progress(
        f"{len(feedback)} searches with feedback; of {len(sessions)} it is of this model and says which of several "
        f"results was chosen; {len(held_out)} of them are held out"
    )
    manifest = RerankerManifest(
        fingerprint=model.fingerprint,
        weights=None,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        n_searches=len(training),
        n_held_out=len(held_out),
    )
    enough = _enough(len(sessions))
    if not (enough.passed and training and held_out):
        return TrainedReranker(manifest.model_copy(update={"gates": (enough,)}), None)
    fit = fit_choices(training)
    new = Reranker("new", fit.weights)
    passed: tuple[QualityGate, ...] = (enough, _better(held_out, fit, new, live))
    if passed[-1].passed:
        passed += _no_worse(index, model, new, live)
    examination = tuple(round(one, 4) for one in fit.examined)
    fitted = {"weights": fit.weights, "examination": examination, "gates": passed}
    manifest = manifest.model_copy(update=fitted)
    if not all(gate.passed for gate in passed):
        return TrainedReranker(manifest, None)
    if before is None:
        before = seal_reranker(store, RerankerManifest.none(model.fingerprint))
        store.promote(before, expected=None)
    version = seal_reranker(store, manifest)
    store.promote(version, expected=before)
    return TrainedReranker(manifest, version)


def _usable(store: ArtifactStore, fingerprint: str, report_progress: ReportProgress) -> Reranker | None:
    """The promoted re-ranker; one that cannot be read is no hindrance to training another."""
    try:
        return promoted_reranker(store, fingerprint)
    except (RerankerMissing, RerankerDamaged) as exc:
        report_progress(f"{exc}; results by similarity are compared with")
        return None


def _enough(n_sessions: int) -> QualityGate:
    detail = f"{n_sessions} searches say which of several results was chosen; at least {MIN_SESSIONS} are needed"
    return QualityGate(name="searches", passed=n_sessions >= MIN_SESSIONS, detail=detail)


def _better(held_out: Sequence[Session], fit: Fit, new: Reranker, live: Reranker | None) -> QualityGate:
    """The gate on nDCG@4 of held-out feedback, beside the live order: more must be gained than by chance."""

    def live_order(session: Session) -> Sequence[int]:
        # Positions would tell nothing else, but a result may have stood where an earlier re-ranker put it.
        return live.order(session.features) if live else np.argsort(-session.features[:, 0], kind="stable").tolist()

    now = gains(held_out, fit, lambda session: new.order(session.features))
    then = gains(held_out, fit, live_order)
    found = compare_pairs(now, then, [session.query for session in held_out])
    passed = found is not None and found.mean >= MIN_GAIN and found.low > 0
    detail = _figures(found) + f"; at least {MIN_GAIN} must be gained, and more than by chance"
    return QualityGate(name="feedback_ndcg_at_4", passed=passed, detail=detail)


def _no_worse(
    index: DeltaIndex, model: BundleManifest, new: Reranker, live: Reranker | None
) -> tuple[QualityGate, QualityGate]:
    """The gates of a reindex on what the index's own photos find: category and siblings, searched for as if sent."""
    photos = list(index.snapshot.photos())
    rows = sampling_order(photos)[:SAMPLE]
    siblings: dict[str, int] = {}
    for photo in photos:
        siblings[photo.listing_id] = siblings.get(photo.listing_id, 0) + 1

    def figures(reranker: Reranker | None) -> tuple[list[float | None], list[float | None]]:
        precisions: list[float | None] = []
        found: list[float | None] = []
        for row in rows:
            photo = photos[row]
            asked = Asked(index.stored(photo.image_id))
            k = _NEAREST + siblings[photo.listing_id]
            hits = reranked_result(asked, SearchRequest(k=min(100, k)), index, model, reranker).neighbours
            others = [hit for hit in hits if hit.image_id != photo.image_id]
            foreign = [hit for hit in others if hit.listing_id != photo.listing_id][:_NEAREST]
            right = [hit.category == model.categories[photo.category] for hit in foreign]
            precisions.append(float(np.mean(right)) if right else None)
            there = siblings[photo.listing_id] > 1
            found.append(float(any(hit.listing_id == photo.listing_id for hit in others[:_NEAREST])) if there else None)
        return precisions, found

    listings = [photos[row].listing_id for row in rows]
    compared = zip(("precision_at_4", "sibling_recall_at_4"), figures(new), figures(live), strict=True)
    first, second = (_kept(name, compare_pairs(now, then, listings)) for name, now, then in compared)
    return first, second


def _kept(name: str, found: Difference | None) -> QualityGate:
    passed = found is None or not found.is_loss(MAX_LOSS)
    return QualityGate(name=name, passed=passed, detail=f"{_figures(found)}; {MAX_LOSS} may be lost")


def _figures(found: Difference | None) -> str:
    if found is None:
        return "not measured: too few queries can be compared"
    return (
        f"{found.now:.4f}, live {found.then:.4f}, on {len(found.of)} searches: "
        f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
    )
