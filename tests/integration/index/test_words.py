"""Words in every kind of index and in pending changes, beside a comparison with every photo in the plainest way."""

import json
import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.array_types import FloatArray
from shared.artifacts.snapshots import IndexKind, index_store, read_index_manifest
from shared.artifacts.store import ArtifactStore
from shared.attributes.schema import Attribute, AttributeSchema, AttributeType, as_payload
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.changes.log import Change, PutPhoto
from shared.index.arrays import write_array
from shared.index.delta.index import DeltaIndex
from shared.index.matches import find_match
from shared.index.milvus.index import open_collection
from shared.index.query import WordsQuery
from shared.index.snapshot import open_files
from shared.index.vector_index import VectorIndex
from shared.index.vectors.compression import EXACT_UP_TO
from shared.index.words.word_lists import POSTINGS, WORD_LISTINGS, WORDS, PackedLists
from shared.jobs.contract import Distinct, SearchRequest
from shared.model.embedder import Embeddings, normalised
from shared.model.fusion import softmax
from shared.model.matching import Matching
from shared.text.cleaning import TextRules
from shared.text.encoder import TextEncoder, TextFacts
from shared.text.features import features, tokens
from tests.support.milvus import MilvusLite
from tests.support.snapshots import write_snapshot
from tests.support.vectors import FINGERPRINT, unit_rows

N = 600
PER_LISTING = 3
THINGS = ("oak table", "pine shelf", "brass lamp", "wool coat", "steel kettle", "silver ring", "rubber boot")
SCHEMA = AttributeSchema(
    (Attribute(name="title", type=AttributeType.TEXT), Attribute(name="size", type=AttributeType.NUMBER))
)
VECTORS = unit_rows(N, seed=13)
QUERIES = unit_rows(4, seed=14)
SCORES = np.zeros((N, len(CATEGORIES)), dtype=np.float32)
RULES = TextRules()


def drawn_encoder() -> TextEncoder:
    """Knows the words of the things; its axes and maps are drawn."""
    known = sorted(set(np.concatenate([features(thing).words for thing in THINGS]).tolist()))
    random = np.random.default_rng(15)
    n, dimension, n_categories, dim = len(known), 8, len(CATEGORIES), VECTORS.shape[1]
    facts = TextFacts(
        attributes=("title",), dimension=dimension, evidence=0.5, temperature=1, slope=0.7, offset=0.1, rules=RULES
    )
    return TextEncoder(facts, {
        "words": np.array(known, dtype=np.uint64),
        "letters": np.empty(0, dtype=np.uint64),
        "rarity": np.ones(n, dtype=np.float32),
        "axes": random.standard_normal((n, dimension)).astype(np.float16),
        "classes": random.standard_normal((n, n_categories)).astype(np.float16),
        "class_bias": np.zeros(n_categories, dtype=np.float32),
        "to_photo": random.standard_normal((dimension + n_categories, dim)).astype(np.float32),
        "to_photo_bias": np.zeros(dim, dtype=np.float32),
    })  # fmt: skip


ENCODER = drawn_encoder()


def payload_of(listing: int) -> str:
    """Every fourth listing has no words."""
    words = f"{THINGS[listing % 7]} and {THINGS[listing // 7 % 7]}"
    return as_payload({"size": listing % 10} | ({"title": words} if listing % 4 else {}))


def photo(row: int) -> CataloguePhoto:
    listing = row // PER_LISTING
    category = listing % len(CATEGORIES)
    return CataloguePhoto(f"p{row}", f"l{listing}", category, Path("x.jpg"), f"{row:064x}", payload_of(listing))


PHOTOS = [photo(row) for row in range(N)]


def written(store: ArtifactStore, **options: Any) -> str:
    """A version with all photos; returns its name."""
    made = Embeddings(VECTORS, SCORES)
    return write_snapshot(
        store,
        PHOTOS,
        made,
        fingerprint=FINGERPRINT,
        catalogue="drawn",
        catalogue_digest="0" * 64,
        attributes=SCHEMA,
        **options,
    )


