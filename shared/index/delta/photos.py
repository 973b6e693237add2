"""DeltaPhotos: photos put and deleted since a snapshot was built, kept from the change log and searched by themselves.

Few are compared with every query; of many, those in the inverted lists near it. They are kept from the change log
alone, so that every worker has the same ones at the same positions.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shared.array_types import FloatArray, IntArray
from shared.attributes.filters import PhotoFacts
from shared.attributes.schema import AttributeSchema, of_payload
from shared.attributes.values import fitting_values
from shared.changes.log import Change, PutPhoto, entry_order
from shared.index.delta.filters import DeltaFilters
from shared.index.delta.live_photos import LivePhoto
from shared.index.delta.texts import DeltaTexts
from shared.index.delta.vectors import DeltaVectors, PutVectors
from shared.index.query import WordsQuery
from shared.index.vector_index import VectorIndex, rounded
from shared.index.vectors.ann import Mask, products
from shared.index.vectors.stored_vectors import Vectors
from shared.jobs.contract import SearchRequest
from shared.model.embedder import Embeddings
from shared.telemetry import event
from shared.text.encoder import EncodeListing

_LOG = logging.getLogger(__name__)
_SORTED_AT_FIRST = 64

Embed = Callable[[PutPhoto], Embeddings | None]


@dataclass(frozen=True)
class Put:
    """A photo that was put.

    Attributes:
        facts: its ids, category and attributes.
        live: what it is to work on all photos.
        scores: (n_categories,) float32.
        listing_rows: of its listing's photos in the snapshot.
    """

    facts: PhotoFacts
    live: LivePhoto
    scores: FloatArray
    listing_rows: tuple[int, ...]


@dataclass(frozen=True)
class DeltaState:
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


class DeltaPhotos:
    """The photos; any thread may search, with the state that it has read; one at a time may apply.

    Args:
        snapshot: the index below.
        embed: embeds a photo that was put with another model's embedding. Where it returns None, the photo cannot be
            had, and searches do not find it.
        encode: encodes the words of a listing; None: there are no words.

    Attributes:
        state: what is visible to searches that begin now.
    """

    def __init__(self, snapshot: VectorIndex, embed: Embed, encode: EncodeListing | None) -> None:
        self._snapshot = snapshot
        self._embed = embed
        # Append-only, so that a search with an older state is not disturbed: it reads the first len(vectors) entries.
        self._puts: list[Put] = []
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
        self.state = DeltaState(compacted_through, 0, nothing, self._vectors.first(0), none, 0)

    def __getitem__(self, position: int) -> Put:
        return self._puts[position]

    def apply(self, changes: Iterable[Change]) -> None:
        """Make entries of the change log visible to searches.

        Args:
            changes: in the log's order; entries that were applied before are skipped.
        """
        old = self.state
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
            positions[change.image_id] = self._kept(change.image_id, change.photo) if change.photo else None
        if applied_to == old.applied_to:
            return
        rows = (self._snapshot.row_of(image_id) for image_id in sequences.keys() - self._sequences.keys())
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
        self.state = DeltaState(applied_to, len(self._sequences), hidden, put, alive, len(self._positions))

    def _kept(self, image_id: str, photo: PutPhoto) -> int | None:
        """Keep a photo; returns its position, or None where searches must not find it."""
        embeddings: Embeddings | None = Embeddings(photo.vector[None], photo.scores[None])
        if photo.fingerprint != self._snapshot.manifest.fingerprint:
            embeddings = self._embed(photo)
        # It takes a position even without an embedding: row numbers must be the same in every worker.
        position = len(self._puts)
        self._vectors.put(position, embeddings.vectors[0] if embeddings else None)
        scores = embeddings.scores[0] if embeddings else photo.scores
        # A photo that came without attributes has those that its listing has.
        listing_id = photo.listing_id
        if photo.payload:
            self._payloads[listing_id] = photo.payload
        payload = photo.payload or self._snapshot.payload_of(listing_id) or self._payloads.get(listing_id, "")
        values = fitting_values(of_payload(payload), AttributeSchema(self._snapshot.manifest.attributes))
        facts = PhotoFacts(photo.category, listing_id, image_id, values)
        rows = tuple(self._snapshot.rows_of(listing_id))
        self._texts.keep(position, payload, photo.category)
        self._filters.keep(facts)
        self._puts.append(Put(facts, LivePhoto(image_id, listing_id, photo.sha256), scores, rows))
        if photo.category >= len(self._snapshot.manifest.categories):
            event(_LOG, "put_of_another_catalogue", level=logging.WARNING, image_id=image_id)
            return None
        return position if embeddings else None

    def is_changed(self, image_id: str) -> bool:
        """Whether an image was put or deleted, so that the snapshot's counts no more."""
        return image_id in self._sequences

    def of_image(self, image_id: str) -> int | None:
        """Position of an image; None: it was not put, or searches do not find it."""
        return self._positions.get(image_id)

    def of_listing(self, state: DeltaState, listing_id: str) -> list[int]:
        """Positions of a listing's photos that searches find, in the order in which they were put."""
        return [at for at in self._filters.places_of(listing_id, len(state.alive)) if state.alive[at]]

    def payload_of(self, listing_id: str) -> str:
        """Attributes as JSON with which a listing was put last; empty text if it was not, or without any."""
        return self._payloads.get(listing_id, "")

    def stored(self, position: int) -> Embeddings:
        """The embedding of a photo: vectors (1, dim), scores (1, n_categories)."""
        return Embeddings(self._vectors.at(position), self._puts[position].scores[None])

    def allowed(self, state: DeltaState, request: SearchRequest, without: Collection[str] = ()) -> Mask:
        """Which positions a search may find, (n,): those alive that meet its filters, of no listing to leave out."""
        n = len(state.alive)
        meeting = self._filters.allowed(request, n)
        allowed = state.alive.copy() if meeting is None else state.alive & meeting
        for listing_id in without:
            allowed[self._filters.places_of(listing_id, n)] = False
        return allowed

    def verbatim(self, state: DeltaState, positions: IntArray, words: WordsQuery) -> FloatArray:
        """How much of a query's words the listings of some photos say word for word, (m,)."""
        weights = self._snapshot.word_weights(words.words)
        return self._texts.verbatim(len(state.vectors), words.words, weights)[positions]

    def ranked(
        self, state: DeltaState, query: FloatArray, words: WordsQuery | None, n: int, allowed: Mask
    ) -> Iterator[tuple[int, float]]:
        """Allowed photos by position with their scores, best first.

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

    def _similarities(
        self, state: DeltaState, positions: IntArray, query: FloatArray, words: WordsQuery | None
    ) -> FloatArray:
        """How similar some photos are to a query, (m,)."""
        if words is None:
            return products(state.vectors, positions, query)
        photos = products(state.vectors, np.arange(len(state.vectors)), query)
        return self._texts.joined(photos, state.vectors, words, self._snapshot.word_weights(words.words))[positions]


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
