"""Calls about the index and the service: reindex, single images, versions, promotion, readiness. Performs no I/O.

Each call is a generator (`exchange.Call`) that a `Client` or `AsyncClient` runs.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, Unpack

from lookalike.duplicate_calls import DuplicateCalls
from lookalike.exchange import A, Call, Request, Work
from lookalike.forms import form_fields, idempotency_key_of, path_segment, photo_part, request_options, text_of
from lookalike.models import (
    ImageChange,
    IndexInfo,
    JobState,
    QualityReport,
    Readiness,
    ReindexResult,
    Version,
    VersionList,
    VersionReport,
    WorkerList,
)
from lookalike.options import JobOptions
from lookalike.photos import Photo, read_photo
from lookalike.progress import ProgressOption
from lookalike.tracking import Ticket


class IndexCalls(DuplicateCalls):
    """The calls about the index and the service."""

    def reindex(
        self,
        *,
        mode: Literal["changed", "all"] = "changed",
        dry_run: bool = False,
        promote: Literal["if_better", "if_valid", "never"] = "if_better",
        force: bool = False,
        progress: ProgressOption = False,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
    ) -> Call[ReindexResult]:
        """Build a new version of the index from the catalogue, and wait for the result.

        Where the service has API keys, the key needs the scope `admin`.

        Args:
            mode: `changed` embeds only photos without a known embedding, `all` every photo.
            dry_run: only count what would be done.
            promote: when the new version is made live: if it passes the quality gates and is no worse than the live
                one (`if_better`), if it passes the gates however it compares (`if_valid`), or `never`.
            force: promote even if far fewer photos are left than are live.
            progress: True for a progress bar, or a function that is called with a `Progress`.
            timeout_s: seconds to wait; None waits as long as it takes.
            idempotency_key: the same key and request give the same job.

        Returns:
            What was done, the new version, and why it was promoted or not.

        Raises:
            ReindexRunning: one runs already; `client.job(error.job_id).wait()` waits for that one.
            ScopeMissing: the API key may not reindex.
            TimedOut: the reindex has not ended; it goes on.
            LookalikeError: it failed.
        """
        ticket = yield from self.submit_reindex(
            mode=mode, dry_run=dry_run, promote=promote, force=force, idempotency_key=idempotency_key
        )
        return (yield from self.wait(ticket, timeout_s, progress))

    def submit_reindex(
        self,
        *,
        mode: Literal["changed", "all"] = "changed",
        dry_run: bool = False,
        promote: Literal["if_better", "if_valid", "never"] = "if_better",
        force: bool = False,
        idempotency_key: str | None = None,
    ) -> Call[Ticket[ReindexResult]]:
        """Submit a reindex job without waiting for its result.

        Args:
            mode, dry_run, promote, force, idempotency_key: as of `reindex`.

        Returns:
            The job: a `Job`, or an `AsyncJob` of an `AsyncClient`. Its `wait()` returns a `ReindexResult`.

        Raises:
            ReindexRunning: one runs already.
            ScopeMissing: the API key may not reindex.
        """
        body = request_options({"mode": mode, "dry_run": dry_run, "promote": promote, "force": force})
        headers = {"Idempotency-Key": idempotency_key_of({"idempotency_key": idempotency_key})}
        request = Request(method="POST", path="/v1/jobs/reindex", json=body, headers=headers)
        return Ticket((yield from self.read(JobState, request, self.deadline(None))))

    def put_image(
        self,
        image_id: str,
        photo: Photo | None = None,
        *,
        listing_id: str,
        category: str,
        attributes: Mapping[str, Any] | None = None,
        text: str | None = None,
        timeout_s: float | None = None,
        **options: Unpack[JobOptions],
    ) -> Call[ImageChange]:
        """Put a photo into the live index, or replace the photo of that id, and wait until searches find it.

        Args:
            image_id: the photo's id, 1 to 200 printable characters without a slash.
            photo: a path, bytes, a file opened in binary mode, or a PIL image; None: the photo of that id stays and is
                not embedded again, and what is said of it changes.
            listing_id: the listing that the photo belongs to.
            category: root category of the listing.
            attributes: of the listing, value by name, such as `{"title": "a lamp", "price": 12.5}`; by default those
                that the listing has in the catalogue.
            text: the listing's title, with its description below; the same as giving them as attributes.
            timeout_s: seconds to wait; by default the client's `timeout_s`.
            options: see `lookalike.options.JobOptions`.

        Returns:
            The change, with what the photo duplicates; its `change_id` is None if a later change of the same photo was
            done first.

        Raises:
            PhotoUnreadable: the photo cannot be read on this machine.
            InputError: an argument is wrong, or the service cannot decode the photo.
            ChangesFull: too many photos were put or deleted since the last reindex.
            TimedOut: the job has not ended; it goes on.
        """
        path = _image_path(image_id)
        named = {"listing_id": text_of("listing_id", listing_id), "category": text_of("category", category)}
        said = {**named, **request_options({"attributes": attributes, "text": text, **options})}
        headers = {"Idempotency-Key": idempotency_key_of(options)}
        if photo is None:
            request = Request(method="PUT", path=path, headers=headers, json=said)
        else:
            content = yield Work(partial(read_photo, photo))
            files = (photo_part(content),)
            request = Request(method="PUT", path=path, headers=headers, form=form_fields(said), files=files)
        return (yield from self._carried_out(request, timeout_s))

    def delete_image(
        self, image_id: str, *, timeout_s: float | None = None, **options: Unpack[JobOptions]
    ) -> Call[ImageChange]:
        """Delete a photo from the live index, and wait until searches no longer find it.

        It succeeds if there was no such photo.

        Args:
            image_id: the photo's id.
            timeout_s: seconds to wait; by default the client's `timeout_s`.
            options: see `lookalike.options.JobOptions`.

        Returns:
            The change; its `change_id` is None if a later change of the same photo was done first.

        Raises:
            ChangesFull: too many photos were put or deleted since the last reindex.
            TimedOut: the job has not ended; it goes on.
        """
        query = {name: str(value) for name, value in request_options(options).items()}
        headers = {"Idempotency-Key": idempotency_key_of(options)}
        request = Request(method="DELETE", path=_image_path(image_id), headers=headers, query=query)
        return (yield from self._carried_out(request, timeout_s))

    def thumbnail(self, image_id: str, *, size: int = 320) -> Call[bytes]:
        """Get the thumbnail of a photo of the live index.

        Args:
            image_id: the photo's id.
            size: pixels of the longer side at most, 32 to 640.

        Returns:
            A JPEG file.

        Raises:
            ImageNotFound: the index has no photo of that id, or its file is gone.
        """
        request = Request(method="GET", path=_image_path(image_id), query={"size": str(size)})
        response = yield from self.send(request, self.deadline(None))
        return response.content

    def index(self) -> Call[IndexInfo]:
        """Describe the index that searches use, and the model it was built with.

        Raises:
            IndexMissing: no worker with a loaded index has reported.
        """
        return (yield from self._get(IndexInfo, "/v1/index"))

    def quality(self, *, since: str = "7d") -> Call[QualityReport]:
        """Report how good answers are of late: a sample of searches, which workers compared with exact search.

        Args:
            since: how far back, up to 8 days: `30m`, `24h`, `7d`.

        Returns:
            The figures, by version of the index and by day, and what is wrong with the last searches, if anything.

        Raises:
            InputError: `since` is no such time.
        """
        return (yield from self._get(QualityReport, "/v1/quality", since=text_of("since", since)))

    def versions(self) -> Call[list[Version]]:
        """List the versions of the index, newest first; `live` marks the one that searches use."""
        found = yield from self._get(VersionList, "/v1/index/versions")
        return found.versions

    def report(self, version: str) -> Call[VersionReport]:
        """Get the report of a version: how it compared with the one that was live when it was built.

        Raises:
            VersionNotFound: the index has no such version.
        """
        path = f"/v1/index/versions/{path_segment('version', version)}/report"
        request = Request(method="GET", path=path, headers={"Accept": "application/json"})
        return (yield from self.read(VersionReport, request, self.deadline(None)))

    def promote(self, version: str) -> Call[Version]:
        """Make a version of the index live, newer or older than the live one. The API key needs the scope `admin`.

        Returns:
            The version, which is live now.

        Raises:
            VersionNotFound: the index has no such version.
            PromotionRefused: the version belongs to another model, or another promotion came first.
            ScopeMissing: the API key may not promote.
        """
        request = Request(method="POST", path=f"/v1/index/versions/{path_segment('version', version)}/promote")
        return (yield from self.read(Version, request, self.deadline(None)))

    def rollback(self, *, live: str | None = None) -> Call[Version]:
        """Make the version live that was live before. The API key needs the scope `admin`.

        Args:
            live: roll back only if this is the live version; by default the one that is live now. So of two callers
                at the same moment one rolls back, and the other gets PromotionRefused.

        Returns:
            The version that is live now.

        Raises:
            PromotionRefused: another version is live, or there is none to roll back to.
            ScopeMissing: the API key may not roll back.
        """
        if live is None:
            found = yield from self.versions()
            live = next((version.version for version in found if version.live), None)
        # Never repeated: if the first request was carried out and its answer lost, a second one would be refused.
        query = {"live": text_of("live", live)} if live else {}
        request = Request(method="POST", path="/v1/index/rollback", query=query, repeatable=False)
        return (yield from self.read(Version, request, self.deadline(None)))

    def ready(self) -> Call[Readiness]:
        """Ask whether the service can do jobs, and what is missing if it cannot. An unready service raises nothing."""
        request = Request(method="GET", path="/readyz", ok=(503,))
        return (yield from self.read(Readiness, request, self.deadline(None)))

    def workers(self) -> Call[WorkerList]:
        """List the workers that reported lately, and the length of the queue."""
        return (yield from self._get(WorkerList, "/v1/workers"))

    def _carried_out(self, request: Request, timeout_s: float | None) -> Call[ImageChange]:
        until = self.deadline(timeout_s)
        ticket: Ticket[ImageChange] = Ticket((yield from self.read(JobState, request, until)))
        return (yield from self.wait(ticket, until.left_s))

    def _get(self, answer_type: type[A], path: str, **query: str) -> Call[A]:
        return (yield from self.read(answer_type, Request(method="GET", path=path, query=query), self.deadline(None)))


def _image_path(image_id: str) -> str:
    return f"/v1/images/{path_segment('image_id', image_id)}"
