"""Every call of the service, once: which request it is and how its answer is read. Sends nothing itself."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack
from urllib.parse import quote

from lookalike.batches import BatchItem, batched
from lookalike.errors import ImageNotFound, InputError
from lookalike.exchange import A, Call, Request, Work
from lookalike.forms import form_of, key_of, part, said
from lookalike.models import (
    EmbedResult,
    ImageChange,
    IndexInfo,
    JobPage,
    JobState,
    Origin,
    Readiness,
    ReindexResult,
    SearchResult,
    Version,
    VersionList,
    VersionReport,
    WorkerList,
)
from lookalike.photos import Photo, lasting, read_photo
from lookalike.progress import Wanted
from lookalike.tracking import Ticket, Tracking

if TYPE_CHECKING:
    from lookalike.plot import Grid

_PREFER_S = 20


class JobOptions(TypedDict, total=False):
    """What can be said of any job.

    priority: `interactive` (default; of a batch `bulk`) goes first.
    deadline_s: an unfinished job expires after so long.
    webhook_url: called when the job has ended.
    idempotency_key: the same key and request give the same job, today and tomorrow. One is made up where none is given,
        so that what is sent again after a broken connection is not done twice.
    """

    priority: Literal["interactive", "bulk"]
    deadline_s: float
    webhook_url: str
    idempotency_key: str


class SearchOptions(JobOptions, total=False):
    """What to search for.

    k: neighbours wanted, 1 to 100; 4.
    category: only neighbours of this root category.
    distinct: `listing`: only the best photo of each listing.
    exclude_listing: leave out this listing's photos.
    min_score: only neighbours at least this similar, -1 to 1.
    """

    k: int
    category: str
    distinct: Literal["none", "listing"]
    exclude_listing: str
    min_score: float


class Calls(Tracking):
    """The calls. `photo` is a path, bytes, a binary file or a PIL image; `image_id` names one of the index instead."""

    plotter: Callable[[SearchResult], Any] | None = None  # what `result.plot()` calls

    def search(
        self,
        photo: Photo | None = None,
        *,
        image_id: str | None = None,
        timeout_s: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> Call[SearchResult]:
        """Which category a photo shows, and the photos of the index most similar to it.

        Args:
            timeout_s: how long to wait, the client's `timeout_s` by default. Nobody works on it any longer than that.
        """
        until = self.deadline(timeout_s)
        ticket: Ticket[SearchResult] = yield from self._photo_job(
            "search", photo, image_id, options, wait_s=self.patience_s(timeout_s)
        )
        return (yield from self.wait(ticket, until.left_s))

    def embed(
        self,
        photo: Photo | None = None,
        *,
        image_id: str | None = None,
        timeout_s: float | None = None,
        **options: Unpack[JobOptions],
    ) -> Call[EmbedResult]:
        """The embedding of a photo, its 13 scores and its category; waits as `search`."""
        until = self.deadline(timeout_s)
        ticket: Ticket[EmbedResult] = yield from self._photo_job(
            "embed", photo, image_id, options, wait_s=self.patience_s(timeout_s)
        )
        return (yield from self.wait(ticket, until.left_s))

    def submit(
        self, photo: Photo | None = None, *, image_id: str | None = None, **options: Unpack[SearchOptions]
    ) -> Call[Ticket[SearchResult]]:
        """Have a photo searched for, without waiting: a job."""
        return (yield from self._photo_job("search", photo, image_id, options))

    def submit_embed(
        self, photo: Photo | None = None, *, image_id: str | None = None, **options: Unpack[JobOptions]
    ) -> Call[Ticket[EmbedResult]]:
        """Have a photo embedded, without waiting: a job."""
        return (yield from self._photo_job("embed", photo, image_id, options))

    def batch(
        self,
        photos: Iterable[Photo],
        *,
        progress: Wanted = False,
        timeout_s: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> Call[list[BatchItem[SearchResult]]]:
        """Search for many photos, in as many requests as the service's limits need; an item for each, in their order.

        A photo that cannot be read or decoded fails alone: `item.error` says why, and `item.result` is None.

        Args:
            progress: True for a bar, or a function that is given a Progress.
            timeout_s: for all of them; None: for as long as it takes.
        """
        return (yield from batched(self, "search", photos, said(options), key_of(options), progress, timeout_s))

    def batch_embed(
        self,
        photos: Iterable[Photo],
        *,
        progress: Wanted = False,
        timeout_s: float | None = None,
        **options: Unpack[JobOptions],
    ) -> Call[list[BatchItem[EmbedResult]]]:
        """Embed many photos; as `batch`."""
        asked = {"encoding": "base64", **said(options)}
        return (yield from batched(self, "embed", photos, asked, key_of(options), progress, timeout_s))

    def reindex(
        self,
        *,
        mode: Literal["changed", "all"] = "changed",
        dry_run: bool = False,
        promote: Literal["if_better", "if_valid", "never"] = "if_better",
        force: bool = False,
        progress: Wanted = False,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
    ) -> Call[ReindexResult]:
        """Build the index anew from the catalogue, and wait for its end; needs a key with `admin` where there are keys.

        Raises:
            ReindexRunning: one runs already; `client.job(error.job_id).wait()` waits for that one.
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
        """Start a reindex without waiting: a job."""
        body = {"mode": mode, "dry_run": dry_run, "promote": promote, "force": force}
        headers = {"Idempotency-Key": key_of({"idempotency_key": idempotency_key})}
        request = Request(method="POST", path="/v1/jobs/reindex", json=body, headers=headers)
        return Ticket((yield from self.read(JobState, request, self.deadline(None))))

    def job(self, job_id: str) -> Call[Ticket[Any]]:
        """A job submitted earlier, or elsewhere."""
        request = Request(method="GET", path=f"/v1/jobs/{quote(job_id, safe='')}")
        return Ticket((yield from self.read(JobState, request, self.deadline(None))))

    def jobs(self, *, status: str = "", kind: str = "", limit: int = 50) -> Call[list[JobState]]:
        """Your jobs, newest first, without results."""
        found: list[JobState] = []
        cursor: str | None = ""
        while cursor is not None and len(found) < limit:
            asked = {"status": status, "kind": kind, "cursor": cursor, "limit": str(min(200, limit - len(found)))}
            query = {name: value for name, value in asked.items() if value}
            page = yield from self._get(JobPage, "/v1/jobs", **query)
            found += page.jobs
            cursor = page.next_cursor
        return found

    def put_image(
        self,
        image_id: str,
        photo: Photo,
        *,
        listing_id: str,
        category: str,
        timeout_s: float | None = None,
        **options: Unpack[JobOptions],
    ) -> Call[ImageChange]:
        """Put a photo into the live index, new or in the place of the one of that id, and wait until it is there."""
        content = yield Work(partial(read_photo, photo))
        request = Request(
            method="PUT",
            path=_image_path(image_id),
            headers={"Idempotency-Key": key_of(options)},
            form=form_of({"listing_id": listing_id, "category": category, **said(options)}),
            files=(part(content),),
        )
        return (yield from self._carried_out(request, timeout_s))

    def delete_image(
        self, image_id: str, *, timeout_s: float | None = None, **options: Unpack[JobOptions]
    ) -> Call[ImageChange]:
        """Delete a photo from the live index, and wait until it is gone; succeeds where there was none."""
        query = {name: str(value) for name, value in said(options).items()}
        headers = {"Idempotency-Key": key_of(options)}
        request = Request(method="DELETE", path=_image_path(image_id), headers=headers, query=query)
        return (yield from self._carried_out(request, timeout_s))

    def thumbnail(self, image_id: str, *, size: int = 320) -> Call[bytes]:
        """A photo of the live index as JPEG, its longer side `size` pixels at most, 32 to 640."""
        request = Request(method="GET", path=_image_path(image_id), query={"size": str(size)})
        response = yield from self.send(request, self.deadline(None))
        return response.content

    def index(self) -> Call[IndexInfo]:
        """What searches are run against, and by which model."""
        return (yield from self._get(IndexInfo, "/v1/index"))

    def versions(self) -> Call[list[Version]]:
        """Every version of the index, newest first."""
        found = yield from self._get(VersionList, "/v1/index/versions")
        return found.versions

    def report(self, version: str) -> Call[VersionReport]:
        """How a version compared with the one that was live when it was made."""
        path = f"/v1/index/versions/{quote(version, safe='')}/report"
        request = Request(method="GET", path=path, headers={"Accept": "application/json"})
        return (yield from self.read(VersionReport, request, self.deadline(None)))

    def promote(self, version: str) -> Call[Version]:
        """Make a version live, newer or older."""
        request = Request(method="POST", path=f"/v1/index/versions/{quote(version, safe='')}/promote")
        return (yield from self.read(Version, request, self.deadline(None)))

    def rollback(self, *, live: str | None = None) -> Call[Version]:
        """Make live what was live before; returns that.

        Args:
            live: go back only if this is the live version; by default what is live now, so that two who go back at the
                same moment go back once.
        """
        if live is None:
            found = yield from self.versions()
            live = next((version.version for version in found if version.live), None)
        # Sent once: a second time it would be refused, although the first was carried out.
        query = {"live": live} if live else {}
        request = Request(method="POST", path="/v1/index/rollback", query=query, repeatable=False)
        return (yield from self.read(Version, request, self.deadline(None)))

    def ready(self) -> Call[Readiness]:
        """Whether the service does jobs, and what is missing if not."""
        request = Request(method="GET", path="/readyz", ok=(503,))
        return (yield from self.read(Readiness, request, self.deadline(None)))

    def workers(self) -> Call[WorkerList]:
        """Who works, and what waits."""
        return (yield from self._get(WorkerList, "/v1/workers"))

    def plot(self, result: SearchResult, photo: Photo | None = None, *, image_id: str | None = None) -> Call["Grid"]:
        """Draw a query beside its neighbours: a matplotlib figure. Needs `pip install 'lookalike[plot]'`.

        Args:
            photo: the query; of a result that this client returned it is known.
        """
        from lookalike.plot import draw

        if photo is None and image_id is None:
            photo, image_id = result._origin.query
        query: bytes | None = None
        if photo is not None:
            query = yield Work(partial(read_photo, photo))
        elif image_id is not None:
            query = yield from self._picture(image_id)
        pictures = []
        for neighbour in result.neighbours:
            pictures.append((yield from self._picture(neighbour.image_id)))
        grid: Grid = yield Work(partial(draw, result, query, pictures))
        return grid

    def bind_query(self, result: object, photo: Photo | None, image_id: str | None) -> None:
        """Let a result know what it answers, so that it can be drawn."""
        if isinstance(result, SearchResult):
            result._origin = Origin((photo, image_id), self.plotter)

    def _photo_job(
        self,
        kind: str,
        photo: Photo | None,
        image_id: str | None,
        options: Mapping[str, Any],
        *,
        wait_s: float | None = None,
    ) -> Call[Ticket[Any]]:
        """Submit.

        Args:
            wait_s: how long the caller waits for the result.
        """
        if (photo is None) == (image_id is None):
            raise InputError("name either a photo or, with image_id=, one of the index")
        asked = ({"encoding": "base64"} if kind == "embed" else {}) | said(options)
        headers = {"Idempotency-Key": key_of(options)}
        holds_s = 0
        if wait_s is not None:
            if isfinite(wait_s):
                asked.setdefault("deadline_s", wait_s)
            holds_s = max(1, int(min(_PREFER_S, wait_s)))
            headers["Prefer"] = f"wait={holds_s}"
        path = f"/v1/jobs/{kind}"
        until = self.deadline(wait_s)
        if photo is None:
            body = {"image_id": image_id, **asked}
            request = Request(method="POST", path=path, headers=headers, json=body, holds_s=holds_s)
        else:
            content: bytes = yield Work(partial(read_photo, photo))
            photo = lasting(photo, content)
            request = Request(
                method="POST",
                path=path,
                headers=headers,
                form=form_of(asked),
                files=(part(content),),
                holds_s=holds_s,
            )
        state = yield from self.read(JobState, request, until)
        return Ticket(state, partial(self.bind_query, photo=photo, image_id=image_id))

    def _carried_out(self, request: Request, timeout_s: float | None) -> Call[ImageChange]:
        until = self.deadline(timeout_s)
        ticket: Ticket[ImageChange] = Ticket((yield from self.read(JobState, request, until)))
        return (yield from self.wait(ticket, until.left_s))

    def _picture(self, image_id: str) -> Call[bytes | None]:
        """A thumbnail, or None of a photo that is not there any more."""
        try:
            return (yield from self.thumbnail(image_id))
        except ImageNotFound:
            return None

    def _get(self, answer_type: type[A], path: str, **query: str) -> Call[A]:
        return (yield from self.read(answer_type, Request(method="GET", path=path, query=query), self.deadline(None)))


def _image_path(image_id: str) -> str:
    return f"/v1/images/{quote(image_id, safe='')}"