@pytest.fixture(scope="module", params=["exact", "compressed", "milvus"])
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorIndex]:
    """Of each kind, looking into all that there is, so that it must find what the plainest way finds."""
    kind: str = request.param
    lite: MilvusLite | None = request.getfixturevalue("milvus") if kind == "milvus" else None
    server = lite.connect() if lite else None
    store = index_store(tmp_path_factory.mktemp("home"))
    version = written(store, exact_up_to=0 if kind == "compressed" else EXACT_UP_TO, server=server, encoder=ENCODER)
    manifest = read_index_manifest(store, version)
    assert manifest.index is not None
    assert manifest.texts is not None
    assert manifest.texts.n_with_words == 150
    assert (manifest.texts.kind is IndexKind.COMPRESSED) == (kind == "compressed")
    thorough = {"n_probes": 4096, "n_candidates": N}
    manifest = manifest.model_copy(
        update={
            "index": manifest.index.model_copy(update={"n_probes": manifest.index.n_lists, "n_candidates": N}),
            "texts": manifest.texts.model_copy(update=thorough),
        }
    )
    if server:
        yield open_collection(server, store.path(version), version, manifest)
    else:
        yield open_files(store.path(version), version, manifest)


def asked(text: str, weight: float, *, alone: bool = False) -> WordsQuery:
    query = ENCODER.encode(text)
    assert query is not None
    return WordsQuery.of(query, weight, ENCODER.facts, alone=alone)


@cache
def words_of(payload: str) -> frozenset[str]:
    return frozenset(tokens(json.loads(payload).get("title", "")))


@cache
def rarity(word: str) -> float:
    n_listings = N // PER_LISTING
    n_with = sum(word in words_of(payload_of(listing)) for listing in range(n_listings))
    return math.log((1 + n_listings) / (1 + n_with)) ** 3


def said(payload: str, text: str, *, alone: bool) -> float:
    """How much of a text a listing says word for word, by which words each listing of the index has."""
    known = {word for thing in THINGS for word in tokens(thing)}
    wanted = set(tokens(text))
    there = wanted & words_of(payload)
    of_all = sum(map(rarity, wanted))
    new = float((sum(map(rarity, there - known)) / of_all) ** min(1, len(wanted) / 4))
    return max(new, (sum(map(rarity, there)) / of_all) ** 4) if alone else new


encoded = cache(ENCODER.of_listing)


def naive_score(
    vector: FloatArray, payload: str, category: int, query: FloatArray, text: str, words: WordsQuery
) -> float:
    """How similar one photo is to a query."""
    listing = encoded(payload, category)
    similar = float(vector @ words.expected) + words.offset
    if listing is not None:
        similar = float(listing.vector @ words.vector)
    both = (1 - words.weight) * float(vector @ query) + words.weight * similar
    raised = said(payload, text, alone=words.alone or words.weight == 1) * 0.9 * (1 if words.alone else words.weight)
    return both + raised * (1 - both)


def naive_scores(query: FloatArray, text: str, words: WordsQuery) -> FloatArray:
    """How similar every photo is, one after the other."""
    scores = [
        naive_score(VECTORS[row], one.payload, one.category, query, text, words) for row, one in enumerate(PHOTOS)
    ]
    rounded: FloatArray = np.clip(np.round(scores, 4), -1, 1).astype(np.float32)
    return rounded


def ids(rows: list[int]) -> list[str]:
    return [PHOTOS[row].image_id for row in rows]


@pytest.mark.parametrize("weight", [0.2, 0.5, 0.8, 1.0])
def test_photo_and_words_find_what_comparing_with_every_photo_finds(index: VectorIndex, weight: float) -> None:
    for number, query in enumerate(QUERIES):
        text = f"a {THINGS[number]} with {THINGS[number + 2]}"
        words = asked(text, weight, alone=number == 3)
        scores = naive_scores(query, text, words)
        found = index.search(query, SearchRequest(k=10), words=words)
        assert len({hit.image_id for hit in found}) == 10
        np.testing.assert_allclose([hit.score for hit in found], np.sort(scores)[::-1][:10], atol=2e-4)
        np.testing.assert_allclose([scores[hit.row] for hit in found], [hit.score for hit in found], atol=2e-4)


