"""MilvusIndex: an index version whose vectors are in a Milvus collection, which searches, filters and groups them.

A worker holds none of it in memory. The photos' table is on disk beside the manifest, for what is rare: a search by
image id, and the next reindex.
"""

import hashlib
import math
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.array_types import FloatArray, IntArray
from shared.artifacts.snapshots import IndexFacts, IndexManifest
from shared.catalogue.categories import CataloguePhoto, categories_named
from shared.errors import FingerprintMismatch, ImageNotFound, IndexDamaged, InvalidRequest
from shared.exhaustion import raise_exhaustion
from shared.index.metadata.facets import Facets
from shared.index.metadata.row_filters import RowFilters
from shared.index.metadata.rows import CATEGORY_CODES, PhotoTable
from shared.index.milvus.server import VECTOR, CollectionName, MilvusServer
from shared.index.query import WordsQuery
from shared.index.traffic import Audit, TrafficReference, changed, read_digests, read_reference
from shared.index.vector_index import LabelledRows, as_neighbours, ranked, require_dimension, rounded
from shared.index.vectors.ann import Allowed, exact_nearest
from shared.index.words.hybrid import WIDER
from shared.index.words.listing_texts import ListingTexts
from shared.index.words.postings import WordWeights
from shared.jobs.answers_contract import Neighbour
from shared.jobs.contract import (
    Distinct,
    SearchRequest,
)
from shared.model.embedder import Embeddings
from shared.text.encoder import Words

MESSAGE_BYTES = 8 << 20  # of vectors per message; Milvus refuses messages of 64 MiB
QUERIES_AT_ONCE = 64
_MOST_HITS = 16_384  # that Milvus answers at most
_IN_EXPRESSION = 5_000  # rows that a filter expression names; more are filtered here, out of more hits
_OUTPUT_FIELDS = ["image_id", "listing_id", "listing_key", "category"]
_NOT_FOUND = (-2.0, -1)


