"""Sends any number of photos in as many batches as the service's limits need, and gathers an outcome for each."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from os import PathLike
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote

from lookalike.error_codes import error_class
from lookalike.errors import InputError, LookalikeError, Overload, PhotoUnreadable, TimedOut, UploadTooLarge
from lookalike.exchange import Call, Deadline, Pause, Request, Work
from lookalike.forms import form_fields, photo_part
from lookalike.models import BatchItemState, BatchState, Progress
from lookalike.photos import Photo, Picture, Readable, read_photo, rereadable
from lookalike.progress import ProgressCallback, ProgressOption, progress_callback
from lookalike.tracking import failure, read_result

if TYPE_CHECKING:
    from lookalike.calls import Calls

_MAX_PHOTOS = 64  # in one request, where the service's contract does not say; halved when one is refused for its size
_MAX_BYTES = 32 << 20
_LIMIT = ("paths", "/v1/batches", "post", "requestBody", "content", "multipart/form-data", "schema", "properties")
_AHEAD = 4  # batches whose results are outstanding
_HELD_S = 20.0  # long poll: the service holds its answer so long
_HELD_WATCHED_S = 1.0  # where progress is reported
_POLL_S = 0.5
_UNFINISHED = ("queued", "running", "canceling")

R = TypeVar("R")


@dataclass(frozen=True)
class BatchItem(Generic[R]):
    """The outcome of one photo of `Client.batch` or `batch_embed`: a result, or the error that says why there is none.

    Attributes:
        photo: as the caller gave it; of an open file its content.
        status: succeeded, failed, canceled, expired or gone.
        result: a SearchResult or EmbedResult; None if there is none.
        error: why there is no result; None if there is one.
        job_id: the photo's job; None if it did not become one.

    Example:
        >>> for item in client.batch(["a.jpg", "b.jpg"], k=2):
        ...     print(item.photo, item.result.neighbours if item.ok else item.error.code)
    """

    photo: Photo
    status: str
    result: R | None = None
    error: LookalikeError | None = None
    job_id: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the photo has a result."""
        return self.result is not None


@dataclass
class _Chunk:
    """One batch at the service; its custom ids are positions in the caller's list of photos."""

    id: str
    indexes: list[int]


@dataclass
class _Plan:
    """What all requests of one call share."""

    calls: "Calls"
    kind: str
    photos: list[Photo]
    options: Mapping[str, Any]
    key: str
    until: Deadline
    report: ProgressCallback | None