def test_filters_hold_and_hidden_rows_stay_hidden(index: VectorIndex) -> None:
    words = asked("oak table", 0.6)
    given = {"must": [{"key": "size", "range": {"gte": 4}}]}
    request = SearchRequest.model_validate({"k": 20, "filter": given, "exclude_listing": "l7"})
    hidden = np.array([15, 16, 17, 300])
    found = index.search(QUERIES[0], request, hidden=hidden, words=words)
    scores = naive_scores(QUERIES[0], "oak table", words)
    allowed = [r for r in range(N) if r // 3 % 10 >= 4 and r // 3 != 7 and r not in hidden]
    best = sorted((float(scores[row]) for row in allowed), reverse=True)[:20]
    assert {hit.row for hit in found} <= set(allowed)
    np.testing.assert_allclose([hit.score for hit in found], best, atol=2e-4)


def test_one_photo_a_listing(index: VectorIndex) -> None:
    words = asked("brass lamp", 0.5)
    found = index.search(QUERIES[1], SearchRequest(k=15, distinct=Distinct.LISTING), words=words)
    scores = naive_scores(QUERIES[1], "brass lamp", words)
    best = sorted((float(scores[3 * listing : 3 * listing + 3].max()) for listing in range(N // 3)), reverse=True)
    assert len({hit.listing_id for hit in found}) == 15
    np.testing.assert_allclose([hit.score for hit in found], best[:15], atol=2e-4)


@pytest.mark.parametrize("exact_up_to", [0, EXACT_UP_TO])
def test_versions_with_postings_of_eight_bytes_answer_the_same(tmp_path: Path, exact_up_to: int) -> None:
    store = index_store(tmp_path)
    version = written(store, exact_up_to=exact_up_to, encoder=ENCODER)
    directory, manifest = store.path(version), read_index_manifest(store, version)
    now = open_files(directory, version, manifest)
    lists, hashes = PackedLists(directory), np.load(directory / WORDS)[0]
    entries = np.repeat(hashes, lists.counts(hashes)).astype(np.uint64) << np.uint64(32)
    write_array(directory / POSTINGS, entries | lists.listings(hashes).astype(np.uint64))
    (directory / WORDS).unlink()
    (directory / WORD_LISTINGS).unlink()
    before = open_files(directory, version, manifest)
    rows = np.arange(N)
    for text in (*THINGS, "oak lamp with a zeppelin", "silver", "zeppelin"):
        for weight, alone in ((0.3, False), (1.0, False), (0.5, True)):
            words = asked(text, weight, alone=alone)
            found, expected = (one.search(QUERIES[0], SearchRequest(k=30), words=words) for one in (now, before))
            assert found == expected
            np.testing.assert_array_equal(now.verbatim(rows, words.words), before.verbatim(rows, words.words))
    assert now.verbatim(rows, asked("oak table", 1).words).max() == 1


def put(number: int, image_id: str, listing_id: str, title: str, fingerprint: str = FINGERPRINT) -> Change:
    payload = as_payload({"title": title} if title else {"size": 3})
    vector = VECTORS[0] if title else VECTORS[5]
    there = PutPhoto(listing_id, 0, "00" * 32, fingerprint, vector, SCORES[0], payload)
    return Change(f"{number}-0", image_id, number, there)


def test_words_of_changes_that_could_not_be_applied_are_forgotten(index: VectorIndex) -> None:
    def unreadable(photo: PutPhoto) -> Embeddings:
        raise ConnectionError

    delta = DeltaIndex(index, unreadable, ENCODER.of_listing)
    with pytest.raises(ConnectionError):
        delta.apply([put(1, "it", "x", "zeppelin"), put(2, "other", "y", "boot", "another model")])
    delta.apply([put(1, "it", "x", "wool coat")])
    words = asked("zeppelin", 0.5, alone=True)
    assert all(hit.score < 0.9 for hit in delta.search(QUERIES[0], SearchRequest(k=5), words=words))


def test_photos_put_live_have_their_words(index: VectorIndex) -> None:
    delta = DeltaIndex(index, lambda photo: None, ENCODER.of_listing)
    delta.apply([put(1, "new lamp", "x", "brass lamp"), put(2, "new coat", "y", "wool coat"), put(3, "none", "z", "")])
    delta.apply([put(4, "zeppelin", "q", "zeppelin")])
    # A word that no listing had is found word for word, also beside words of other kinds of things.
    for alone in ("zeppelin", "fine zeppelin", "old brass zeppelin", "wool coat zeppelin", "oak zeppelin hindenburg"):
        hit = delta.search(QUERIES[0], SearchRequest(k=1), words=asked(alone, 0.5, alone=True))[0]
        assert hit.image_id == "zeppelin"
    text = "zeppelin lamp"
    words = asked(text, 0.8)
    found = {hit.image_id: hit.score for hit in delta.search(QUERIES[0], SearchRequest(k=100), words=words)}
    for image_id, title in (("new lamp", "brass lamp"), ("zeppelin", "zeppelin")):
        expected = naive_score(VECTORS[0], as_payload({"title": title}), 0, QUERIES[0], text, words)
        assert found[image_id] == pytest.approx(expected, abs=1e-4)
    assert "new coat" not in found or found["new coat"] < found["new lamp"]
    if "none" in found:
        assert found["none"] == pytest.approx(float(VECTORS[5] @ words.expected) + words.offset, abs=1e-4)
    # A photo put again with other words is found by the new ones.
    delta.apply([put(5, "new lamp", "x", "wool coat")])
    again = {hit.image_id: hit.score for hit in delta.search(QUERIES[0], SearchRequest(k=100), words=words)}
    assert again.get("new lamp", -1) < found["new lamp"]


def test_the_photos_nearest_to_a_photo_tell_their_categories(index: VectorIndex) -> None:
    delta = DeltaIndex(index, lambda photo: None)
    there = PutPhoto("l3", 5, "00" * 32, FINGERPRINT, QUERIES[0], SCORES[0], "")
    delta.apply([Change("1-0", "it", 1, there), Change("2-0", "p100", 2, None)])
    for without in ((), ("l3",), ("l3", "l50")):
        scores, categories, found = delta.labelled(QUERIES[0], 30, SearchRequest(), without)
        rows = [r for r in range(N) if r != 100 and f"l{r // 3}" not in without]
        expected = [(float(VECTORS[r] @ QUERIES[0]), PHOTOS[r].category) for r in rows]
        expected += [] if "l3" in without else [(1.0, 5)]
        expected.sort(reverse=True)
        np.testing.assert_allclose(np.sort(scores)[::-1], [score for score, _ in expected[:30]], atol=2e-4)
        assert sorted(categories.tolist()) == sorted(category for _, category in expected[:30])
        named = [("it", "l3") if row == N else (f"p{row}", f"l{row // 3}") for row in found.tolist()]
        assert [delta.ids_of(row) for row in found.tolist()] == named
        similar = [float((QUERIES[0] if row == N else VECTORS[row]) @ QUERIES[0]) for row in found.tolist()]
        np.testing.assert_allclose(scores, similar, atol=2e-4)


MATCHING = Matching(k=20, bias=-1.0, lead=6.0, nearness=1.0, log_lead=0.5, doubt=0.3, same_from=0.9)
HEAD: FloatArray = np.linspace(-3, 3, len(CATEGORIES), dtype=np.float32)  # of a query, by its photo


def test_the_match_of_a_photo_is_the_best_that_filters_allow_compared_with_all(index: VectorIndex) -> None:
    delta = DeltaIndex(index, lambda photo: None)
    near = normalised(VECTORS[30:31] + 0.02 * QUERIES[:1])[0]
    there = PutPhoto("put", 5, "00" * 32, FINGERPRINT, near, SCORES[0], as_payload({"size": 9}))
    delta.apply([Change("1-0", "put", 1, there), Change("2-0", "p33", 2, None)])
    photos = [(f"p{row}", f"l{row // PER_LISTING}", VECTORS[row]) for row in range(N) if row != 33]
    photos.append(("put", "put", near))

    def naive(query: FloatArray, own: set[str], allowed: Callable[[str], bool]) -> tuple[str, str, float] | None:
        scores = {one: float(vector @ query) for one, listing, vector in photos if listing not in own}
        listing_of = {one: listing for one, listing, _ in photos}
        order = sorted(scores, key=lambda one: -scores[one])[: MATCHING.k]
        best = max((one for one in scores if allowed(listing_of[one])), key=lambda one: scores[one], default=None)
        if best is None:
            return None
        following = next((one for one in order if listing_of[one] != listing_of[best]), order[-1])
        first, second, last = (np.array([scores[one]]) for one in (best, following, order[-1]))
        category = 5 if best == "put" else PHOTOS[int(best[1:])].category
        chance = softmax(HEAD)[category : category + 1]
        return best, listing_of[best], MATCHING.probability(first, second, last, chance).item()

    large = SearchRequest.model_validate({"filter": {"must": [{"key": "size", "range": {"gte": 9}}]}})
    none = SearchRequest.model_validate({"filter": {"must": [{"key": "size", "range": {"gte": 90}}]}})

    def is_large(listing: str) -> bool:
        return listing == "put" or int(listing[1:]) % 10 == 9

    for query, own, request, allowed in (
        (QUERIES[0], set[str](), SearchRequest(k=1), lambda listing: True),
        (VECTORS[30], set[str](), SearchRequest(k=1), lambda listing: True),
        (VECTORS[30], {"l10"}, SearchRequest(exclude_listing="l10"), lambda listing: True),
        (VECTORS[30], set[str](), large, is_large),
        (VECTORS[30], {"put"}, large, lambda listing: is_large(listing) and listing != "put"),
        (VECTORS[30], set[str](), none, lambda listing: False),
    ):
        found = find_match(Embeddings(query[None], HEAD[None]), request, delta, MATCHING, own)
        searched = delta.labelled(query, MATCHING.k, SearchRequest(), own)
        hits = delta.search(query, request.model_copy(update={"k": 5}))
        again = find_match(Embeddings(query[None], HEAD[None]), request, delta, MATCHING, own, searched, hits)
        expected = naive(query, own, allowed)
        assert (found is None) == (again is None) == (expected is None)
        if found is not None and again is not None and expected is not None:
            # Scores of hits are rounded.
            assert again.probability == pytest.approx(found.probability, abs=1e-4)
            assert again == found.model_copy(update={"probability": again.probability})
            assert (found.image_id, found.listing_id) == expected[:2]
            assert found.probability == pytest.approx(expected[2], abs=5e-3)
            assert found.certain == (found.probability >= MATCHING.same_from)
    # A photo of the index is certainly there; fewer photos than are compared say nothing.
    itself = find_match(Embeddings(VECTORS[90:91], HEAD[None]), SearchRequest(), delta, MATCHING, ())
    assert itself is not None
    assert (itself.image_id, itself.listing_id, itself.certain) == ("p90", "l30", True)
    assert (
        find_match(
            Embeddings(QUERIES[:1], HEAD[None]), SearchRequest(), delta, MATCHING.model_copy(update={"k": N + 1}), ()
        )
        is None
    )


def test_an_index_without_words_compares_photos_alone(index: VectorIndex, tmp_path: Path) -> None:
    store = index_store(tmp_path)
    version = written(store)
    manifest = read_index_manifest(store, version)
    assert manifest.texts is None
    older = open_files(store.path(version), version, manifest)
    assert older.search(QUERIES[0], SearchRequest(k=9), words=asked("oak table", 0.5)) == older.search(
        QUERIES[0], SearchRequest(k=9)
    )