def listing_key(listing_id: str) -> int:
    """Hash a listing's id to the number that stands for it in filter expressions, because an id may hold quotes."""
    digest = hashlib.blake2b(listing_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # not negative: some servers cannot parse a sign there


@dataclass(frozen=True)
class _Hit:
    score: float
    row: int
    listing_key: int
    photo: CataloguePhoto


@dataclass(frozen=True)
class _Question:
    """A search with its filter expression.

    Attributes:
        query: (dim,) float32, L2 norm 1.
        conditions: parts of the filter expression, joined by `and`.
        n_fitting: upper bound of the photos that meet them.
        hidden: rows to leave out; not among the conditions yet.
        allowed: rows that a filter leaves, if they are too many for the conditions; None: all.
    """

    query: FloatArray
    conditions: tuple[str, ...]
    n_fitting: int
    hidden: IntArray | None
    allowed: Allowed | None = None

    def where(self, condition: str) -> "_Question":
        """Return a copy with one condition more."""
        return replace(self, conditions=(*self.conditions, condition))


@dataclass(frozen=True)
class MilvusIndex:
    """A `VectorIndex` over a Milvus collection; its methods behave as documented there. Opened by `open_collection`.

    Attributes:
        version: name in the artifact store; "staged" for one that is being built.
        manifest: as it was sealed.
        facts: name of the collection and search settings, from the manifest.
        server: connection to Milvus.
        table: the photos' table on disk.
        alias: Milvus alias to point at the collection while the version is live; empty: none.
        made_from: (n, dim) float32, the vectors of a version that is being built, for exact search; None: ask Milvus.
        filters: the columns of attributes on disk; None: the version is of an earlier Lookalike, which had none.
        texts: the words of the listings, on disk; None: they have none.
        reference: what ordinary queries are like; None: the version was written without.
        digests: of the rows, (n,) on disk; None: likewise.
    """

    version: str
    manifest: IndexManifest
    facts: IndexFacts
    server: MilvusServer
    table: PhotoTable
    alias: str = ""
    made_from: FloatArray | None = None
    filters: RowFilters | None = None
    texts: ListingTexts | None = None
    reference: TrafficReference | None = None
    digests: npt.NDArray[np.uint32] | None = None

    def __len__(self) -> int:
        return self.manifest.count

    def search(
        self,
        query: FloatArray,
        request: SearchRequest,
        *,
        hidden: IntArray | None = None,
        words: WordsQuery | None = None,
    ) -> list[Neighbour]:
        """Find the photos most similar to a query with one search in Milvus, or few; see `VectorIndex.search`."""
        require_dimension(query, self.manifest)
        question = self._question(query, request, hidden)
        if words and self.texts:
            hits = self._by_words_too(question, request, hidden, words, self.texts)
        elif request.distinct is Distinct.LISTING:
            hits = self._one_a_listing(question, request.k)
        else:
            hits = self._visible(question, min(request.k, question.n_fitting))
        photos = {hit.row: hit.photo for hit in hits}
        best = ranked((hit.score, hit.row) for hit in hits)[: request.k]
        photos_of_best = [photos[row] for _, row in best]
        return as_neighbours(best, photos_of_best, request, self.manifest.categories, self.table.values)

    def _question(self, query: FloatArray, request: SearchRequest, hidden: IntArray | None) -> _Question:
        """A search with the filters of a request."""
        question = _Question(query, (), len(self), hidden)
        if request.category is not None:
            category = categories_named(self.manifest.categories).position(request.category)
            question = replace(question.where(f"category == {category}"), n_fitting=self.facts.by_category[category])
        if request.filter is not None:
            question = self._among(question, request)
        for listing_id in request.excluded_listings:
            question = question.where(f"listing_key != {listing_key(listing_id)}")
        return question

    def _by_words_too(
        self,
        question: _Question,
        request: SearchRequest,
        hidden: IntArray | None,
        words: WordsQuery,
        texts: ListingTexts,
    ) -> list[_Hit]:
        """The best hits by photo and words: candidates by each, compared by both; of a listing one, if so asked."""
        n = WIDER * request.k
        one_each = request.distinct is Distinct.LISTING
        fitting = min(n, question.n_fitting)
        by_photo = self._one_a_listing(question, fitting) if one_each else self._visible(question, fitting)
        verbatim = texts.verbatim(words.words)
        rows = texts.candidates(words, verbatim, n, self._columns.allowed(request, hidden))
        rows = np.union1d(rows, np.array([hit.row for hit in by_photo], dtype=np.int64))
        vectors = self.vectors(rows)
        similar = np.vecdot(vectors, question.query)
        joined = texts.joined(rows, similar, words, verbatim, lambda some: vectors[np.searchsorted(rows, some)])
        scores = rounded(joined)
        photos = self.table.at(rows.tolist())
        hits = [
            _Hit(score, row, listing_key(photo.listing_id), photo)
            for score, row, photo in zip(scores, rows.tolist(), photos, strict=True)
        ]
        hits.sort(key=lambda hit: (-hit.score, hit.row))
        return list({hit.listing_key: hit for hit in reversed(hits)}.values()) if one_each else hits

    def labelled(
        self, query: FloatArray, n: int, request: SearchRequest, *, hidden: IntArray | None = None
    ) -> LabelledRows:
        """Find the categories of the photos most similar to a query; see `VectorIndex.labelled`."""
        question = self._question(query, request, hidden)
        hits = self._visible(question, min(n, question.n_fitting))
        scores = np.array([hit.score for hit in hits], dtype=np.float32)
        categories = np.array([hit.photo.category for hit in hits], dtype=np.int64)
        return LabelledRows(scores, categories, np.array([hit.row for hit in hits], dtype=np.int64))

    def word_weights(self, words: Words) -> WordWeights | None:
        """How much the words of a query count; see `VectorIndex.word_weights`."""
        return self.texts.word_weights(words) if self.texts else None

    def verbatim(self, rows: IntArray, words: Words) -> FloatArray:
        """How much of a query's words some rows say word for word; see `VectorIndex.verbatim`."""
        return self.texts.said_by(rows, words) if self.texts else np.zeros(len(rows), dtype=np.float32)

    def count(self, request: SearchRequest, hidden: IntArray | None = None) -> Facets:
        """Count the values of facets over the columns on disk; see `VectorIndex.count`."""
        return self._columns.count(request, hidden)

    @property
    def _columns(self) -> RowFilters:
        """The columns on disk, which versions of an earlier Lookalike do not have.

        Raises:
            InvalidRequest: this one has none.
        """
        if self.filters is None:
            raise InvalidRequest(f"filter: {self.version} was built before there were filters; reindex")
        return self.filters

    def _among(self, question: _Question, request: SearchRequest) -> _Question:
        """Ask only among the rows that the filter leaves, by the columns on disk."""
        assert request.filter is not None
        allowed = self._columns.matching(request.filter)
        n_fitting = min(question.n_fitting, allowed.count)
        if allowed.count > _IN_EXPRESSION:
            return replace(question, allowed=allowed, n_fitting=n_fitting)
        return replace(question.where(f"row in {allowed.rows.tolist()}"), n_fitting=n_fitting)

    def _one_a_listing(self, question: _Question, k: int) -> list[_Hit]:
        """The best hit of each of the `k` best listings."""
        best: dict[int, _Hit] = {}
        asked = question
        while True:
            hits = self._visible(asked, k, grouped=True)
            for hit in hits:
                best.setdefault(hit.listing_key, hit)
            if len(best) >= k or not hits:
                return list(best.values())
            # A server that groups only the hits it visited may have met one large listing: search outside of it.
            asked = question.where(f"listing_key not in {list(best)}")

    def _visible(self, question: _Question, n: int, *, grouped: bool = False) -> list[_Hit]:
        """The best hits that are not hidden."""
        hits, hidden = self._hits(question, n, grouped=grouped), question.hidden
        # Thousands of rows in a filter cost the server more than the search, and one of them is seldom among the hits.
        if hidden is not None and np.isin([hit.row for hit in hits], hidden).any():
            hits = self._hits(question.where(f"row not in {hidden.tolist()}"), n, grouped=grouped)
        return hits

    def _hits(self, question: _Question, n: int, *, grouped: bool) -> list[_Hit]:
        """The best hits, or the best of each listing, in the order of their scores and rows."""
        if not n or not question.n_fitting:
            return []
        if question.allowed is not None:
            return self._hits_among_many(question, question.allowed, n, grouped=grouped)
        return self._asked(question, n, grouped=grouped)

    def _hits_among_many(self, question: _Question, allowed: Allowed, n: int, *, grouped: bool) -> list[_Hit]:
        """As `_hits`, where the rows allowed are too many to name: ask for more hits and filter those."""
        plain = replace(question, allowed=None, n_fitting=len(self))
        asked = math.ceil(2 * n * len(self) / allowed.count)
        while asked <= _MOST_HITS:
            hits = self._asked(plain, asked, grouped=False)
            kept = [hit for hit in hits if allowed.mask[hit.row]]
            if grouped:
                best: dict[int, _Hit] = {}
                for hit in kept:
                    best.setdefault(hit.listing_key, hit)
                kept = list(best.values())
            if len(kept) >= n or len(hits) < asked:
                return kept[:n]
            asked *= 4
        return self._asked(question.where(f"row in {allowed.rows.tolist()}"), n, grouped=grouped)

    def _asked(self, question: _Question, n: int, *, grouped: bool) -> list[_Hit]:
        """One search in Milvus, or few."""
        options: dict[str, Any] = {"group_by_field": "listing_key"} if grouped else {}
        # As in `CompressedIndex`: the neighbours among fewer photos are farther apart, in more lists.
        wider = max(1, n / 10) * (len(self) / max(1, question.n_fitting)) ** 1.5
        n_probes = min(math.ceil(self.facts.n_probes * wider), self.facts.n_lists)
        while True:
            [found] = self.server.search(
                self.facts.collection,
                [question.query],
                n,
                filter=" and ".join(question.conditions),
                output_fields=_OUTPUT_FIELDS,
                search_params={"params": {"nprobe": max(1, n_probes)}},
                **options,
            )
            if n_probes >= self.facts.n_lists or len(found) >= n or (grouped and found):
                break
            n_probes *= 4
        scores = rounded(np.array([hit["distance"] for hit in found], dtype=np.float32))
        hits = [_hit(score, hit) for score, hit in zip(scores, found, strict=True)]
        return sorted(hits, key=lambda hit: (-hit.score, hit.row))

    def nearest(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """Search for many queries without filters; see `VectorIndex.nearest`."""
        return self._nearest(queries, k, self.facts.n_probes)

    def exact_nearest(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """Search by brute force over `made_from`, or through all inverted lists; see `VectorIndex.exact_nearest`."""
        if self.made_from is not None:
            return exact_nearest(self.made_from, queries, min(k, len(self)))
        return self._nearest(queries, k, self.facts.n_lists)

    def _nearest(self, queries: FloatArray, k: int, n_probes: int) -> tuple[FloatArray, IntArray]:
        k = min(k, len(self))
        found: list[list[tuple[float, int]]] = []
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            some = list(queries[start : start + QUERIES_AT_ONCE])
            for hits in search_rows(self.server, self.facts.collection, some, k, n_probes):
                found.append([*hits, *[_NOT_FOUND] * (k - len(hits))])
        pairs = np.array(found, dtype=np.float64).reshape(len(queries), k, 2)
        return pairs[..., 0].astype(np.float32), pairs[..., 1].astype(np.int64)

    def photo(self, row: int) -> CataloguePhoto:
        """Return the photo of a row, from the table on disk."""
        return self.table.at([row])[0]

    def photos(self) -> Iterator[CataloguePhoto]:
        """Iterate over the photos in row order, from the table on disk."""
        return iter(self.table)

    def row_of(self, image_id: str) -> int | None:
        """Return the row of an image, from the table on disk; None if there is none."""
        return self.table.of_image(image_id)

    def payload_of(self, listing_id: str) -> str:
        """Return the attributes of a listing as JSON; empty text if it has none."""
        return self.table.payload_of(listing_id)

    def rows_of(self, listing_id: str) -> list[int]:
        """Return the rows of a listing, from the table on disk; empty if it has none."""
        return self.table.of_listing(listing_id)

    def vectors(self, rows: IntArray | slice) -> FloatArray:
        """Fetch the embeddings of some rows from Milvus, (n, dim) float32."""
        return self._stored(rows, VECTOR, self.manifest.dimension)

    def scores(self, rows: IntArray | slice) -> FloatArray:
        """Fetch the category scores of some rows from Milvus, (n, n_categories) float32."""
        return self._stored(rows, "scores", len(self.manifest.categories))

    def _stored(self, rows: IntArray | slice, field: str, width: int) -> FloatArray:
        wanted = list(range(*rows.indices(len(self)))) if isinstance(rows, slice) else rows.tolist()
        stored = np.empty((len(wanted), width), dtype=np.float32)
        step = max(1, MESSAGE_BYTES // (4 * width))
        for start in range(0, len(wanted), step):
            some = wanted[start : start + step]
            found = self.server.query(self.facts.collection, f"row in {sorted(set(some))}", ["row", field])
            by_row = {one["row"]: one[field] for one in found}
            try:
                stored[start : start + step] = [by_row[row] for row in some]
            except KeyError as exc:
                raise IndexDamaged(f"{self.version}: Milvus has lost row {exc} of {self.facts.collection}") from exc
        return stored

    def stored(self, image_id: str) -> Embeddings:
        """Fetch the embedding a photo was indexed with from Milvus; see `VectorIndex.stored`."""
        row = self.row_of(image_id)
        if row is None:
            raise ImageNotFound("the live index has no photo of that id")
        found = self.server.query(self.facts.collection, f"row in [{row}]", [VECTOR, "scores"])
        if not found:
            raise IndexDamaged(f"{self.version}: Milvus has lost row {row} of {self.facts.collection}")
        return Embeddings(
            np.array(found[0][VECTOR], dtype=np.float32)[None], np.array(found[0]["scores"], dtype=np.float32)[None]
        )

    def lists_of(self, vectors: FloatArray) -> None:
        """None: the lists are in Milvus."""

    def lists_near(self, query: FloatArray, n: int) -> None:
        """None: the lists are in Milvus."""

    @property
    def codebook(self) -> None:
        """None: Milvus stores embeddings as they are."""

    def audit(self, n: int, rng: np.random.Generator) -> Audit:
        """Fetch rows drawn at random, and compare them with what was inserted; see `VectorIndex.audit`."""
        if self.digests is None:
            return Audit(0, 0)
        rows = rng.integers(0, len(self), n)
        return Audit(n, int(np.count_nonzero(changed(self.digests, rows, self.vectors(rows)))))

    def check(self, *, live: bool) -> None:
        """Check that the collection is loaded and, if `live`, that the alias points at it."""
        self.server.load(self.facts.collection)
        if live and self.alias:
            self.server.name_live(self.alias, self.facts.collection)


def _hit(score: float, hit: dict[str, Any]) -> _Hit:
    fields = hit["entity"]
    photo = CataloguePhoto(fields["image_id"], fields["listing_id"], fields["category"], Path())
    return _Hit(score, hit["row"], fields["listing_key"], photo)


def search_rows(
    server: MilvusServer, collection: str, queries: list[FloatArray], k: int, n_probes: int
) -> Iterator[list[tuple[float, int]]]:
    """Scores and rows for each query, best first."""
    params = {"params": {"nprobe": max(1, n_probes)}}
    for found in server.search(collection, queries, k, output_fields=["row"], search_params=params):
        scores = rounded(np.array([hit["distance"] for hit in found], dtype=np.float32))
        yield ranked(zip(scores, (hit["row"] for hit in found), strict=True))


def open_collection(
    server: MilvusServer,
    directory: Path,
    version: str,
    manifest: IndexManifest,
    *,
    alias: str = "",
    made_from: FloatArray | None = None,
) -> MilvusIndex:
    """Open a version whose vectors are in Milvus, sealed or not, and load its collection.

    Args:
        server: connection to Milvus.
        directory: of the version, with the photos' table.
        version: name in the artifact store.
        manifest: of the version; its `index` names the collection.
        alias, made_from: see `MilvusIndex`.

    Raises:
        IndexDamaged: the collection is gone, or does not fit the manifest or the table.
        FingerprintMismatch: its vectors are another model's.
        IndexUnavailable: the server does not answer.
    """
    facts = manifest.index
    assert facts is not None  # the caller read there that the vectors are in Milvus
    name = CollectionName.parse(facts.collection)
    if name is None or not manifest.fingerprint.startswith(name.fingerprint):
        raise FingerprintMismatch(f"{version}: collection {facts.collection} is of another model; reindex")
    dimension = server.dimension(facts.collection)
    try:
        filters = RowFilters(directory, manifest) if (directory / CATEGORY_CODES).exists() else None
        table = filters.rows if filters else PhotoTable(directory)
        texts = ListingTexts(directory, manifest.texts, filters.rows.listings) if manifest.texts and filters else None
        reference, digests = read_reference(directory), read_digests(directory)
    except (OSError, ValueError, RuntimeError, sqlite3.Error) as exc:
        raise_exhaustion(exc)
        raise IndexDamaged(f"{version}: cannot be read") from exc
    server.load(facts.collection)
    n_there = server.count(facts.collection)
    if not n_there == len(table) == manifest.count or dimension != manifest.dimension:
        raise IndexDamaged(
            f"{version}: {manifest.count} photos of dimension {manifest.dimension}, but {len(table)} in its table, "
            f"and {n_there} of dimension {dimension} in collection {facts.collection}"
        )
    found = (table, alias, made_from, filters, texts, reference, digests)
    return MilvusIndex(version, manifest, facts, server, *found)
