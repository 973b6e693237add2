"""Feedback that the service has stored."""

from lookalike.models.answer import Answer


class FeedbackGiven(Answer):
    """An event of feedback that was stored.

    Attributes:
        job_id: of the search.
        event: click, right, purchase or category.
        image_id: of the result; None with a corrected category.
        category: the corrected one; None with a result.
        position: of the result among those that the search showed, from 1.
        index_version: that the search was answered from.
    """

    job_id: str
    event: str
    image_id: str | None = None
    category: str | None = None
    position: int | None = None
    index_version: str
