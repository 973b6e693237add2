"""Filters, attributes and facets of every kind of index, beside a search of all rows in the plainest way."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from shared.artifacts.snapshots import index_store, read_index_manifest
from shared.attributes.schema import Attribute, AttributeSchema, AttributeType, as_payload
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.changes.log import Change, PutPhoto
from shared.errors import InvalidRequest
from shared.index.delta.index import DeltaIndex
from shared.index.milvus import index as milvus
from shared.index.milvus.index import open_collection
from shared.index.snapshot import open_files
from shared.index.vector_index import VectorIndex
from shared.index.vectors.compression import EXACT_UP_TO
from shared.jobs.contract import Distinct, SearchRequest
from shared.model.embedder import Embeddings
from tests.support.milvus import MilvusLite
from tests.support.snapshots import write_snapshot
from tests.support.vectors import FINGERPRINT, unit_rows

N = 600
PER_LISTING = 3
SCHEMA = AttributeSchema(
    (
        Attribute(name="price", type=AttributeType.PRICE, currencies=("EUR",)),
        Attribute(name="size", type=AttributeType.NUMBER),
        Attribute(name="colour", type=AttributeType.KEYWORD),
        Attribute(name="place", type=AttributeType.PLACE),
        Attribute(name="listed", type=AttributeType.TIME),
        Attribute(name="new", type=AttributeType.BOOLEAN),
        Attribute(name="title", type=AttributeType.TEXT),
    )
)
COLOURS = ("red", 'it\'s "blue"', "grün", "")
PLACES = ("Bath, Somerset", "Wells, Somerset", "Bath, Maine", "")


def values_of(listing: int) -> dict[str, object]:
    """Every attribute of some listings is missing."""
    values: dict[str, object] = {
        "price": {"amount": float(listing), "currency": "EUR" if listing % 5 else "GBP"} if listing % 7 else None,
        "size": listing % 10,
        "colour": COLOURS[listing % 4] or None,
        "place": PLACES[listing // 4 % 4] or None,
        "listed": f"2026-{1 + listing % 12:02}-01",
        "new": bool(listing % 2) if listing % 3 else None,
        "title": f"thing {listing}" if listing % 2 else None,
    }
    return {name: value for name, value in values.items() if value is not None}


def photo(row: int) -> CataloguePhoto:
    listing = row // PER_LISTING
    payload = as_payload(values_of(listing))  # type: ignore[arg-type]
    return CataloguePhoto(f"p{row}", f"l{listing}", listing % len(CATEGORIES), Path("x.jpg"), f"{row:064x}", payload)


PHOTOS = [photo(row) for row in range(N)]
VECTORS = unit_rows(N, seed=3)
SCORES = np.zeros((N, len(CATEGORIES)), dtype=np.float32)
QUERIES = unit_rows(6, seed=4)

Meets = Callable[[dict[str, object], CataloguePhoto], bool]


def key(name: str, how: str, what: object) -> dict[str, object]:
    return {"key": name, how: what}


def amount(values: dict[str, object]) -> float | None:
    price = values.get("price")
    return price["amount"] if isinstance(price, dict) else None


def currency(values: dict[str, object]) -> object:
    price = values.get("price")
    return price["currency"] if isinstance(price, dict) else None


EUR = {"lte": 20, "currency": "EUR"}
FILTERS: dict[str, tuple[dict[str, object], Meets]] = {
    "range of a price": (
        {"must": [key("price", "range", {"gt": 10, "lte": 150, "currency": "EUR"})]},
        lambda v, p: 10 < (amount(v) or 0) <= 150 and currency(v) == "EUR",
    ),
    "one value": (
        {"must": key("colour", "match", {"value": 'it\'s "blue"'})},
        lambda v, p: v.get("colour") == COLOURS[1],
    ),
    "set of values": (
        {"must": [key("size", "match", {"any": [1, 2.0, 99]})]},
        lambda v, p: v["size"] in (1, 2),
    ),
    "all but": (
        {"must": [key("colour", "match", {"except": ["red", "unknown"]})]},
        lambda v, p: v.get("colour") != "red",
    ),
    "part of a place": (
        {"must": [key("place", "match", {"value": "SOMERSET"})]},
        lambda v, p: "Somerset" in str(v.get("place")),
    ),
    "whole place": (
        {"must": [key("place", "match", {"value": "bath, maine"})]},
        lambda v, p: v.get("place") == PLACES[2],
    ),
    "time": (
        {"must": [key("listed", "range", {"gte": "2026-03-01", "lt": "2026-05-01T00:00:00Z"})]},
        lambda v, p: v["listed"] in ("2026-03-01", "2026-04-01"),
    ),
    "boolean": ({"must": [key("new", "match", {"value": False})]}, lambda v, p: v.get("new") is False),
    "missing": ({"must": [{"is_empty": {"key": "title"}}]}, lambda v, p: "title" not in v),
    "there": ({"must_not": [{"is_empty": {"key": "price"}}]}, lambda v, p: "price" in v),
    "or, not and nested": (
        {
            "should": [
                key("colour", "match", {"value": "red"}),
                {"must": [key("new", "match", {"value": True}), key("size", "range", {"gte": 5})]},
            ],
            "must_not": [key("price", "range", EUR)],
        },
        lambda v, p: (
            (v.get("colour") == "red" or (v.get("new") is True and v["size"] >= 5))  # type: ignore[operator]
            and not ((amount(v) or 99) <= 20 and currency(v) == "EUR")
        ),
    ),
    "category and listing": (
        {
            "must": [key("category", "match", {"any": list(CATEGORIES[:3])})],
            "must_not": [key("listing_id", "match", {"any": ["l0", "l13"]}), key("image_id", "match", {"value": "p4"})],
        },
        lambda v, p: p.category < 3 and p.listing_id not in ("l0", "l13") and p.image_id != "p4",
    ),
    "few": ({"must": [key("price", "range", {"gte": 199, "currency": "EUR"})]}, lambda v, p: (amount(v) or 0) >= 199),
    "none": ({"must": [key("size", "range", {"gt": 1e9})]}, lambda v, p: False),
    "all": ({}, lambda v, p: True),
}


@pytest.fixture(
    scope="module",
    params=["exact", "compressed", "milvus", "milvus, many rows"],
)
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorIndex]:
    """Of each kind, looking into all that there is, so that it must find what the plainest way finds."""
    kind: str = request.param
    lite: MilvusLite | None = request.getfixturevalue("milvus") if "milvus" in kind else None
    server = lite.connect() if lite else None
    store = index_store(tmp_path_factory.mktemp("home"))
    version = write_snapshot(
        store,
        PHOTOS,
        Embeddings(VECTORS, SCORES),
        fingerprint=FINGERPRINT,
        catalogue="drawn",
        catalogue_digest="0" * 64,
        exact_up_to=0 if kind == "compressed" else EXACT_UP_TO,
        server=server,
        attributes=SCHEMA,
    )
    manifest = read_index_manifest(store, version)
    assert manifest.index is not None
    thorough = manifest.index.model_copy(update={"n_probes": manifest.index.n_lists, "n_candidates": N})
    manifest = manifest.model_copy(update={"index": thorough})
    with pytest.MonkeyPatch.context() as patch:
        if "many" in kind:
            patch.setattr(milvus, "_IN_EXPRESSION", 0)
        if server:
            yield open_collection(server, store.path(version), version, manifest)
        else:
            yield open_files(store.path(version), version, manifest)


def naive(
    query: np.ndarray, meets: Meets, *, k: int, one_a_listing: bool = False, hidden: tuple[int, ...] = ()
) -> list[str]:
    scores = np.round((VECTORS @ query).astype(np.float64), 6)
    ordered = sorted(range(N), key=lambda row: (-scores[row], row))
    found: dict[str, str] = {}
    for row in ordered:
        if row not in hidden and meets(values_of(row // PER_LISTING), PHOTOS[row]):
            found.setdefault(PHOTOS[row].listing_id if one_a_listing else PHOTOS[row].image_id, PHOTOS[row].image_id)
    return list(found.values())[:k]


@pytest.mark.parametrize("name", FILTERS)
def test_a_filtered_search_finds_what_looking_at_every_photo_finds(index: VectorIndex, name: str) -> None:
    given, meets = FILTERS[name]
    hidden = (5, 17, 300)
    for query in QUERIES:
        request = SearchRequest.model_validate({"k": 10, "filter": given})
        assert [hit.image_id for hit in index.search(query, request)] == naive(query, meets, k=10)
        by_listing = request.model_copy(update={"distinct": Distinct.LISTING})
        expected = naive(query, meets, k=10, one_a_listing=True)
        assert [hit.image_id for hit in index.search(query, by_listing)] == expected
        found = index.search(query, request, hidden=np.array(hidden))
        assert [hit.image_id for hit in found] == naive(query, meets, k=10, hidden=hidden)


def test_a_range_and_the_set_of_its_values_find_the_same(index: VectorIndex) -> None:
    as_range = SearchRequest.model_validate({"k": 50, "filter": {"must": [key("size", "range", {"gte": 2, "lt": 6})]}})
    as_set = SearchRequest.model_validate({"k": 50, "filter": {"must": [key("size", "match", {"any": [2, 3, 4, 5]})]}})
    for query in QUERIES:
        assert index.search(query, as_range) == index.search(query, as_set)


def test_neighbours_carry_the_attributes_asked_for_and_no_others(index: VectorIndex) -> None:
    plain = index.search(QUERIES[0], SearchRequest(k=20))
    some = index.search(QUERIES[0], SearchRequest(k=20, include=("title", "price")))
    everything = index.search(QUERIES[0], SearchRequest(k=20, include=("*",)))
    assert [hit.attributes for hit in plain] == [None] * 20
    for hit, short, whole in zip(plain, some, everything, strict=True):
        values = values_of(int(hit.listing_id[1:]))
        assert whole.attributes == values
        assert short.attributes == {name: values[name] for name in ("title", "price") if name in values}


@pytest.mark.parametrize("name", ["part of a place", "or, not and nested", "none", "all"])
def test_facets_count_the_listings_that_the_filter_leaves(index: VectorIndex, name: str) -> None:
    given, meets = FILTERS[name]
    asked = ("category", "colour", "place", "new", "price")
    facets = index.count(SearchRequest.model_validate({"filter": given, "facets": list(asked)})).answer()
    listings = [n for n in range(N // PER_LISTING) if meets(values_of(n), PHOTOS[n * PER_LISTING])]
    for facet in asked[1:4]:
        expected: dict[object, int] = {}
        for n in listings:
            if (value := values_of(n).get(facet)) is not None:
                expected[value] = expected.get(value, 0) + 1
        assert {one.value: one.count for one in facets[facet].values} == expected
        assert facets[facet].count == sum(expected.values())
    assert facets["category"].count == len(listings)
    prices = [price for n in listings if (price := amount(values_of(n))) is not None]
    assert (facets["price"].minimum, facets["price"].maximum) == (
        (min(prices), max(prices)) if prices else (None, None)
    )


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"must": [key("weight", "match", {"value": 1})]}, "no attribute 'weight'; it has price, size"),
        ({"must": [key("colour", "range", {"gte": 1})]}, "colour is a keyword, which has no range"),
        ({"must": [key("size", "match", {"value": "big"})]}, 'size is a number, not "big"'),
        ({"must": [key("price", "range", {"lte": 5})]}, "price is in EUR, GBP; say which"),
        ({"must": [key("title", "match", {"value": "x"})]}, "title is a text"),
        ({"must": [key("category", "match", {"value": "Boats"})]}, "must be one of"),
    ],
)
def test_a_filter_that_does_not_fit_is_refused_by_name(index: VectorIndex, given: object, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        index.search(QUERIES[0], SearchRequest.model_validate({"filter": given}))


@pytest.mark.parametrize("name", FILTERS)
def test_photos_put_live_are_filtered_and_counted_as_those_of_the_snapshot(index: VectorIndex, name: str) -> None:
    given, meets = FILTERS[name]
    delta = DeltaIndex(index, lambda photo: None)
    put = [
        Change(f"{n + 1}-0", PHOTOS[row].image_id, n + 1, PutPhoto(
            listing_id=PHOTOS[row].listing_id, category=PHOTOS[row].category, sha256="00" * 32, fingerprint=FINGERPRINT,
            vector=VECTORS[row], scores=SCORES[row], payload=payload,
        ))
        for n, (row, payload) in enumerate((row, PHOTOS[row].payload if row % 2 else "") for row in range(0, N, 7))
    ]  # fmt: skip
    delta.apply(put)
    request = SearchRequest.model_validate({"k": 10, "filter": given, "facets": ["colour"]})
    for query in QUERIES:
        assert [hit.image_id for hit in delta.search(query, request)] == naive(query, meets, k=10)


def test_a_listing_with_photos_in_snapshot_and_delta_counts_once_with_what_was_put_last(index: VectorIndex) -> None:
    moved = next(photo for photo in PHOTOS if values_of(int(photo.listing_id[1:])).get("colour"))
    colour = values_of(int(moved.listing_id[1:]))["colour"]
    put = PutPhoto(moved.listing_id, moved.category, "00" * 32, FINGERPRINT, VECTORS[0], SCORES[0], '{"colour":"neon"}')
    delta = DeltaIndex(index, lambda photo: None)
    request = SearchRequest.model_validate({"facets": ["category", "colour"]})
    before = delta.count(request).answer()
    delta.apply([Change("1-0", "another photo of it", 1, put)])
    after = delta.count(request).answer()
    assert after["category"] == before["category"]
    expected = {one.value: one.count - (one.value == colour) for one in before["colour"].values} | {"neon": 1}
    assert {one.value: one.count for one in after["colour"].values} == {
        value: count for value, count in expected.items() if count
    }
    # Where only its photo of the snapshot meets the filter, that one counts.
    old = SearchRequest.model_validate(
        {"facets": ["colour"], "filter": {"must": [{"key": "colour", "match": {"value": colour}}]}}
    )
    assert delta.count(old).answer()["colour"].count == index.count(old).answer()["colour"].count
