"""Clicks -> a re-ranker -> gates -> promotion -> served -> rolled back, on an index of made listings."""

import gzip
import json
import math
import shutil
from collections.abc import Iterator, Set
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from pydantic import JsonValue

from pipeline.cli.main import main
from pipeline.ranking.choices import fit_choices
from pipeline.ranking.sessions import sessions_of
from pipeline.ranking.train import TrainedReranker, train_reranker
from shared.artifacts.backends import backend_at
from shared.artifacts.rerankers import RankingWeights, RerankerManifest, reranker_store, seal_reranker
from shared.artifacts.snapshots import index_store
from shared.artifacts.store import MANIFEST
from shared.attributes.schema import Attribute, AttributeSchema, AttributeType, as_payload
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.feedback.contract import FeedbackEvent, JobFeedback, StoredEvent
from shared.index.delta.index import DeltaIndex
from shared.index.reranking import FEATURES, RankedQuery, RankedResult, Reranker, promoted_reranker, ranking_features
from shared.index.snapshot import open_snapshot
from shared.jobs.answers_contract import SearchResult
from shared.jobs.contract import SearchRequest
from shared.model.bundle import ModelBundle, bundle_store, open_bundle
from shared.model.embedder import Embeddings
from tests.support.clicks import People, geometric, reciprocal
from tests.support.installation import Installation
from tests.support.snapshots import write_snapshot
from worker.serving.engine import Engine

N = 300
K = 12
SCHEMA = AttributeSchema(
    (
        Attribute(name="title", type=AttributeType.TEXT),
        Attribute(name="price", type=AttributeType.PRICE, currencies=("GBP",)),
        Attribute(name="listed", type=AttributeType.TIME),
    )
)
COLOURS = ("red", "blue", "green", "black")


