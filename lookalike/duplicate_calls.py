"""Calls about duplicates: find them, page through them, decide what they are. Performs no I/O, as `lookalike.calls`."""

from collections.abc import Iterable
from typing import Literal

from lookalike.exchange import Call, Request
from lookalike.forms import idempotency_key_of, path_segment, request_options, text_of
from lookalike.models import DuplicateGroup, DuplicatesPage, DuplicatesResult, JobState, VerdictGiven
from lookalike.progress import ProgressOption
from lookalike.tracking import Ticket, Tracking


class DuplicateCalls(Tracking):
    """The calls about duplicates."""

    def duplicates(
        self,
        *,
        since: str | None = None,
        same_thing_score: float | None = None,
        progress: ProgressOption = False,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
    ) -> Call[DuplicatesResult]:
        """Find photos of different listings that are duplicates of one another, and wait for all groups of them.

        Where the service has API keys, the key needs the scope `admin`.

        Args:
            since: a version of the index: only groups with photos that are not in it. Default: all groups.
            same_thing_score: similarity from which other pictures count as `same_thing`, .6 to 1; 1: none do. By
                default what the service takes.
            progress: True for a progress bar, or a function that is called with a `Progress`.
            timeout_s: seconds to wait; None waits as long as it takes.
            idempotency_key: the same key and request give the same job.

        Raises:
            VersionNotFound: the index has no such version.
            ScopeMissing: the API key may not.
            TimedOut: the job has not ended; it goes on.
            LookalikeError: it failed.
        """
        ticket = yield from self.submit_duplicates(
            since=since, same_thing_score=same_thing_score, idempotency_key=idempotency_key
        )
        result = yield from self.wait(ticket, timeout_s, progress)
        groups, cursor = list(result.groups), result.next_cursor
        while cursor:
            page = yield from self.duplicate_groups(ticket.state.id, cursor)
            groups += page.groups
            cursor = page.next_cursor
        return result.model_copy(update={"groups": groups, "next_cursor": None})

    def submit_duplicates(
        self,
        *,
        since: str | None = None,
        same_thing_score: float | None = None,
        idempotency_key: str | None = None,
    ) -> Call[Ticket[DuplicatesResult]]:
        """Submit a duplicates job without waiting for its result.

        Args:
            since, same_thing_score, idempotency_key: as of `duplicates`.

        Returns:
            The job: a `Job`, or an `AsyncJob` of an `AsyncClient`. Its `wait()` returns a `DuplicatesResult` with the
            first groups; `duplicate_groups` has the others.
        """
        body = request_options({"since": since, "same_thing_score": same_thing_score})
        headers = {"Idempotency-Key": idempotency_key_of({"idempotency_key": idempotency_key})}
        request = Request(method="POST", path="/v1/jobs/duplicates", json=body, headers=headers)
        return Ticket((yield from self.read(JobState, request, self.deadline(None))))

    def duplicate_groups(self, job_id: str, cursor: str = "0") -> Call[DuplicatesPage]:
        """Get one page of the groups that a duplicates job found.

        Args:
            job_id: of the job, which has succeeded.
            cursor: `next_cursor` of the job's result or of the page before; by default the first page.
        """
        path = f"/v1/jobs/{path_segment('job_id', job_id)}/duplicates"
        request = Request(method="GET", path=path, query={"cursor": text_of("cursor", cursor)})
        return (yield from self.read(DuplicatesPage, request, self.deadline(None)))

    def give_verdict(
        self,
        photos: DuplicateGroup | Iterable[str],
        verdict: Literal["duplicate", "not_duplicate"] | None,
    ) -> Call[VerdictGiven]:
        """Decide that photos are duplicates, or are none; later duplicates jobs remember it.

        It holds for every two of them, as long as both show what they show now. The API key needs the scope `admin`.

        Args:
            photos: a group, or the ids of 2 to 50 photos of the index.
            verdict: what was decided; None forgets an earlier verdict.

        Raises:
            ImageNotFound: the index has no photo of one of the ids.
            ScopeMissing: the API key may not.
        """
        given = [image.image_id for image in photos.images] if isinstance(photos, DuplicateGroup) else photos
        image_ids = [text_of("photos", image_id) for image_id in given]
        request = Request(
            method="POST", path="/v1/duplicates/verdicts", json={"image_ids": image_ids, "verdict": verdict}
        )
        return (yield from self.read(VerdictGiven, request, self.deadline(None)))
