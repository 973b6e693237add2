"""Every call of the API: which request it sends and how the answer is read. Performs no I/O.

Each call is a generator (`exchange.Call`) that a `Client` or `AsyncClient` runs. The calls about searches, batches and
jobs are here, those about the index in `index_calls`, about duplicates in `duplicate_calls`, about feedback in
`feedback_calls`. Docstrings describe what a `Client` returns.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any, Unpack, cast

from lookalike.batches import BatchItem, batched
from lookalike.errors import ImageNotFound, InputError
from lookalike.exchange import Call, Request, Work
from lookalike.forms import form_fields, idempotency_key_of, path_segment, photo_part, request_options, text_of
from lookalike.index_calls import IndexCalls
from lookalike.models import EmbedResult, JobPage, JobState, Origin, SearchResult
from lookalike.options import EmbedOptions, JobOptions, SearchOptions
from lookalike.photos import Photo, Photos, read_photo, read_photos, rereadable
from lookalike.progress import ProgressOption
from lookalike.tracking import Ticket

if TYPE_CHECKING:
    from lookalike.plot import Grid

_PREFER_S = 20  # `Prefer: wait` of a search; what takes longer is waited for with further requests
_LEFT_S = 2  # of the caller's wait, for the way there and to decode: an answer that is held longer comes too late


class Calls(IndexCalls):
    """Every call of the API.

    Attributes:
        plotter: what `SearchResult.plot` calls; None draws nothing.
    """

    plotter: Callable[[SearchResult], Any] | None = None

    def search(
        self,
        photo: Photo | Photos | None = None,
        *,
        image_id: str | None = None,
        listing_id: str | None = None,
        timeout_s: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> Call[SearchResult]:
        """Search for the photos of the index most similar to a photo, and for its category; wait for the result.

        Several photos of one thing are one query, the mean of their embeddings, and find more of its kind than one.

        Args:
            photo: a path, bytes, a file opened in binary mode, or a PIL image; or a list of up to ten.
            image_id: a photo of the index, instead of `photo`. It finds itself first.
            listing_id: all photos that the index has of a listing, instead of `photo`. The listing itself is left out.
                With none of the three, the option `text` is the query.
            timeout_s: seconds to wait; by default the client's `timeout_s`. It is the job's deadline too, unless
                `deadline_s` is given: the service does not work on a search longer than its caller waits.
            options: see `lookalike.options.SearchOptions`: k, text, category, distinct, box, filter, include, facets, …

        Returns:
            The category and up to `k` neighbours, most similar first.

        Raises:
            PhotoUnreadable: the photo cannot be read on this machine.
            InputError: an option is wrong, or the service cannot decode the photo.
            TimedOut: the result did not arrive in time.
            LookalikeError: every other error; see `lookalike.errors`.
        """
        until = self.deadline(timeout_s)
        ticket: Ticket[SearchResult] = yield from self._photo_job(
            "search", photo, image_id, listing_id, options, wait_s=self.patience_s(timeout_s)
        )
        return (yield from self.wait(ticket, until.left_s))

    def embed(
        self,
        photo: Photo | Photos | None = None,
        *,
        image_id: str | None = None,
        listing_id: str | None = None,
        timeout_s: float | None = None,
        **options: Unpack[EmbedOptions],
    ) -> Call[EmbedResult]:
        """Embed a photo, and wait for the result.

        Args:
            photo, image_id, listing_id, timeout_s: as of `search`.
            options: see `lookalike.options.EmbedOptions`: text, box, and those of every job.

        Returns:
            The embedding (length 1), the classifier's score for each category and the category.

        Raises:
            LookalikeError: as of `search`.
        """
        until = self.deadline(timeout_s)
        ticket: Ticket[EmbedResult] = yield from self._photo_job(
            "embed", photo, image_id, listing_id, options, wait_s=self.patience_s(timeout_s)
        )
        return (yield from self.wait(ticket, until.left_s))

    def submit(
        self,
        photo: Photo | Photos | None = None,
        *,
        image_id: str | None = None,
        listing_id: str | None = None,
        **options: Unpack[SearchOptions],
    ) -> Call[Ticket[SearchResult]]:
        """Submit a search job without waiting for its result.

        Args:
            photo, image_id, listing_id, options: as of `search`.

        Returns:
            The job: a `Job`, or an `AsyncJob` of an `AsyncClient`. Its `wait()` returns a `SearchResult`.

        Raises:
            PhotoUnreadable: the photo cannot be read on this machine.
            LookalikeError: the service did not accept the job.
        """
        return (yield from self._photo_job("search", photo, image_id, listing_id, options))

    def submit_embed(
        self,
        photo: Photo | Photos | None = None,
        *,
        image_id: str | None = None,
        listing_id: str | None = None,
        **options: Unpack[EmbedOptions],
    ) -> Call[Ticket[EmbedResult]]:
        """Submit an embed job without waiting for its result.

        Args:
            photo, image_id, listing_id, options: as of `embed`.

        Returns:
            The job: a `Job`, or an `AsyncJob` of an `AsyncClient`. Its `wait()` returns an `EmbedResult`.

        Raises:
            PhotoUnreadable: the photo cannot be read on this machine.
            LookalikeError: the service did not accept the job.
        """
        return (yield from self._photo_job("embed", photo, image_id, listing_id, options))

    def batch(
        self,
        photos: Iterable[Photo],
        *,
        progress: ProgressOption = False,
        timeout_s: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> Call[list[BatchItem[SearchResult]]]:
        """Search for many photos, in as many requests as the service's limits need, and wait for all results.

        A photo that cannot be read or decoded fails alone: `item.error` says why, and `item.result` is None.

        Args:
            photos: paths, bytes, files opened in binary mode, or PIL images; any number.
            progress: True for a progress bar, or a function that is called with a `Progress`.
            timeout_s: seconds for all of them; None waits as long as it takes.
            options: as of `search`, without `box`; `priority` is `bulk` by default.

        Returns:
            A `BatchItem` for each photo, in the order given.

        Raises:
            LookalikeError: the service accepted none of the photos.
        """
        return (
            yield from batched(
                self, "search", photos, request_options(options), idempotency_key_of(options), progress, timeout_s
            )
        )

    def batch_embed(
        self,
        photos: Iterable[Photo],
        *,
        progress: ProgressOption = False,
        timeout_s: float | None = None,
        **options: Unpack[JobOptions],
    ) -> Call[list[BatchItem[EmbedResult]]]:
        """Embed many photos, in as many requests as the service's limits need, and wait for all results.

        Args:
            photos, progress, timeout_s: as of `batch`.
            options: see `lookalike.options.JobOptions`; `priority` is `bulk` by default.

        Returns:
            A `BatchItem` for each photo, in the order given.

        Raises:
            LookalikeError: the service accepted none of the photos.
        """
        asked = {"encoding": "base64", **request_options(options)}
        key = idempotency_key_of(options)
        return (yield from batched(self, "embed", photos, asked, key, progress, timeout_s))

    def job(self, job_id: str) -> Call[Ticket[Any]]:
        """Get a job that was submitted earlier, or by another program.

        Args:
            job_id: the job's id.

        Returns:
            The job: a `Job`, or an `AsyncJob` of an `AsyncClient`.

        Raises:
            JobNotFound: there is no such job, or it belongs to another API key.
            JobGone: it has ended and its result is no longer kept.
        """
        request = Request(method="GET", path=f"/v1/jobs/{path_segment('job_id', job_id)}")
        return Ticket((yield from self.read(JobState, request, self.deadline(None))))

    def jobs(self, *, status: str = "", kind: str = "", limit: int = 50) -> Call[list[JobState]]:
        """List the jobs of this API key, newest first. With an `admin` key: all jobs.

        Args:
            status: only jobs in this state, such as `queued` or `failed`; by default all.
            kind: only jobs of this kind, such as `search` or `reindex`; by default all.
            limit: at most so many jobs.

        Returns:
            Their states, without results.

        Raises:
            InputError: there is no such status or kind.
        """
        if not isinstance(limit, int):
            raise InputError(f"limit: a whole number is needed, not {limit!r}")
        found: list[JobState] = []
        cursor: str | None = ""
        while cursor is not None and len(found) < limit:
            asked = {"status": status, "kind": kind, "cursor": cursor, "limit": str(min(200, limit - len(found)))}
            query = {name: value for name, value in asked.items() if value}
            page = yield from self._get(JobPage, "/v1/jobs", **query)
            found += page.jobs
            cursor = page.next_cursor
        return found

    def plot(self, result: SearchResult, photo: Photo | None = None, *, image_id: str | None = None) -> Call["Grid"]:
        """Draw a query beside its neighbours; needs matplotlib: pip install 'lookalike[plot]'.

        Args:
            result: of a search.
            photo: the query. A result that this client returned knows its query, and needs none; of several photos
                the first is drawn.
            image_id: the query, if it is a photo of the index.

        Returns:
            A matplotlib figure. A notebook shows it; elsewhere call its `show()` or `savefig()`.

        Raises:
            ImportError: matplotlib is not installed.
            LookalikeError: a thumbnail could not be fetched.
        """
        from lookalike.plot import draw

        if photo is None and image_id is None:
            photo, image_id = result._origin.query
        query: bytes | None = None
        if photo is not None:
            query = yield Work(partial(read_photo, photo))
        elif image_id is not None:
            query = yield from self._thumbnail_or_none(image_id)
        pictures = []
        for neighbour in result.neighbours:
            pictures.append((yield from self._thumbnail_or_none(neighbour.image_id)))
        grid: Grid = yield Work(partial(draw, result, query, pictures))
        return grid

    def bind_query(self, result: object, photo: Photo | None, image_id: str | None) -> None:
        """Attach the query to a search result, so that `result.plot()` can draw it. Other results stay as they are."""
        if isinstance(result, SearchResult):
            result._origin = Origin((photo, image_id), self.plotter, result.job_id)

    def _photo_job(
        self,
        kind: str,
        photo: Photo | Photos | None,
        image_id: str | None,
        listing_id: str | None,
        options: Mapping[str, Any],
        *,
        wait_s: float | None = None,
    ) -> Call[Ticket[Any]]:
        """Submit a job about one photo, or about several together.

        Args:
            kind: search or embed.
            wait_s: how long the caller waits for the result; None does not wait.

        Raises:
            InputError: several of photo, image_id and listing_id were given, or none of them and no text.
        """
        ids = {"image_id": image_id, "listing_id": listing_id}
        named = {name: text_of(name, value) for name, value in ids.items() if value is not None}
        n_named = len(named) + (photo is not None)
        if n_named > 1 or not (n_named or options.get("text")):
            raise InputError(
                "name either a photo, or one of the index with image_id=, or a listing with listing_id=; or give text="
            )
        asked = ({"encoding": "base64"} if kind == "embed" else {}) | request_options(options)
        if photo is None and "box" in asked:
            raise InputError(f"box: {next(iter(named), 'text')} has no photo with parts; give the photo itself")
        headers = {"Idempotency-Key": idempotency_key_of(options)}
        holds_s = 0
        if wait_s is not None:
            if isfinite(wait_s):
                asked.setdefault("deadline_s", wait_s)
            holds_s = max(1, int(min(_PREFER_S, wait_s - _LEFT_S)))
            headers["Prefer"] = f"wait={holds_s}"
        path = f"/v1/jobs/{kind}"
        until = self.deadline(wait_s)
        if photo is None:
            request = Request(method="POST", path=path, headers=headers, json=named | asked, holds_s=holds_s)
        else:
            photos = cast(Sequence[Photo], photo if isinstance(photo, list | tuple) else [photo])
            contents: list[bytes] = yield Work(lambda: read_photos(photos))
            photo = rereadable(photos[0], contents[0])
            request = Request(
                method="POST",
                path=path,
                headers=headers,
                form=form_fields(asked),
                files=tuple(map(photo_part, contents)),
                holds_s=holds_s,
            )
        state = yield from self.read(JobState, request, until)
        return Ticket(state, partial(self.bind_query, photo=photo, image_id=image_id))

    def _thumbnail_or_none(self, image_id: str) -> Call[bytes | None]:
        """Get a thumbnail, or None if the index no longer has the photo."""
        try:
            return (yield from self.thumbnail(image_id))
        except ImageNotFound:
            return None