@dataclass
class _Run:
    """Sends the photos and collects their outcomes.

    Attributes:
        waiting: positions of photos that have not been sent.
        items: outcomes by position.
        ahead: batches at the service, oldest first.
        max_photos: photos in one request.
        accepted: whether the service has accepted anything yet.
    """

    plan: _Plan
    waiting: deque[int]
    items: dict[int, BatchItem[Any]] = field(default_factory=dict)
    ahead: deque[_Chunk] = field(default_factory=deque)
    max_photos: int = 0
    accepted: bool = False

    def run_to_end(self) -> Call[None]:
        """Send and collect until every photo has an outcome."""
        if self.waiting:
            self.max_photos = yield from _max_photos(self.plan.calls)
        while self.waiting or self.ahead:
            if self.plan.until.left_s <= 0:
                yield from self._give_up(TimedOut("there was no time left for this photo"))
            elif self.waiting and len(self.ahead) < _AHEAD:
                yield from self._send_or_fail()
            else:
                yield from self._collect(self.ahead[0])

    def _send_or_fail(self) -> Call[None]:
        """Send the next photos; split what is too large, wait where the queue is full, give up where nothing helps."""
        contents = yield from self._load()
        if not contents:
            return
        try:
            yield from self._send(contents)
        except UploadTooLarge as exc:
            if len(contents) == 1:
                self._fail(contents, exc)
            else:
                self.max_photos = len(contents) // 2
                self.waiting.extendleft(reversed(contents))
        except LookalikeError as exc:
            self.waiting.extendleft(reversed(contents))
            come_back_s = exc.retry_after_s if isinstance(exc, Overload) else None
            if come_back_s is not None and come_back_s < self.plan.until.left_s:
                if self.ahead:
                    yield from self._collect(self.ahead[0])
                else:
                    yield Pause(come_back_s)
            elif self.accepted:
                yield from self._give_up(exc)
            else:
                raise

    def _load(self) -> Call[dict[int, bytes]]:
        """Read the next photos, as many as fit into one request; content by position."""
        contents: dict[int, bytes] = {}
        n_bytes = 0
        while self.waiting and len(contents) < self.max_photos:
            index = self.waiting[0]
            photo = self.plan.photos[index]
            try:
                content: bytes = yield Work(partial(read_photo, photo))
            except PhotoUnreadable as exc:
                self.waiting.popleft()
                self._fail([index], exc)
                continue
            self.plan.photos[index] = rereadable(photo, content)
            n_bytes += len(content)
            if contents and n_bytes > _MAX_BYTES:
                break
            contents[self.waiting.popleft()] = content
        return contents

    def _send(self, contents: dict[int, bytes]) -> Call[None]:
        plan = self.plan
        form = form_fields({"kind": plan.kind, **plan.options})
        # The key depends on the photos: a request with other photos is another request.
        key = f"{plan.key}:{sha256(repr(list(contents)).encode()).hexdigest()[:16]}"
        request = Request(
            method="POST",
            path="/v1/batches",
            headers={"Idempotency-Key": key},
            form={**form, "custom_id": [str(index) for index in contents]},
            files=tuple(photo_part(content) for content in contents.values()),
            holds_s=plan.calls.timeout_s,  # every photo is decoded before it answers
        )
        until = plan.calls.deadline(min(plan.calls.timeout_s, plan.until.left_s))
        batch = yield from plan.calls.read(BatchState, request, until)
        self.accepted = True
        refused = [item for item in batch.items if item.job_id is None and item.error and item.error.retryable]
        for item in reversed(refused):  # the queue became full: these are sent again
            self.waiting.appendleft(int(item.custom_id))
        ours = [index for index in contents if index not in {int(item.custom_id) for item in refused}]
        chunk = _Chunk(batch.id, ours)
        self.ahead.append(chunk)
        self._take(chunk, batch)
        if refused:
            yield from self._collect(chunk)

    def _collect(self, chunk: _Chunk) -> Call[None]:
        """Ask for the state of a batch, by long polling, and take the outcomes that are there."""
        calls, until = self.plan.calls, self.plan.until
        longest_s = _HELD_WATCHED_S if self.plan.report else _HELD_S
        holds_s = max(0.0, min(longest_s, until.left_s))
        asked_at = calls.clock()
        path = f"/v1/batches/{quote(chunk.id, safe='')}"
        request = Request(method="GET", path=path, query={"wait": f"{holds_s:.3f}"}, holds_s=holds_s)
        give_up_at = calls.deadline(min(until.left_s + 1, holds_s + calls.timeout_s))
        try:
            batch = yield from calls.read(BatchState, request, give_up_at)
        except LookalikeError as exc:
            self._fail(self._open(chunk), exc)
            self.ahead.remove(chunk)
            return
        self._take(chunk, batch)
        if chunk in self.ahead and calls.clock() - asked_at < min(_POLL_S, holds_s):
            yield Pause(_POLL_S)  # the service has too many waiters and answered at once

    def _take(self, chunk: _Chunk, batch: BatchState) -> None:
        states = {int(item.custom_id): item for item in batch.items}
        for index in self._open(chunk):
            if states[index].status not in _UNFINISHED:
                self.items[index] = self._item(index, states[index])
        if not self._open(chunk):
            self.ahead.remove(chunk)
        self._report_progress()

    def _item(self, index: int, state: BatchItemState) -> BatchItem[Any]:
        item: BatchItem[Any] = BatchItem(self.plan.photos[index], state.status, job_id=state.job_id)
        if state.error:
            return replace(item, error=failure(state.error, state.job_id or ""))
        try:
            if state.result is not None:
                result = read_result(self.plan.kind, state.result, state.job_id or "")
                self.plan.calls.bind_query(result, item.photo, None)
                return replace(item, result=result)
        except LookalikeError as exc:
            return replace(item, error=exc)
        code = f"job_{state.status}"
        return replace(item, error=error_class(code, 409)(f"its job was {state.status}", code=code))

    def _give_up(self, error: LookalikeError) -> Call[None]:
        """End every unfinished photo with `error`, and cancel its batch."""
        self._fail(self.waiting, error)
        self.waiting.clear()
        while self.ahead:
            chunk = self.ahead.popleft()
            self._fail(self._open(chunk), error)
            request = Request(method="POST", path=f"/v1/batches/{quote(chunk.id, safe='')}/cancel")
            try:
                yield from self.plan.calls.send(request, self.plan.calls.deadline(1))
            except LookalikeError:
                pass  # cancelling only saves the service work

    def _fail(self, indexes: Iterable[int], error: LookalikeError) -> None:
        for index in indexes:
            self.items[index] = BatchItem(self.plan.photos[index], "failed", error=error)
        self._report_progress()

    def _open(self, chunk: _Chunk) -> list[int]:
        return [index for index in chunk.indexes if index not in self.items]

    def _report_progress(self) -> None:
        if self.plan.report:
            self.plan.report(Progress(stage=self.plan.kind, done=len(self.items), total=len(self.plan.photos)))


