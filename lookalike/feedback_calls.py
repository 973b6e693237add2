"""The call about feedback: what people did with the results of a search. Performs no I/O, as `lookalike.calls`."""

from typing import Literal

from lookalike.duplicate_calls import DuplicateCalls
from lookalike.errors import InputError
from lookalike.exchange import Call, Request
from lookalike.forms import text_of
from lookalike.models import FeedbackGiven, Neighbour, SearchResult


class FeedbackCalls(DuplicateCalls):
    """The call about feedback."""

    def give_feedback(
        self,
        search: SearchResult | str,
        event: Literal["click", "right", "purchase", "category"],
        result: Neighbour | str | None = None,
        *,
        category: str | None = None,
    ) -> Call[FeedbackGiven]:
        """Tell what somebody did with a result of a search, or which category would have been right.

        It may be told again: the same event is stored once. It must be told while the job is kept.

        Args:
            search: what a search of this client returned, or the id of its job.
            event: `click`: looked at the result; `right`: it is what was looked for; `purchase`: bought it;
                `category`: the search answered a wrong category.
            result: one of the search's neighbours, or the id of its photo; not with `category`.
            category: the right one, with the event `category`.

        Raises:
            InputError: neither a result nor a category is named, or there is no such category.
            ImageNotFound: the search has no such result.
            JobNotFound: there is no such search, it belongs to another API key, or has not succeeded.
            JobGone: the job is no longer kept.
            FeedbackFull: too much feedback waits to be archived.
        """
        job_id = search.job_id if isinstance(search, SearchResult) else search
        if not job_id:
            raise InputError("search: this result is a copy, which does not know its job; give the job's id")
        image_id = result.image_id if isinstance(result, Neighbour) else result
        told = {"image_id": image_id, "category": category}
        body = {name: text_of(name, value) for name, value in told.items() if value is not None}
        request = Request(method="POST", path="/v1/feedback", json={"job_id": job_id, "event": event, **body})
        return (yield from self.read(FeedbackGiven, request, self.deadline(None)))
