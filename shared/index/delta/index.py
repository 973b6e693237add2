"""DeltaIndex: photos put and deleted since a snapshot was built, searched together with it as one index."""

from collections.abc import Collection, Iterable, Sequence
from itertools import islice

import numpy as np

from shared.array_types import FloatArray, IntArray
from shared.artifacts.snapshots import IndexManifest
from shared.catalogue.categories import CataloguePhoto
from shared.changes.log import Change
from shared.errors import ImageNotFound
from shared.index.delta.live_photos import LivePhoto, LivePhotos
from shared.index.delta.photos import DeltaPhotos, DeltaState, Embed
from shared.index.listing_scores import ListingPhotos, best_listings
from shared.index.metadata.facets import Facets
from shared.index.query import WordsQuery
from shared.index.vector_index import LabelledRows, VectorIndex, included
from shared.index.vectors.ann import best
from shared.jobs.answers_contract import Neighbour
from shared.jobs.contract import (
    Distinct,
    SearchRequest,
)
from shared.model.embedder import Embeddings
from shared.text.encoder import EncodeListing


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
        self._delta = DeltaPhotos(snapshot, embed, encode)

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
        return self._delta.state.applied_to

    @property
    def n_changed(self) -> int:
        """Number of images that were put or deleted since the snapshot was built."""
        return self._delta.state.n_changed

    @property
    def hidden_rows(self) -> IntArray:
        """Rows of the snapshot that were replaced or deleted since."""
        return self._delta.state.hidden

    def apply(self, changes: Iterable[Change]) -> None:
        """Make entries of the change log visible to searches.

        Args:
            changes: in the log's order; entries that were applied before are skipped.
        """
        self._delta.apply(changes)

    def search(self, query: FloatArray, request: SearchRequest, *, words: WordsQuery | None = None) -> list[Neighbour]:
        """Find the most similar photos of snapshot and delta together; see `VectorIndex.search`.

        Photos in the delta have the rows after the snapshot's last, in the order of the change log. With
        `listing_score` each neighbour is the most similar photo of its listing, has the listing's score and tells how
        many photos the listing has.
        """
        if request.listing_score is None:
            return self._best_photos(self._delta.state, query, request, words)
        state = self._delta.state
        return best_listings(
            query,
            request,
            words,
            lambda some: self._best_photos(state, query, some, words),
            lambda listing_ids: self._photos_of(state, listing_ids),
            lambda photos: self._vectors_of(state, photos),
            lambda rows: self._verbatim(state, rows, words),
        )

    def _verbatim(self, state: DeltaState, rows: IntArray, words: WordsQuery | None) -> FloatArray:
        """How much of a query's words the listings of some rows say word for word, (n,)."""
        said = np.zeros(len(rows), dtype=np.float32)
        if words is not None:
            put = rows >= len(self.snapshot)
            said[~put] = self.snapshot.verbatim(rows[~put], words.words)
            said[put] = self._delta.verbatim(state, rows[put] - len(self.snapshot), words)
        return said

    def _photos_of(self, state: DeltaState, listing_ids: Sequence[str]) -> ListingPhotos:
        """All photos of some listings that searches can find, whatever their filters."""
        rows = [self.snapshot.rows_of(one) for one in listing_ids]
        hidden = state.hides([row for some in rows for row in some])
        rows = [[row for row in some if row not in hidden] for some in rows]
        positions = [self._delta.of_listing(state, one) for one in listing_ids]
        return ListingPhotos(
            rows=np.array([row for some in rows for row in some], dtype=np.int64),
            positions=[position for some in positions for position in some],
            listings=np.repeat(np.tile(np.arange(len(listing_ids)), 2), list(map(len, (*rows, *positions)))),
        )

    def _vectors_of(self, state: DeltaState, photos: ListingPhotos) -> FloatArray:
        """Embeddings (n, dim) of some photos."""
        return np.concatenate([self.snapshot.vectors(photos.rows), state.vectors[photos.positions]])

    def _best_photos(
        self, state: DeltaState, query: FloatArray, request: SearchRequest, words: WordsQuery | None
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
        state = self._delta.state
        own = [row for listing_id in without for row in self.snapshot.rows_of(listing_id)]
        found = self.snapshot.labelled(query, n + len(own), request, hidden=state.hidden_rows)
        others = ~np.isin(found.rows, own)
        found = LabelledRows(found.scores[others], found.categories[others], found.rows[others])
        best_put = list(
            islice(self._delta.ranked(state, query, None, n, self._delta.allowed(state, request, without)), n)
        )
        met = [position for position, _ in best_put]
        also = np.array([self._delta[position].facts.category for position in met], dtype=np.int64)
        scores = np.concatenate([found.scores, np.array([score for _, score in best_put], dtype=np.float32)])
        rows = np.concatenate([found.rows, len(self.snapshot) + np.array(met, dtype=np.int64)])
        scores, kept = best(scores, np.arange(len(scores)), n)
        return LabelledRows(scores, np.concatenate([found.categories, also])[kept], rows[kept])

    def vectors(self, rows: Sequence[int]) -> FloatArray:
        """Return the embeddings (n, dim) of rows that a search has found, those of the snapshot first."""
        n_rows = len(self.snapshot)
        below = np.array([row for row in rows if row < n_rows], dtype=np.int64)
        put = [row - n_rows for row in rows if row >= n_rows]
        return np.concatenate([self.snapshot.vectors(below), self._delta.state.vectors[put]])

    def ids_of(self, row: int) -> tuple[str, str]:
        """Return the ids of a photo and of its listing, by the row that a search has found it in."""
        photo = self.photo(row)
        return photo.image_id, photo.listing_id

    def payload_of(self, listing_id: str) -> str:
        """Return the attributes of a listing as JSON; empty text if it has none, or is not there."""
        return self._delta.payload_of(listing_id) or self.snapshot.payload_of(listing_id)

    def category_of(self, listing_id: str) -> str | None:
        """Return the category of a listing, as it was put last; None if searches find no photo of it."""
        photos = self._photos_of(self._delta.state, [listing_id])
        category = None
        if photos.positions:
            category = self._delta[photos.positions[-1]].facts.category
        elif len(photos.rows):
            category = self.snapshot.photo(int(photos.rows[0])).category
        return None if category is None else self.manifest.categories[category]

    def photo_of(self, image_id: str) -> LivePhoto | None:
        """Return the photo of an image; None if there is no such image."""
        if (position := self._delta.of_image(image_id)) is not None:
            return self._delta[position].live
        row = None if self._delta.is_changed(image_id) else self.snapshot.row_of(image_id)
        return None if row is None else _live(self.snapshot.photo(row))

    def _found(
        self, state: DeltaState, query: FloatArray, words: WordsQuery | None, request: SearchRequest
    ) -> list[Neighbour]:
        """The best photos of the delta that meet the request's filters, at most `k`."""
        names = self.manifest.categories
        found: list[Neighbour] = []
        listings: set[str] = set()
        for position, score in self._delta.ranked(state, query, words, request.k, self._delta.allowed(state, request)):
            put = self._delta[position].facts
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
        state = self._delta.state
        met = np.flatnonzero(self._delta.allowed(state, request)).tolist()
        counted = {put.facts.listing_id: put for put in map(self._delta.__getitem__, met)}
        elsewhere = [row for put in counted.values() for row in put.listing_rows]
        hidden = np.concatenate([state.hidden, np.array(elsewhere, dtype=np.int64)])
        facets = self.snapshot.count(request, hidden if len(hidden) else None)
        facets.add([(put.facts.category, put.facts.values) for put in counted.values()])
        return facets

    def live_photos(self) -> LivePhotos:
        """Return all photos that searches find now, for work on all of them."""
        state = self._delta.state
        photos = [_live(photo) for photo in self.snapshot.photos()]
        photos += [self._delta[position].live for position in range(len(state.vectors))]
        dead = np.flatnonzero(~state.alive) + len(self.snapshot)
        return LivePhotos(self.snapshot, photos, frozenset([*state.hidden.tolist(), *dead.tolist()]), state.vectors)

    def photo(self, row: int) -> LivePhoto:
        """Return the photo of a row, as search results name it."""
        n_rows = len(self.snapshot)
        return _live(self.snapshot.photo(row)) if row < n_rows else self._delta[row - n_rows].live

    def stored(self, image_id: str) -> Embeddings:
        """Return the embedding a photo was put or indexed with; see `VectorIndex.stored`."""
        if (position := self._delta.of_image(image_id)) is not None:
            return self._delta.stored(position)
        if self._delta.is_changed(image_id):
            raise ImageNotFound("the photo of that id was deleted")
        return self.snapshot.stored(image_id)

    def stored_listing(self, listing_id: str) -> Embeddings:
        """Return the embeddings of all photos of a listing: vectors (n, dim), scores (n, n_categories), n >= 1.

        Raises:
            ImageNotFound: the listing has no photo in snapshot or delta.
        """
        state = self._delta.state
        photos = self._photos_of(state, [listing_id])
        if not len(photos.listings):
            raise ImageNotFound("the live index has no photo of a listing of that id")
        scores = [
            self.snapshot.scores(photos.rows),
            *(self._delta[position].scores[None] for position in photos.positions),
        ]
        return Embeddings(self._vectors_of(state, photos), np.concatenate(scores))


def _live(photo: CataloguePhoto) -> LivePhoto:
    return LivePhoto(photo.image_id, photo.listing_id, photo.sha256, str(photo.path))
