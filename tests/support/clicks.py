"""Simulated people: they look at results from the top, ever more seldom, and click on what they were looking for."""

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field

import numpy as np

from shared.array_types import DoubleArray
from shared.attributes.json_options import FilterJson
from shared.catalogue.categories import CataloguePhoto
from shared.feedback.contract import FeedbackEvent, FeedbackRequest, JobFeedback, StoredEvent, impression_of
from shared.index.answers import Asked
from shared.index.delta.index import DeltaIndex
from shared.index.reranking import Reranker, reranked_result
from shared.jobs.answers_contract import SearchResult
from shared.jobs.contract import Job, JobKind, JobStatus, SearchRequest
from shared.model.bundle import ModelBundle
from shared.model.embedder import joined

DEPTH = 4
OF_RIGHT, OF_WRONG = 0.6, 0.06  # how often a result is clicked that is looked at


def reciprocal(positions: DoubleArray) -> DoubleArray:
    """Each position is looked at in inverse proportion to its number."""
    return 1 / positions


def geometric(positions: DoubleArray) -> DoubleArray:
    """Seven in ten who look at a position look at the next."""
    return np.power(0.7, positions - 1)


@dataclass
class People:
    """Searches of an index's photos by people who know what they want.

    Attributes:
        wanted: image ids that somebody wants who searches by a photo.
        asked: the request for a photo of the index; one that names no photo is of one that was sent.
        examined: how often positions are looked at.
        blind: whether people click whatever they look at.
    """

    index: DeltaIndex
    bundle: ModelBundle
    wanted: Callable[[CataloguePhoto], Set[str]]
    asked: Callable[[CataloguePhoto], SearchRequest]
    examined: Callable[[DoubleArray], DoubleArray] = reciprocal
    blind: bool = False
    seed: int = 3
    _found: dict[str, SearchResult] = field(default_factory=dict)

    def search(self, photo: CataloguePhoto, reranker: Reranker | None = None) -> SearchResult:
        """What a search by a photo finds, without the photo itself."""
        return reranked_result(self.query(photo), self.request(photo), self.index, self.bundle.manifest, reranker)

    def query(self, photo: CataloguePhoto) -> Asked:
        """The query of a photo."""
        text = self.asked(photo).text
        encoder = self.bundle.text_encoder() if text else None
        listing = self.asked(photo).listing_id
        stored = self.index.stored_listing(listing) if listing else self.index.stored(photo.image_id)
        return Asked(joined([stored]), encoder.encode(text) if encoder and text else None)

    def request(self, photo: CataloguePhoto) -> SearchRequest:
        """The request of a photo; it does not find the photo itself."""
        itself: FilterJson = {"must_not": [{"key": "image_id", "match": {"value": photo.image_id}}]}
        return SearchRequest.model_validate({**self.asked(photo).model_dump(exclude_none=True), "filter": itself})

    def sessions(self, photos: Sequence[CataloguePhoto], n: int) -> Iterator[JobFeedback]:
        """Feedback of `n` searches that somebody clicked in."""
        rng = np.random.default_rng(self.seed)
        while n:
            photo = photos[int(rng.integers(len(photos)))]
            found = self._found.setdefault(photo.image_id, self.search(photo))
            wanted = self.wanted(photo)
            positions = np.arange(1.0, len(found.neighbours) + 1)
            worth = [OF_RIGHT if self.blind or hit.image_id in wanted else OF_WRONG for hit in found.neighbours]
            clicked = np.flatnonzero(rng.random(len(positions)) < self.examined(positions) * worth)
            if len(clicked):
                yield self._feedback(photo, found, [found.neighbours[place].image_id for place in clicked], n)
                n -= 1

    def _feedback(self, photo: CataloguePhoto, found: SearchResult, clicked: Sequence[str], number: int) -> JobFeedback:
        job = Job(
            id=f"{number:032x}",
            kind=JobKind.SEARCH,
            status=JobStatus.SUCCEEDED,
            request=self.asked(photo),
            created_at=0,
            deadline_at=0,
            finished_at=number,
            result_json=found.model_dump_json(),
        )
        request = FeedbackRequest(job_id=job.id, event=FeedbackEvent.CLICK, image_id=clicked[0])
        events = (StoredEvent(event=FeedbackEvent.CLICK, image_id=one, at=number) for one in clicked)
        return JobFeedback(impression=impression_of(job, request)[0], events=tuple(events))

    def ndcg(self, photos: Sequence[CataloguePhoto], reranker: Reranker | None) -> float:
        """nDCG@4 of what is wanted, the mean over the photos for which there is anything."""
        values = []
        for photo in photos:
            if wanted := self.wanted(photo):
                hits = [hit.image_id in wanted for hit in self.search(photo, reranker).neighbours[:DEPTH]]
                ideal = sum(1 / np.log2(2 + place) for place in range(min(DEPTH, len(wanted))))
                values.append(sum(hit / np.log2(2 + place) for place, hit in enumerate(hits)) / ideal)
        return float(np.mean(values))