@pytest.fixture(scope="module")
def made(built: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation whose index has a listing a photo, with title, price and day."""
    home = shutil.copytree(built.home, tmp_path_factory.mktemp("ranking") / "home")
    bundle = open_bundle(bundle_store(home))
    rng = np.random.default_rng(1)
    categories = rng.integers(len(CATEGORIES), size=N)
    dim = bundle.manifest.embedding_dim
    centres = rng.standard_normal((len(CATEGORIES), dim))
    vectors = (centres[categories] + 5 * rng.standard_normal((N, dim))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = (3 * np.eye(len(CATEGORIES))[categories] + rng.standard_normal((N, len(CATEGORIES)))).astype(np.float32)

    def photos() -> Iterator[CataloguePhoto]:
        for row, category in enumerate(categories.tolist()):
            price: dict[str, JsonValue] = {"amount": round(float(np.exp(rng.uniform(1, 6))), 2), "currency": "GBP"}
            day = date(2026, 1, 1) + timedelta(days=int(rng.integers(300)))
            title = f"{COLOURS[int(rng.integers(4))]} thing {category} no {row}"
            payload = as_payload({"title": title, "price": price, "listed": day.isoformat()})
            yield CataloguePhoto(f"p{row}", f"l{row}", category, Path("x.jpg"), f"{row:064x}", payload)

    version = write_snapshot(
        index_store(home),
        photos(),
        Embeddings(vectors, scores),
        fingerprint=bundle.manifest.fingerprint,
        catalogue="made",
        catalogue_digest="0" * 64,
        attributes=SCHEMA,
    )
    index_store(home).promote(version)
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "home"))


@pytest.fixture(scope="module")
def bundle(made: Path) -> ModelBundle:
    return open_bundle(bundle_store(made))


@pytest.fixture(scope="module")
def index(made: Path, bundle: ModelBundle) -> DeltaIndex:
    return DeltaIndex(open_snapshot(index_store(made), fingerprint=bundle.manifest.fingerprint), lambda put: None)


@pytest.fixture(scope="module")
def listings(index: DeltaIndex) -> list[CataloguePhoto]:
    return list(index.snapshot.photos())


def people(index: DeltaIndex, bundle: ModelBundle, listings: list[CataloguePhoto], **others: object) -> People:
    """They want things of the listing's category, at most two and a half times as dear or cheap."""
    prices = {photo.image_id: amount(index, photo) for photo in listings}

    def wanted(photo: CataloguePhoto) -> Set[str]:
        own = prices[photo.image_id]
        return {
            other.image_id
            for other in listings
            if other is not photo and other.category == photo.category and 0.4 < prices[other.image_id] / own < 2.5
        }

    def asked(photo: CataloguePhoto) -> SearchRequest:
        return SearchRequest(k=K, listing_id=photo.listing_id)

    return People(index, bundle, wanted, asked, **others)  # type: ignore[arg-type]


def amount(index: DeltaIndex, photo: CataloguePhoto) -> float:
    return float(index.payload_of(photo.listing_id).split('"amount":')[1].split(",")[0])


def trained(home: Path, feedback: list[JobFeedback], index: DeltaIndex, bundle: ModelBundle) -> TrainedReranker:
    return train_reranker(home, feedback, index, bundle.manifest, lambda line: None)


@pytest.fixture(scope="module")
def clicks(index: DeltaIndex, bundle: ModelBundle, listings: list[CataloguePhoto]) -> list[JobFeedback]:
    """On searches by photos of the first half of the listings."""
    return list(people(index, bundle, listings).sessions(listings[: N // 2], 1000))


def test_position_biased_clicks_raise_ndcg_on_listings_that_nobody_has_clicked_from(
    home: Path, clicks: list[JobFeedback], index: DeltaIndex, bundle: ModelBundle, listings: list[CataloguePhoto]
) -> None:
    made = trained(home, clicks, index, bundle)
    assert made.version == reranker_store(home).current()
    reranker = promoted_reranker(reranker_store(home), bundle.manifest.fingerprint)
    everybody = people(index, bundle, listings)
    unseen = listings[N // 2 :]
    assert everybody.ndcg(unseen, reranker) >= everybody.ndcg(unseen, None) + 0.05
    weights = made.manifest.weights
    assert weights is not None
    assert min(weights.category, weights.price) > 0
    # What is live is the measure of what comes next: the same feedback gains nothing more.
    again = trained(home, clicks, index, bundle)
    assert again.version is None
    assert [gate.name for gate in again.manifest.gates if not gate.passed] == ["feedback_ndcg_at_4"]
    assert reranker_store(home).current() == made.version


def test_how_often_positions_are_looked_at_is_told_apart_from_what_stands_there(
    clicks: list[JobFeedback], index: DeltaIndex, bundle: ModelBundle, listings: list[CataloguePhoto]
) -> None:
    positions = np.arange(1.0, K + 1)
    # What people want is no logistic function of the features, so that the estimate has a bias of its own.
    fit = fit_choices(sessions_of(clicks, index))
    np.testing.assert_allclose(fit.examination(positions), reciprocal(positions), atol=0.2)
    blind = people(index, bundle, listings, examined=geometric, blind=True)
    fit = fit_choices(sessions_of(blind.sessions(listings, 800), index))
    np.testing.assert_allclose(fit.examination(positions), np.maximum(geometric(positions), 0.05), atol=0.12)


@pytest.mark.parametrize("seed", range(3))
def test_clicks_on_whatever_is_looked_at_are_refused(
    tmp_path: Path, index: DeltaIndex, bundle: ModelBundle, listings: list[CataloguePhoto], seed: int
) -> None:
    examined = (reciprocal, geometric)[seed % 2]
    blind = people(index, bundle, listings, blind=True, seed=seed, examined=examined)
    made = trained(tmp_path, list(blind.sessions(listings, 700)), index, bundle)
    assert made.version is None
    assert "feedback_ndcg_at_4" in [gate.name for gate in made.manifest.gates if not gate.passed]
    assert reranker_store(tmp_path).versions() == []


def test_too_few_clicks_decide_nothing_and_what_is_bought_counts_more(
    tmp_path: Path, clicks: list[JobFeedback], index: DeltaIndex, bundle: ModelBundle
) -> None:
    made = trained(tmp_path, clicks[:200], index, bundle)
    assert (made.version, [gate.name for gate in made.manifest.gates]) == (None, ["searches"])
    assert "at least 300" in made.manifest.gates[0].detail
    one = clicks[0]
    shown = one.impression.shown[-1].image_id
    bought = StoredEvent(event=FeedbackEvent.PURCHASE, image_id=shown, at=1)
    [session] = sessions_of([one.model_copy(update={"events": (*one.events, bought)})], index)
    assert np.flatnonzero(session.chosen).tolist() == [len(one.impression.shown) - 1]
    foreign = one.impression.model_copy(update={"model_fingerprint": "f" * 64})
    assert sessions_of([one.model_copy(update={"impression": foreign})], index) == []


REQUESTS: tuple[dict[str, object], ...] = (
    {"listing_id": "l1"},
    {"image_id": "p2", "k": 12},
    {"image_id": "p3", "include": ["price"], "k": 60},
    {"image_id": "p4", "facets": ["category"], "facet_scope": "hits"},
    {"image_id": "p5", "distinct": "listing", "min_score": -0.5},
)
OF_THEIR_OWN_ORDER: tuple[dict[str, object], ...] = (
    {"image_id": "p5", "prefer": "same_kind"},
    {"image_id": "p5", "distinct": "listing", "listing_score": "mean"},
)


def answers(engine: Engine, requests: tuple[dict[str, object], ...] = REQUESTS) -> list[SearchResult]:
    engine.refresh()
    found = [engine.run(SearchRequest.model_validate(one), None) for one in requests]
    assert all(isinstance(one, SearchResult) for one in found)
    return found  # type: ignore[return-value]


def as_bytes(found: list[SearchResult]) -> list[str]:
    return [one.model_dump_json() for one in found]


def typed(*words: str) -> dict[str, Any]:
    """What a verb of the command line tells."""
    ran = CliRunner().invoke(main, ["reranker", *words, "--json"])
    return {"exit": ran.exit_code, **json.loads(ran.stdout)}


def test_what_is_promoted_orders_answers_and_a_rollback_brings_back_every_byte(
    home: Path, clicks: list[JobFeedback], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_HOME", str(home))
    monkeypatch.delenv("LOOKALIKE_REDIS_URL", raising=False)
    archived = "".join(f"{one.model_dump_json(exclude_none=True)}\n" for one in clicks)
    backend_at(home, "feedback").write("2026-11/1.jsonl.gz", gzip.compress(archived.encode()))
    engine = Engine(home)
    before = answers(engine)
    own = as_bytes(answers(engine, OF_THEIR_OWN_ORDER))
    assert not any("reranker" in one for one in as_bytes(before))
    told = typed("train")
    version = told["live"]
    assert [gate["name"] for gate in told["gates"] if gate["passed"]] == [
        "searches", "feedback_ndcg_at_4", "precision_at_4", "sibling_recall_at_4",
    ]  # fmt: skip
    after = answers(engine)
    assert {one.reranker_version for one in after} == {version}
    for then, now, request in zip(before, after, REQUESTS, strict=True):
        assert [one.rank for one in now.neighbours] == list(range(1, len(then.neighbours) + 1))
        assert [one.image_id for one in now.neighbours] != [one.image_id for one in then.neighbours]
        changed = {"neighbours", "reranker_version", "facets"}
        assert now.model_dump(exclude=changed) == then.model_dump(exclude=changed)
        names = request.get("include")
        assert all((one.attributes is None) is (names is None) for one in now.neighbours)
        if then.facets and now.facets:
            assert now.facets["category"].count == then.facets["category"].count
    # What is asked for in an order of its own, and results far down, stay as they are.
    assert as_bytes(answers(engine, OF_THEIR_OWN_ORDER)) == own
    assert [one.image_id for one in after[2].neighbours[50:]] == [one.image_id for one in before[2].neighbours[50:]]
    assert as_bytes(answers(engine)) == as_bytes(after)
    baseline = typed("rollback")["live"]
    assert as_bytes(answers(engine)) == as_bytes(before)
    assert typed("rollback")["error"]["code"] == "promotion_refused"
    assert [(one["version"], one["live"]) for one in typed("list")["versions"]] == [(version, False), (baseline, True)]
    assert typed("promote", version) == {"exit": 0, "live": version}
    assert as_bytes(answers(engine)) == as_bytes(after)
    assert typed("promote", "x")["error"]["code"] == "reranker_missing"
    engine.close()


def test_a_reranker_that_cannot_be_used_leaves_answers_as_they_are(home: Path, bundle: ModelBundle) -> None:
    engine, store = Engine(home), reranker_store(home)
    before = as_bytes(answers(engine))
    manifest = RerankerManifest.none(bundle.manifest.fingerprint)
    weighs = {"weights": RankingWeights(price=1)}
    for changed in ({}, {**weighs, "fingerprint": "f" * 64}):
        store.promote(seal_reranker(store, manifest.model_copy(update=changed)))
        assert as_bytes(answers(engine)) == before
    damaged = seal_reranker(store, manifest.model_copy(update=weighs))
    whole = (store.path(damaged) / MANIFEST).read_text()
    (store.path(damaged) / MANIFEST).write_text(whole.replace('"price": 1.0', '"price": 9.0'))
    store.promote(damaged)
    assert as_bytes(answers(engine)) == before
    (store.path(damaged) / MANIFEST).write_text(whole)
    store.rollback()
    answers(engine)
    store.promote(damaged)
    assert as_bytes(answers(engine)) != before
    engine.close()


def test_one_that_is_damaged_is_listed_as_such_and_another_can_be_trained(
    home: Path, clicks: list[JobFeedback], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_HOME", str(home))
    monkeypatch.delenv("LOOKALIKE_REDIS_URL", raising=False)
    archived = "".join(f"{one.model_dump_json(exclude_none=True)}\n" for one in clicks)
    backend_at(home, "feedback").write("2026-11/1.jsonl.gz", gzip.compress(archived.encode()))
    store, first = reranker_store(home), typed("train")["live"]
    (store.path(first) / MANIFEST).write_text("{}")
    [damaged, baseline] = typed("list")["versions"]
    assert (damaged["version"], damaged["live"], first in damaged["problem"]) == (first, True, True)
    assert (baseline["weights"], "problem" in baseline) == (None, False)
    assert "damaged" in CliRunner().invoke(main, ["reranker", "list"]).stdout
    assert typed("promote", first)["error"]["code"] == "reranker_damaged"
    again = CliRunner().invoke(main, ["reranker", "train", "--json"])
    assert (again.exit_code, "results by similarity are compared with" in again.stderr) == (0, True)
    assert store.current() == json.loads(again.stdout)["live"] != first


def test_prices_agree_with_those_of_the_most_similar_results(index: DeltaIndex, listings: list[CataloguePhoto]) -> None:
    scores = [0.9, 0.85, 0.7, 0.7, 0.5, 0.2]
    results = [RankedResult(f"l{row}", CATEGORIES[listings[row].category], score) for row, score in enumerate(scores)]
    features = ranking_features(
        [*results, RankedResult("without a price", "", 0.6)], RankedQuery(None, None, []), index
    )
    prices = [amount(index, listings[row]) for row in range(len(scores))]
    counts = [math.exp(score / 0.1) for score in scores]
    expected = np.array([np.average([-min(1, abs(math.log(a / b))) for b in prices], weights=counts) for a in prices])
    found = features[:, FEATURES.index("price_agreement")]
    np.testing.assert_allclose(found, [*(expected - expected.mean()), 0], atol=1e-12)


def test_results_that_are_worth_the_same_stay_in_their_order() -> None:
    features = np.zeros((3, len(FEATURES)))
    features[:, 0] = 0.5, 0.9, 0.5
    assert Reranker("v", RankingWeights(score=1)).order(features) == [1, 0, 2]
    assert Reranker("v", RankingWeights()).order(features) == [0, 1, 2]
