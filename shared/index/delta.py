"""DeltaIndex: photos put and deleted since a snapshot was built, searched together with it as one index.

Few are compared with every query; of many, those in the inverted lists near it. The delta is built from the change log
alone, so that every worker has the same one, row numbers included.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from shared.array_types import FloatArray, IntArray
from shared.artifacts.snapshots import IndexManifest
from shared.attributes.filters import PhotoFacts
from shared.attributes.schema import AttributeSchema, Values, of_payload
from shared.attributes.values import fitting_values
from shared.catalogue.categories import CataloguePhoto
from shared.changes.log import Change, PutPhoto, entry_order
from shared.errors import ImageNotFound
from shared.index.ann import Mask, best, products
from shared.index.delta_filters import DeltaFilters
from shared.index.delta_lists import DeltaVectors, PutVectors
from shared.index.delta_texts import DeltaTexts
from shared.index.facets import Facets
from shared.index.listing_scores import ListingPhotos, best_listings
from shared.index.live_photos import LivePhoto, LivePhotos
from shared.index.query import WordsQuery
from shared.index.stored_vectors import Vectors
from shared.index.vector_index import LabelledRows, VectorIndex, included, rounded
from shared.jobs.answers_contract import Neighbour
from shared.jobs.contract import (
    Distinct,
    SearchRequest,
)
from shared.model.embedder import Embeddings
from shared.telemetry import event
from shared.text.encoder import EncodeListing

_LOG = logging.getLogger(__name__)
_SORTED_AT_FIRST = 64

Embed = Callable[[PutPhoto], Embeddings | None]


@dataclass(frozen=True)
class _Put:
    image_id: str
    listing_id: str
    sha256: str
    category: int
    scores: FloatArray  # (n_categories,)
    values: Values
    listing_rows: tuple[int, ...]  # of its listing's photos in the snapshot

    @property
    def live(self) -> LivePhoto:
        """What it is to work on all photos."""
        return LivePhoto(self.image_id, self.listing_id, self.sha256)


@dataclass(frozen=True)
class _State:
    """Everything a search reads; replaced as a whole, so that no search sees half a change.

    Attributes:
        applied_to: the last entry of the change log that is in it.
        n_changed: images that were put or deleted.
        hidden: rows of the snapshot that were replaced or deleted, ascending.
        put: embeddings of the photos that were put, one per position.
        alive: (n,) true for the positions that searches find; others were replaced or deleted, or have no embedding.
        n_alive: how many.
    """

    applied_to: str
    n_changed: int
    hidden: npt.NDArray[np.int64]
    put: PutVectors
    alive: npt.NDArray[np.bool_]
    n_alive: int

    @property
    def vectors(self) -> Vectors:
        """(n, dim), one per position."""
        return self.put.vectors

    def hides(self, rows: list[int]) -> set[int]:
        """Which rows of the snapshot were replaced or deleted."""
        asked = np.array(rows, dtype=np.int64)
        places = np.minimum(np.searchsorted(self.hidden, asked), max(0, len(self.hidden) - 1))
        return set(asked[self.hidden[places] == asked].tolist()) if len(self.hidden) else set()

    @property
    def hidden_rows(self) -> IntArray | None:
        """`hidden`; None where there are none."""
        return self.hidden if len(self.hidden) else None


class DeltaIndex:
    """Pending changes on top of one snapshot, searched as one index. Any thread may search; one at a time may apply.

        delta = DeltaIndex(open_snapshot(store, fingerprint=fingerprint), embed)
        delta.apply(log.read(delta.applied_to))
        neighbours = delta.search(query, SearchRequest(k=10))

    Args:
        snapshot: the index below.
        embed: embeds a photo that was put with another model's embedding. Where it returns None, the photo cannot be
            had, and searches do not find it.
        encode: encodes the words of a listing; None: there are no words.
    """

    def __init__(self, snapshot: VectorIndex, embed: Embed, encode: EncodeListing | None = None) -> None:
        self.snapshot = snapshot
        self._embed = embed
        # Append-only, so that a search with an older state is not disturbed: it reads the first len(vectors) entries.
        self._puts: list[_Put] = []
        self._payloads: dict[str, str] = {}  # what the last photo of a listing was put with
        self._vectors = DeltaVectors(snapshot)
        self._sequences: dict[str, int] = {}  # of the last change, by image
        self._positions: dict[str, int] = {}  # by image; of those that searches find
        self._filters = DeltaFilters(snapshot.manifest)
        texts = snapshot.manifest.texts
        self._texts = DeltaTexts(encode, texts.width if texts else 0)
        nothing = np.empty(0, dtype=np.int64)
        compacted_through = snapshot.manifest.compacted_through
        none = np.empty(0, dtype=np.bool_)
        self._state = _State(compacted_through, 0, nothing, self._vectors.first(0), none, 0)

    @property
    def version(self) -> str:
        """Version of the snapshot below."""
        return self.snapshot.version

    @property
    def manifest(self) -> IndexManifest:
        """Manifest of the snapshot below; its `count` does not include the delta."""
        return self.snapshot.manifest

    @property
    def applied_to(self) -> str:
        """Id of the last entry of the change log that searches see."""
        return self._state.applied_to

    @property
    def n_changed(self) -> int:
        """Number of images that were put or deleted since the snapshot was built."""
        return self._state.n_changed

    @property
    def hidden_rows(self) -> IntArray:
        """Rows of the snapshot that were replaced or deleted since."""
        return self._state.hidden

    def apply(self, changes: Iterable[Change]) -> None:
        """Make entries of the change log visible to searches.

        Args:
            changes: in the log's order; entries that were applied before are skipped.
        """
        old = self._state
        if len(self._puts) > len(old.vectors):  # left by a call that failed half-way
            del self._puts[len(old.vectors) :]
            self._texts.forget_from(len(self._puts))
            self._filters.forget_from(len(self._puts))
        applied_to = old.applied_to
        sequences: dict[str, int] = {}
        positions: dict[str, int | None] = {}  # of the images that change here; None: searches find it no more
        for change in changes:
            if entry_order(change.entry_id) <= entry_order(applied_to):
                continue
            applied_to = change.entry_id
            if change.sequence < sequences.get(change.image_id, self._sequences.get(change.image_id, 0)):
                continue
            sequences[change.image_id] = change.sequence
            positions[change.image_id] = None
            if change.photo:
                embeddings = self._embeddings(change.photo)
                # It takes a position even without an embedding: row numbers must be the same in every worker.
                position = self._keep(change.image_id, change.photo, embeddings)
                if change.photo.category >= len(self.manifest.categories):
                    event(_LOG, "put_of_another_catalogue", level=logging.WARNING, image_id=change.image_id)
                elif embeddings:
                    positions[change.image_id] = position
        if applied_to == old.applied_to:
            return
        rows = (self.snapshot.row_of(image_id) for image_id in sequences.keys() - self._sequences.keys())
        new_hidden = np.array([row for row in rows if row is not None], dtype=np.int64)
        # Searches remember what they have worked out of the same array.
        hidden = np.union1d(old.hidden, new_hidden) if len(new_hidden) else old.hidden
        n_old = len(old.alive)
        alive = np.zeros(len(self._puts), dtype=np.bool_)
        alive[:n_old] = old.alive
        alive[[before for image_id in positions if (before := self._positions.get(image_id)) is not None]] = False
        alive[[position for position in positions.values() if position is not None]] = True
        put = self._vectors.first(len(self._puts))
        self._sequences |= sequences
        for image_id, now in positions.items():
            if now is None:
                self._positions.pop(image_id, None)
            else:
                self._positions[image_id] = now
        self._state = _State(applied_to, len(self._sequences), hidden, put, alive, len(self._positions))

    def _embeddings(self, photo: PutPhoto) -> Embeddings | None:
        if photo.fingerprint == self.manifest.fingerprint:
            return Embeddings(photo.vector[None], photo.scores[None])
        return self._embed(photo)

    def _keep(self, image_id: str, photo: PutPhoto, embeddings: Embeddings | None) -> int:
        position = len(self._puts)
        self._vectors.put(position, embeddings.vectors[0] if embeddings else None)
        scores = embeddings.scores[0] if embeddings else photo.scores
        # A photo that came without attributes has those that its listing has.
        listing_id = photo.listing_id
        if photo.payload:
            self._payloads[listing_id] = photo.payload
        payload = photo.payload or self.snapshot.payload_of(listing_id) or self._payloads.get(listing_id, "")
        values = fitting_values(of_payload(payload), AttributeSchema(self.manifest.attributes))
        rows = tuple(self.snapshot.rows_of(listing_id))
        self._texts.keep(position, payload, photo.category)
        self._filters.keep(PhotoFacts(photo.category, listing_id, image_id, values))
        self._puts.append(_Put(image_id, listing_id, photo.sha256, photo.category, scores, values, rows))
        return position

    def search(self, query: FloatArray, request: SearchRequest, *, words: WordsQuery | None = None) -> list[Neighbour]:
        """Find the most similar photos of snapshot and delta together; see `VectorIndex.search`.

        Photos in the delta have the rows after the snapshot's last, in the order of the change log. With
        `listing_score` each neighbour is the most similar photo of its listing, has the listing's score and tells how
        many photos the listing has.
        """
        if request.listing_score is None:
            return self._best_photos(self._state, query, request, words)
        state = self._state
        return best_listings(
            query,
            request,
            words,
            lambda some: self._best_photos(state, query, some, words),
            lambda listing_ids: self._photos_of(state, listing_ids),
            lambda photos: self._vectors_of(state, photos),
            lambda rows: self._verbatim(state, rows, words),
        )

    def _verbatim(self, state: _State, rows: IntArray, words: WordsQuery | None) -> FloatArray:
        """How much of a query's words the listings of some rows say word for word, (n,)."""
        said = np.zeros(len(rows), dtype=np.float32)
        if words is not None:
            put = rows >= len(self.snapshot)
            said[~put] = self.snapshot.verbatim(rows[~put], words.words)
            weights = self.snapshot.word_weights(words.words)
            of_delta = self._texts.verbatim(len(state.vectors), words.words, weights)
            said[put] = of_delta[rows[put] - len(self.snapshot)]
        return said

    def _photos_of(self, state: _State, listing_ids: Sequence[str]) -> ListingPhotos:
        """All photos of some listings that searches can find, whatever their filters."""
        n, alive = len(state.alive), state.alive
        rows = [self.snapshot.rows_of(one) for one in listing_ids]
        hidden = state.hides([row for some in rows for row in some])
        rows = [[row for row in some if row not in hidden] for some in rows]
        positions = [[at for at in self._filters.places_of(one, n) if alive[at]] for one in listing_ids]
        return ListingPhotos(
            rows=np.array([row for some in rows for row in some], dtype=np.int64),
            positions=[position for some in positions for position in some],
            listings=np.repeat(np.tile(np.arange(len(listing_ids)), 2), list(map(len, (*rows, *positions)))),
        )

    def _vectors_of(self, state: _State, photos: ListingPhotos) -> FloatArray:
        """Embeddings (n, dim) of some photos."""
        return np.concatenate([self.snapshot.vectors(photos.rows), state.vectors[photos.positions]])

    def _best_photos(
        self, state: _State, query: FloatArray, request: SearchRequest, words: WordsQuery | None
    ) -> list[Neighbour]:
        """The best photos, or with `distinct` the best one of each of the best listings."""
        found = self.snapshot.search(query, request, hidden=state.hidden_rows, words=words)
        if not state.n_alive:
            return found
        found += self._found(state, query, words, request)
        kept: list[Neighbour] = []
        listings: set[str] = set()
        for neighbour in sorted(found, key=lambda one: (-one.score, one.row)):
            if request.distinct is Distinct.LISTING and neighbour.listing_id in listings:
                continue
            listings.add(neighbour.listing_id)
            kept.append(neighbour.model_copy(update={"rank": len(kept) + 1}))
        return kept[: request.k]

    def labelled(
        self, query: FloatArray, n: int, request: SearchRequest, without: Collection[str] = ()
    ) -> LabelledRows:
        """Find the categories of the most similar photos of snapshot and delta; see `VectorIndex.labelled`.

        Args:
            query, n, request: as there.
            without: listings to leave out.
        """
        state = self._state
        own = [row for listing_id in without for row in self.snapshot.rows_of(listing_id)]
        found = self.snapshot.labelled(query, n + len(own), request, hidden=state.hidden_rows)
        others = ~np.isin(found.rows, own)
        found = LabelledRows(found.scores[others], found.categories[others], found.rows[others])
        best_put = list(islice(self._ranked(state, query, None, n, self._allowed(state, request, without)), n))
        met = [position for position, _ in best_put]
        also = np.array([self._puts[position].category for position in met], dtype=np.int64)
        scores = np.concatenate([found.scores, np.array([score for _, score in best_put], dtype=np.float32)])
        rows = np.concatenate([found.rows, len(self.snapshot) + np.array(met, dtype=np.int64)])
        scores, kept = best(scores, np.arange(len(scores)), n)
        return LabelledRows(scores, np.concatenate([found.categories, also])[kept], rows[kept])

    def vectors(self, rows: Sequence[int]) -> FloatArray:
        """Return the embeddings (n, dim) of rows that a search has found, those of the snapshot first."""
        n_rows = len(self.snapshot)
        below = np.array([row for row in rows if row < n_rows], dtype=np.int64)
        put = [row - n_rows for row in rows if row >= n_rows]
        return np.concatenate([self.snapshot.vectors(below), self._state.vectors[put]])

    def ids_of(self, row: int) -> tuple[str, str]:
        """Return the ids of a photo and of its listing, by the row that a search has found it in."""
        photo = self.snapshot.photo(row) if row < len(self.snapshot) else self._puts[row - len(self.snapshot)]
        return photo.image_id, photo.listing_id

    def payload_of(self, listing_id: str) -> str:
        """Return the attributes of a listing as JSON; empty text if it has none, or is not there."""
        return self._payloads.get(listing_id) or self.snapshot.payload_of(listing_id)

    def category_of(self, listing_id: str) -> str | None:
        """Return the category of a listing, as it was put last; None if searches find no photo of it."""
        photos = self._photos_of(self._state, [listing_id])
        category = None
        if photos.positions:
            category = self._puts[photos.positions[-1]].category
        elif len(photos.rows):
            category = self.snapshot.photo(int(photos.rows[0])).category
        return None if category is None else self.manifest.categories[category]

    def photo_of(self, image_id: str) -> LivePhoto | None:
        """Return the photo of an image; None if there is no such image."""
        if (position := self._positions.get(image_id)) is not None:
            return self._puts[position].live
        row = None if image_id in self._sequences else self.snapshot.row_of(image_id)
        return None if row is None else _live(self.snapshot.photo(row))

    def _allowed(self, state: _State, request: SearchRequest, without: Collection[str] = ()) -> Mask:
        """Which positions a search may find, (n,): those alive that meet its filters, of no listing to leave out."""
        n = len(state.alive)
        meeting = self._filters.allowed(request, n)
        allowed = state.alive.copy() if meeting is None else state.alive & meeting
        for listing_id in without:
            allowed[self._filters.places_of(listing_id, n)] = False
        return allowed

    def _similarities(
        self, state: _State, positions: IntArray, query: FloatArray, words: WordsQuery | None
    ) -> FloatArray:
        """How similar some photos of the delta are to a query, (m,)."""
        if words is None:
            return products(state.vectors, positions, query)
        photos = products(state.vectors, np.arange(len(state.vectors)), query)
        return self._texts.joined(photos, state.vectors, words, self.snapshot.word_weights(words.words))[positions]

    def _ranked(
        self, state: _State, query: FloatArray, words: WordsQuery | None, n: int, allowed: Mask
    ) -> Iterator[tuple[int, float]]:
        """Allowed photos of the delta by position with their scores, best first.

        Where inverted lists tell which are worth comparing with a photo for its `n` nearest, those come first, and the
        others only if more are asked for.
        """
        near = state.put.near(query, n) if words is None else None
        if near is not None:
            near = near[allowed[near]]
            yield from _best_first(near, products(state.vectors, near, query))
            allowed = allowed.copy()
            allowed[near] = False
        rest = np.flatnonzero(allowed)
        if len(rest):
            yield from _best_first(rest, self._similarities(state, rest, query, words))

    def _found(
        self, state: _State, query: FloatArray, words: WordsQuery | None, request: SearchRequest
    ) -> list[Neighbour]:
        """The best photos of the delta that meet the request's filters, at most `k`."""
        names = self.manifest.categories
        found: list[Neighbour] = []
        listings: set[str] = set()
        for position, score in self._ranked(state, query, words, request.k, self._allowed(state, request)):
            put = self._puts[position]
            if len(found) == request.k or (request.min_score is not None and score < request.min_score):
                break
            if request.distinct is Distinct.LISTING and put.listing_id in listings:
                continue
            listings.add(put.listing_id)
            found.append(
                Neighbour(
                    rank=len(found) + 1,
                    image_id=put.image_id,
                    listing_id=put.listing_id,
                    category=names[put.category],
                    score=score,
                    row=len(self.snapshot) + position,
                    attributes=included(put.values, request.include) if request.include else None,
                )
            )
        return found

    def count(self, request: SearchRequest) -> Facets:
        """Count the values of facets among the listings of snapshot and delta; see `VectorIndex.count`.

        A listing with photos in both counts once, with what was put last.
        """
        state = self._state
        met = np.flatnonzero(self._allowed(state, request)).tolist()
        counted = {put.listing_id: put for put in (self._puts[position] for position in met)}
        elsewhere = [row for put in counted.values() for row in put.listing_rows]
        hidden = np.concatenate([state.hidden, np.array(elsewhere, dtype=np.int64)])
        facets = self.snapshot.count(request, hidden if len(hidden) else None)
        facets.add([(put.category, put.values) for put in counted.values()])
        return facets

    def live_photos(self) -> LivePhotos:
        """Return all photos that searches find now, for work on all of them."""
        state = self._state
        photos = [_live(photo) for photo in self.snapshot.photos()]
        photos += [put.live for put in self._puts[: len(state.vectors)]]
        dead = np.flatnonzero(~state.alive) + len(self.snapshot)
        return LivePhotos(self.snapshot, photos, frozenset([*state.hidden.tolist(), *dead.tolist()]), state.vectors)

    def photo(self, row: int) -> LivePhoto:
        """Return the photo of a row, as search results name it."""
        n_rows = len(self.snapshot)
        return _live(self.snapshot.photo(row)) if row < n_rows else self._puts[row - n_rows].live

    def stored(self, image_id: str) -> Embeddings:
        """Return the embedding a photo was put or indexed with; see `VectorIndex.stored`."""
        if (position := self._positions.get(image_id)) is not None:
            return Embeddings(self._vectors.at(position), self._puts[position].scores[None])
        if image_id in self._sequences:
            raise ImageNotFound("the photo of that id was deleted")
        return self.snapshot.stored(image_id)

    def stored_listing(self, listing_id: str) -> Embeddings:
        """Return the embeddings of all photos of a listing: vectors (n, dim), scores (n, n_categories), n >= 1.

        Raises:
            ImageNotFound: the listing has no photo in snapshot or delta.
        """
        state = self._state
        photos = self._photos_of(state, [listing_id])
        if not len(photos.listings):
            raise ImageNotFound("the live index has no photo of a listing of that id")
        scores = [
            self.snapshot.scores(photos.rows),
            *(self._puts[position].scores[None] for position in photos.positions),
        ]
        return Embeddings(self._vectors_of(state, photos), np.concatenate(scores))


def _best_first(positions: IntArray, similarities: FloatArray) -> Iterator[tuple[int, float]]:
    """Positions with their scores, best first, ties by position; sorted so far as they are asked for."""
    scores = np.array(rounded(similarities))
    n = _SORTED_AT_FIRST
    while len(scores):
        first = ~(scores < (np.partition(scores, len(scores) - n)[len(scores) - n] if n < len(scores) else -1))
        some, of_some = positions[first], scores[first]
        for place in np.lexsort((some, -of_some)).tolist():
            yield int(some[place]), float(of_some[place])
        positions, scores = positions[~first], scores[~first]
        n *= 8


def _live(photo: CataloguePhoto) -> LivePhoto:
    return LivePhoto(photo.image_id, photo.listing_id, photo.sha256, str(photo.path))
