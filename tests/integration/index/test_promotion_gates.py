"""Which new versions go live: ordinary changes of a catalogue do, night after night; broken ones never do."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import faiss
import numpy as np
import pytest

from shared.array_types import FloatArray, IntArray
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.index.vectors.ann import exact_nearest
from shared.jobs.reindex_contract import (
    Promotion,
    ReindexCounts,
    ReindexMode,
    ReindexReport,
    ReindexRequest,
    SnapshotQuality,
)
from shared.reindex.build import decide, n_listings
from shared.reindex.quality import gates
from shared.reindex.verification import verify

N_LATENT = 32
N_LISTINGS = 400


@dataclass
class Version:
    """A version of an index, in memory; searched exactly unless it has lists."""

    photos: list[CataloguePhoto]
    embeddings: FloatArray
    model: str = "a"
    lists: faiss.IndexIVFFlat | None = None
    n_searched: int = 0

    def __len__(self) -> int:
        return len(self.photos)

    def vectors(self, rows: IntArray | slice) -> FloatArray:
        chosen: FloatArray = self.embeddings[rows]
        return chosen

    def nearest(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        self.n_searched += len(queries)
        if self.lists is not None:
            scores, rows = self.lists.search(queries, k)
            scores[rows < 0] = -2
            found: tuple[FloatArray, IntArray] = scores, rows
            return found
        return self.exact_nearest(queries, k)

    def exact_nearest(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        return exact_nearest(self.embeddings, queries, min(k, len(self)))

    def photo(self, row: int) -> CataloguePhoto:
        return self.photos[row]

    def row_of(self, image_id: str) -> int | None:
        return next((row for row, photo in enumerate(self.photos) if photo.image_id == image_id), None)


def seed_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def latent(photo: CataloguePhoto) -> FloatArray:
    """What a photo shows: its kind, its listing, itself. Files that start with "same" show one thing everywhere."""
    if photo.sha256.startswith("same"):
        return np.random.default_rng(seed_of(photo.sha256)).normal(size=N_LATENT).astype(np.float32)
    parts = ((1.0, f"kind {photo.path}"), (0.9, f"thing {photo.listing_id}"), (0.5, photo.sha256))
    total = sum(weight * np.random.default_rng(seed_of(name)).normal(size=N_LATENT) for weight, name in parts)
    return np.asarray(total, dtype=np.float32)


def embed(photos: Sequence[CataloguePhoto], model: str = "a", *, harm: float = 0.2, dimension: int = 64) -> FloatArray:
    """Embeddings by a model that mixes what it sees, and mistakes a part of it for something else.

    Args:
        photos: to embed.
        model: its name; other models mix otherwise.
        harm: 0 to 1, share that is mistaken.
        dimension: of the embeddings.
    """
    rng = np.random.default_rng(seed_of(f"model {model}"))
    weights = rng.normal(size=(N_LATENT, dimension)).astype(np.float32)
    noise = np.stack([np.random.default_rng(seed_of(model + p.sha256)).normal(size=N_LATENT) for p in photos])
    seen = (1 - harm) * np.stack([latent(photo) for photo in photos]) + harm * 1.5 * noise.astype(np.float32)
    return unit(seen @ weights)


def unit(vectors: FloatArray) -> FloatArray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def listings(n: int, first: int = 0, *, show: int | None = None) -> list[CataloguePhoto]:
    """Listings of two photos each. `show`: the category that all of them look like; None: their own."""
    return [
        CataloguePhoto(f"photo-{i}-{side}", f"listing-{i}", i % 13, Path(str(show or i % 13)), f"bytes-{i}-{side}")
        for i in range(first, first + n)
        for side in range(2)
    ]


LIVE = Version(listings(N_LISTINGS), embed(listings(N_LISTINGS)))


def version(photos: list[CataloguePhoto], model: str = "a", **how: float) -> Version:
    return Version(photos, embed(photos, model, **how), model)  # type: ignore[arg-type]


def with_embeddings(change: Callable[[FloatArray], FloatArray], model: str = "a") -> Version:
    return Version(list(LIVE.photos), change(LIVE.embeddings.copy()), model)


def judged(new: Version, live: Version | None = LIVE, **request: object) -> tuple[bool, str, ReindexReport]:
    """Whether the version would go live, why, and its report."""
    before = {photo.image_id: photo for photo in live.photos} if live else {}
    counts = ReindexCounts(
        seen=len(new),
        new=sum(photo.image_id not in before for photo in new.photos),
        removed=len(before.keys() - {photo.image_id for photo in new.photos}),
    )
    quality, gates = verify(
        new,
        new.photos,
        live,
        live_quality=SnapshotQuality(count=len(live), sampled=0) if live else None,
        same_model=live is not None and live.model == new.model,
        counts=counts,
        listings=(n_listings(new.photos), n_listings(before.values())),
        force=False,
    )
    report = ReindexReport(mode=ReindexMode.CHANGED, counts=counts, new=quality, gates=tuple(gates))
    return *decide(report, ReindexRequest.model_validate(request)), report


def test_words_that_are_gone_keep_a_version_from_going_live() -> None:
    quality = SnapshotQuality(count=100, sampled=0)
    for new, passed in ((100, True), (90, True), (89, False), (0, False)):
        found = {gate.name: gate for gate in gates(quality, quality, words=(new, 100), force=False)}
        assert found["words"].passed is passed
        assert f"{new} listings with words, 100 are live" in found["words"].detail
        assert {gate.name: gate.passed for gate in gates(quality, quality, words=(new, 100), force=True)}["words"]
    assert "words" not in {gate.name for gate in gates(quality, quality, words=(100, 0), force=False)}
    assert "words" not in {gate.name for gate in gates(quality, None, words=(5, 0), force=False)}


def relabelled(share: float) -> list[CataloguePhoto]:
    last = int(share * N_LISTINGS)
    photos = listings(N_LISTINGS)
    return [
        replace(photo, category=(photo.category + 5) % 13) if int(photo.listing_id[8:]) < last else photo
        for photo in photos
    ]


def placeholders(n: int, first: int) -> list[CataloguePhoto]:
    return [
        CataloguePhoto(f"none-{i}", f"listing-{i}", i % 13, Path("0"), "same-placeholder")
        for i in range(first, first + n)
    ]


def shuffled(photos: list[CataloguePhoto], **columns: list[object]) -> list[CataloguePhoto]:
    rng = np.random.default_rng(5)
    order = rng.permutation(len(photos)).tolist()
    return [
        replace(photo, **{name: getattr(photos[other], name) for name in columns})
        for photo, other in zip(photos, order, strict=True)
    ]


def rewritten(share: float) -> list[CataloguePhoto]:
    return [
        replace(photo, sha256=photo.sha256 + "-new") if row < share * len(LIVE) else photo
        for row, photo in enumerate(LIVE.photos)
    ]


def of_another_processor(vectors: FloatArray) -> FloatArray:
    noise = np.random.default_rng(3).normal(size=vectors.shape).astype(np.float32)
    return unit(vectors + 0.1 * unit(noise))


GROWN = listings(N_LISTINGS + 40)
HARDER = [*listings(N_LISTINGS), *listings(60, 1000, show=99)]
GOOD: dict[str, tuple[Callable[[], Version], Version | None]] = {
    "first version": (lambda: version(listings(N_LISTINGS)), None),
    "nothing but prices": (lambda: version(listings(N_LISTINGS)), LIVE),
    "10 % more": (lambda: version(GROWN), LIVE),
    "15 % more that are hard": (lambda: version(HARDER), LIVE),
    "40 listings without a picture": (lambda: version([*LIVE.photos, *placeholders(40, 2000)]), LIVE),
    "300 listings without a picture": (lambda: version([*LIVE.photos, *placeholders(300, 2000)]), LIVE),
    "5 % removed": (lambda: version(listings(N_LISTINGS)[40:]), LIVE),
    "1 % relabelled": (lambda: version(relabelled(0.01)), LIVE),
    "other order": (lambda: version(LIVE.photos[::-1]), LIVE),
    "a tenth of the photos changed": (lambda: version(rewritten(0.1)), LIVE),
    "every file rewritten": (lambda: version(rewritten(1)), LIVE),
    "better model": (lambda: version(listings(N_LISTINGS), "b", harm=0.1), LIVE),
    "as good a model of another size": (lambda: version(listings(N_LISTINGS), "c", dimension=96), LIVE),
    "better model and 10 % more": (lambda: version(GROWN, "b", harm=0.1), LIVE),
    "embedded anew on another processor": (lambda: with_embeddings(of_another_processor), LIVE),
}


@pytest.mark.parametrize("name", GOOD)
def test_ordinary_changes_go_live(name: str) -> None:
    make, live = GOOD[name]
    promoted, decision, report = judged(make(), live)
    assert promoted, decision
    assert all(gate.passed for gate in report.gates)


def permuted_half(vectors: FloatArray) -> FloatArray:
    rows = np.random.default_rng(4).permutation(len(vectors))[: len(vectors) // 2]
    vectors[rows] = vectors[np.roll(rows, 1)]
    return vectors


def through_few_probes() -> Version:
    photos = listings(N_LISTINGS)
    new = version(photos)
    lists = faiss.IndexIVFFlat(faiss.IndexFlatIP(64), 64, 32, faiss.METRIC_INNER_PRODUCT)
    lists.train(new.embeddings)
    lists.add(new.embeddings)
    lists.nprobe = 1
    new.lists = lists
    return new


BAD: dict[str, tuple[Callable[[], Version], str, str]] = {
    "shuffled weights": (lambda: version(listings(N_LISTINGS), "b", harm=1), "precision_at_4", "cause: model"),
    "swapped channels": (lambda: version(listings(N_LISTINGS), "b", harm=0.45), "precision_at_4", "cause: model"),
    "swapped channels and 10 % more": (lambda: version(GROWN, "b", harm=0.45), "precision_at_4", "cause: model"),
    "wrong fill": (lambda: version(listings(N_LISTINGS), harm=0.4), "same_embeddings", "cause: model"),
    "cropped, no letterbox": (lambda: version(listings(N_LISTINGS), "b", harm=0.4), "precision_at_4", "cause: model"),
    "zero vectors": (lambda: with_embeddings(np.zeros_like), "self_retrieval", "length 1"),
    "zero vectors of another model": (lambda: with_embeddings(np.zeros_like, "b"), "self_retrieval", "length 1"),
    "vectors written twice": (
        lambda: with_embeddings(lambda v: v[np.arange(len(v)) // 4 * 4], "b"), "distinct_vectors", "written twice",
    ),
    "one vector for all": (
        lambda: with_embeddings(lambda v: np.repeat(v[:1], len(v), axis=0), "b"), "distinct_vectors", "same embedding",
    ),
    "vectors of another model": (
        lambda: with_embeddings(lambda v: embed(LIVE.photos, "b")), "same_embeddings", "cause: model",
    ),
    "half permuted": (lambda: with_embeddings(permuted_half), "same_embeddings", "cause: model"),
    "half permuted, another model": (lambda: with_embeddings(permuted_half, "b"), "precision_at_4", "cause: model"),
    "categories shuffled": (
        lambda: version(shuffled(listings(N_LISTINGS), category=[])), "precision_at_4", "cause: labels",
    ),
    "listings torn apart": (
        lambda: Version(shuffled(listings(N_LISTINGS), listing_id=[]), LIVE.embeddings),
        "sibling_recall_at_4",
        "cause: labels",
    ),
    "most photos gone": (lambda: version(listings(N_LISTINGS)[600:]), "count", "cause: photos are gone"),
    "too few probes": (through_few_probes, "recall_at_10", "cause: the compressed index"),
    "shuffled weights, every file rewritten": (
        lambda: version(rewritten(1), "b", harm=1), "precision_at_4", "cause: photos or model",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_broken_versions_are_refused_and_the_cause_is_told(name: str) -> None:
    make, failing, cause = BAD[name]
    promoted, decision, report = judged(make())
    assert not promoted
    gate = next(gate for gate in report.gates if gate.name == failing)
    assert not gate.passed, decision
    assert cause in gate.detail
    assert "to do: " in gate.detail


def test_zero_vectors_and_equal_vectors_are_refused_without_a_live_version_too() -> None:
    for change in (np.zeros_like, lambda v: np.repeat(v[:1], len(v), axis=0)):
        assert not judged(with_embeddings(change), None)[0]


def test_a_catalogue_that_grows_by_a_tenth_every_night_goes_live_every_night() -> None:
    """And a broken model is refused in each of them."""
    live = LIVE
    for night in range(10):
        n = len(live) // 20
        harder = listings(n // 2, 10_000 + 1000 * night, show=99)
        photos = [
            *live.photos,
            *listings(n - n // 2, 50_000 + 1000 * night),
            *harder,
            *placeholders(5, 90_000 + 10 * night),
        ]
        rest = photos[len(live) :]
        grown = Version(photos, np.concatenate([live.embeddings, embed(rest)]))
        promoted, decision, _ = judged(grown, live)
        assert promoted, decision
        if night % 3 == 0:
            for harm in (0.45, 1):
                promoted, decision, _ = judged(version(photos, "b", harm=harm), live)
                assert not promoted
                assert "cause: model" in decision
        live = grown


def test_a_refusal_names_the_worst_categories_and_photos() -> None:
    photos = listings(N_LISTINGS)
    worse = [replace(photo, path=Path("99")) if photo.category == 2 else photo for photo in photos]
    vectors = np.concatenate(
        [embed([a], "b", harm=1 if b.category == 2 else 0.2) for a, b in zip(photos, worse, strict=True)]
    )
    promoted, decision, _ = judged(Version(photos, vectors, "b"))
    assert not promoted
    assert f"most is lost in {CATEGORIES[2]} -" in decision
    photo = decision.split("for example by photos ")[1].split(",")[0]
    assert [p.category for p in photos if p.image_id == photo] == [2]


def test_placeholders_are_told_and_counted_nowhere() -> None:
    without = judged(version(listings(N_LISTINGS)))[2]
    photos = [*LIVE.photos, *placeholders(40, 2000)]
    _, _, report = judged(version(photos))
    gate = next(gate for gate in report.gates if gate.name == "precision_at_4")
    assert "left out: one photo of 40 listings, such as none-2000" in gate.detail
    assert "40 new" in gate.detail
    assert report.new.precision_at_4 == pytest.approx(without.new.precision_at_4, abs=0.02)


def test_what_is_valid_goes_live_where_that_is_enough() -> None:
    broken = version(listings(N_LISTINGS), "b", harm=1)
    assert judged(broken, promote=Promotion.IF_VALID)[0]
    assert not judged(with_embeddings(np.zeros_like), promote=Promotion.IF_VALID)[0]


def test_the_live_version_is_not_searched_again_where_its_vectors_were_taken_over() -> None:
    live, new = version(listings(N_LISTINGS)), version(GROWN)
    judged(new, live)
    assert live.n_searched == 0
    assert new.n_searched < 600  # the sample, and those of its photos that the live version lacks


def test_listings_that_vanish_are_refused_beyond_a_bound_though_their_photos_stay() -> None:
    merged = [replace(photo, listing_id=f"listing-{int(photo.listing_id[8:]) // 2}") for photo in LIVE.photos]
    promoted, why, _ = judged(Version(merged, LIVE.embeddings.copy(), "a"))
    assert not promoted
    assert re.search(r"listings: \d+ listings, \d+ are live: \d+ fewer; at least 90% are needed; cause: listings", why)


def test_a_few_listings_fewer_are_told_and_go_live() -> None:
    some = {f"listing-{n}" for n in range(3)}
    kept = [row for row, photo in enumerate(LIVE.photos) if photo.listing_id not in some]
    promoted, why, _ = judged(Version([LIVE.photos[row] for row in kept], LIVE.embeddings[kept], "a"))
    assert promoted
    assert "3 fewer" in why
