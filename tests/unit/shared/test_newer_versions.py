"""Records and files may be of a newer version: fields that this one does not know are ignored"""

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from pydantic import BaseModel
from pydantic_settings import BaseSettings

import shared
from shared.api_keys import ApiKey, Scope
from shared.artifacts.promotion_log import Promotion, PromotionLog
from shared.artifacts.rerankers import RankingWeights, RerankerManifest
from shared.artifacts.snapshots import IndexFacts, IndexKind, IndexManifest
from shared.attributes.schema import Attribute, AttributeType, ValueCount
from shared.catalogue.categories import CATEGORIES
from shared.changes.overrides import CatalogueOverride, OverridePhoto
from shared.feedback.contract import FeedbackEvent, Impression, JobFeedback, ShownResult, StoredEvent
from shared.jobs.answers_contract import (
    CategoryAnswer,
    CategoryScore,
    EmbedResult,
    Neighbour,
    SearchResult,
    Timing,
)
from shared.jobs.batches import Batch, BatchItem
from shared.jobs.contract import (
    DeleteImageRequest,
    Distinct,
    EmbedRequest,
    Encoding,
    ImageChangeResult,
    JobError,
    JobKind,
    Priority,
    PutImageRequest,
    SearchRequest,
    Submission,
)
from shared.jobs.reindex_contract import (
    Progress,
    ReindexCounts,
    ReindexMode,
    ReindexRequest,
    ReindexResult,
    ShardPhoto,
    ShardRequest,
    ShardResult,
)
from shared.jobs.worker_report import IndexInfo, StageTimes, WorkerReport, WorkerStats
from shared.model.bundle import BundleManifest, Normalisation, Split
from shared.photos.preprocessing import PreprocessSpec
from tests.support.newer import with_unknown_fields
from tests.support.versions import REPORT

TIMING = Timing(queued=1, compute=2, total=3)
CATEGORY = CategoryAnswer(
    name=CATEGORIES[2], index=2, probability=0.9, top=[CategoryScore(name=CATEGORIES[2], probability=0.9)]
)
SPEC = PreprocessSpec(size_px=256, fit="crop")
ERROR = JobError(code="worker_lost", detail="its worker died", retryable=True)
INDEX = IndexInfo(
    version="v", count=1, dimension=1, built_at="b", catalogue="c", backbone="b", weights="w", model_fingerprint="f",
    model_version="m", metrics={"accuracy": 0.9}, preprocess=SPEC,
)  # fmt: skip
NORMALISATION = Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

STORED: list[BaseModel] = [
    # requests, and what is said of any job
    EmbedRequest(image_id="p1", encoding=Encoding.BASE64),
    SearchRequest(k=7, category=CATEGORIES[1], distinct=Distinct.LISTING),
    PutImageRequest(image_id="p1", listing_id="l1", category=CATEGORIES[1], sequence=5),
    DeleteImageRequest(image_id="p1", sequence=5),
    ReindexRequest(mode=ReindexMode.ALL, dry_run=True),
    ShardRequest(bundle_version="v", scope="s", photos=(ShardPhoto(path="p", sha256="00"),)),
    Submission(priority=Priority.BULK, deadline_s=5),
    SPEC,
    # what became of them
    SearchResult(
        category=CATEGORY,
        neighbours=[Neighbour(rank=1, image_id="p", listing_id="l", category=CATEGORIES[2], score=0.9, row=10)],
        index_version="v",
        model_fingerprint="f",
        timing_ms=TIMING,
    ),
    EmbedResult(category=CATEGORY, scores=[0.5] * 13, embedding="AAAA", dimension=1, model_fingerprint="f"),
    ImageChangeResult(image_id="p", change_id="1-0", timing_ms=TIMING),
    ReindexResult(mode=ReindexMode.ALL, counts=ReindexCounts(seen=3), reasons={"no image": 2}, report=REPORT),
    ShardResult(name="n"),
    ERROR,
    Progress(stage="embedding", done=1, total=2),
    # the rest of what lies in Redis
    Batch(id="b", kind=JobKind.SEARCH, owner="", created_at=1, items=[BatchItem(custom_id="0", error=ERROR)]),
    ApiKey(id="k", name="n", scopes=frozenset({Scope.READ}), created_at=1, sha256="00"),
    WorkerReport(
        name="w", pid=1, reported_at=1, state="ready", index=INDEX, stats=WorkerStats(stages={"total": StageTimes()})
    ),
    # files
    IndexManifest(
        count=1,
        dimension=1,
        fingerprint="f",
        catalogue="c",
        catalogue_digest="d",
        built_at="b",
        index=IndexFacts(kind=IndexKind.EXACT, recall_at_10=1),
        report=REPORT,
    ),
    BundleManifest(
        backbone="b",
        weights="w",
        weights_sha256="00",
        embedding_dim=4,
        preprocess=SPEC,
        normalisation=NORMALISATION,
        catalogue="c",
        built_at="b",
    ),
    Split(train=frozenset({"l1"}), test=frozenset({"l2"})),
    PromotionLog(fence=1, promotions=(Promotion(version="v", at=1),)),
    Attribute(name="colour", type=AttributeType.KEYWORD, values=(ValueCount(value="red", count=2),)),
    JobFeedback(
        impression=Impression(
            job_id="j",
            searched_at=1,
            index_version="v",
            model_fingerprint="f",
            shown=(ShownResult(image_id="p", listing_id="l", category="c", score=1),),
        ),
        events=(StoredEvent(event=FeedbackEvent.CLICK, image_id="p", at=2),),
    ),
    RerankerManifest(fingerprint="f", weights=RankingWeights(price=1), built_at="2026"),
    CatalogueOverride(sequence=1, catalogue_said="s", photo=OverridePhoto(listing_id="l", category=1, sha256="00")),
]


@pytest.mark.parametrize("stored", STORED, ids=lambda stored: type(stored).__name__)
def test_unknown_fields_change_nothing(stored: BaseModel) -> None:
    text = stored.model_dump_json()
    newer = with_unknown_fields(text)
    assert newer.count("of_a_newer_version")
    assert type(stored).model_validate_json(newer) == type(stored).model_validate_json(text) == stored


def models() -> Iterator[type[BaseModel]]:
    for name in (module.name for module in pkgutil.walk_packages(shared.__path__, "shared.")):
        for found in vars(importlib.import_module(name)).values():
            if isinstance(found, type) and issubclass(found, BaseModel) and found.__module__ == name:
                yield found


def test_no_shared_model_refuses_unknown_fields() -> None:
    """Whoever reads what a client sent refuses them, when it reads."""
    found = {model for model in models() if not issubclass(model, BaseSettings)}
    assert found >= {type(stored) for stored in STORED}
    assert [model.__name__ for model in found if model.model_config.get("extra") == "forbid"] == []