def _max_photos(calls: "Calls") -> Call[int]:
    """How many photos the service takes in one request, according to its OpenAPI document."""
    answer = yield from calls.send(Request(method="GET", path="/openapi.json"), calls.deadline(None))
    try:
        found = answer.json()
        for name in (*_LIMIT, "image", "maxItems"):
            found = found[name]
        return min(_MAX_PHOTOS, int(found))
    except (KeyError, TypeError, ValueError):
        return _MAX_PHOTOS  # another version's document; a request with too many photos is refused, and fewer are sent


def _several(photos: Iterable[Photo]) -> list[Photo]:
    """The photos as a list.

    Raises:
        InputError: it is one photo, whose characters or bytes would be taken for photos, or nothing to go through.
    """
    if isinstance(photos, str | bytes | bytearray | memoryview | PathLike | Readable | Picture):
        raise InputError("photos: a list of photos is needed; for a single one use search() or embed()")
    try:
        return list(photos)
    except TypeError as exc:
        raise InputError(f"photos: a list of photos is needed, not {type(photos).__name__}") from exc


def batched(
    calls: "Calls",
    kind: str,
    photos: Iterable[Photo],
    options: Mapping[str, Any],
    key: str,
    progress: ProgressOption,
    timeout_s: float | None,
) -> Call[list[BatchItem[Any]]]:
    """Send the photos, and wait until each has a result or an error.

    Args:
        calls: sends the requests.
        kind: search or embed.
        photos: any number of them.
        options: of the jobs, as they are sent.
        key: idempotency key, from which those of the requests are made.
        progress: True for a progress bar, or a function that is called with a `Progress`.
        timeout_s: seconds for all of them; None waits as long as it takes.

    Returns:
        An outcome for each photo, in the order given.

    Raises:
        InputError: `photos` is one photo, or nothing to go through; or a box was given.
        LookalikeError: the service accepted none of the photos.
    """
    given = _several(photos)
    if "box" in options:
        raise InputError("box: a batch takes photos whole; search for one with a box by itself")
    until = calls.deadline(float("inf") if timeout_s is None else timeout_s)
    with progress_callback(progress) as report:
        run = _Run(_Plan(calls, kind, given, options, key, until, report), deque(range(len(given))))
        yield from run.run_to_end()
    return [run.items[index] for index in range(len(given))]
