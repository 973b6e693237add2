"""The client without a network: what is sent again and when, what each refusal is called, and what a photo may be."""

import copy
import pickle
import typing
from collections.abc import Callable
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel

from api.http import views
from lookalike import AsyncClient, Client, errors, models
from lookalike.calls import Calls
from lookalike.exchange import Call, Pause, Send, Work, refusal
from lookalike.index_calls import IndexCalls
from lookalike.options import EmbedOptions, JobOptions, SearchOptions
from lookalike.photos import Photo, read_photo
from shared import errors as service_errors
from shared.artifacts import versions
from shared.jobs import answers_contract as answers
from shared.jobs import contract as jobs
from shared.jobs import duplicates_contract as duplicates
from shared.jobs import reindex_contract as reindex
from shared.jobs import view as job_view
from shared.jobs import worker_report
from tests.conftest import Clock, encode, noise_image
from tests.unit.test_boundaries import loaded_by

JOB = {"id": "a" * 32, "kind": "search", "status": "queued", "created_at": "2026-01-01T00:00:00Z"}
DONE = {**JOB, "status": "canceled", "finished_at": "2026-01-01T00:00:01Z"}
Said = httpx.Response | Exception


def problem(status: int, code: str, *, retry_after: str | None = None) -> httpx.Response:
    headers = {"Content-Type": "application/problem+json", **({"Retry-After": retry_after} if retry_after else {})}
    body = {"status": status, "code": code, "detail": f"told of {code}", "request_id": "r-1"}
    return httpx.Response(status, json=body, headers=headers, request=httpx.Request("POST", "http://x/v1"))


def drive(
    call: Callable[[Calls], Call[Any]], *said: Said, timeout_s: float = 60, took_s: float = 0
) -> tuple[Any, list[Send], list[float]]:
    """Make a call by hand: what it returned or raised, what it sent, and how long it paused."""
    clock, pending = Clock(), list(said)
    going = call(Calls(timeout_s, clock=clock, chance=lambda: 0.5))
    sent, pauses = [], []
    outcome: Any = None
    try:
        effect = next(going)
        while True:
            if isinstance(effect, Pause):
                pauses.append(effect.seconds)
                clock.now += effect.seconds
                effect = going.send(None)
            elif isinstance(effect, Work):
                effect = going.send(effect.do())
            else:
                sent.append(effect)
                clock.now += took_s
                answer = pending.pop(0)
                effect = going.throw(answer) if isinstance(answer, Exception) else going.send(answer)
    except StopIteration as end:
        outcome = end.value
    except errors.LookalikeError as exc:
        outcome = exc
    assert not pending
    return outcome, sent, pauses


def submit(calls: Calls) -> Call[Any]:
    return calls.submit(b"photo", k=2)


def accepted() -> httpx.Response:
    return httpx.Response(202, json=JOB)


def test_a_full_queue_is_tried_again_no_sooner_than_it_said_and_under_the_same_key() -> None:
    ticket, sent, pauses = drive(submit, problem(429, "queue_full", retry_after="7"), accepted())
    assert ticket.state.id == JOB["id"]
    assert 7 < pauses[0] < 8
    assert len(sent) == 2
    assert len({send.request.headers["Idempotency-Key"] for send in sent}) == 1


def test_a_full_queue_that_says_later_than_there_is_time_is_told_at_once() -> None:
    error, _, pauses = drive(submit, problem(429, "queue_full", retry_after="90"))
    assert isinstance(error, errors.QueueFull)
    assert (error.code, error.status, error.retry_after_s, error.request_id) == ("queue_full", 429, 90, "r-1")
    assert str(error) == error.detail == "told of queue_full"
    assert pauses == []


@pytest.mark.parametrize("broken", [httpx.ReadError("reset"), httpx.RemoteProtocolError("cut"), httpx.ReadTimeout("")])
def test_an_answer_that_never_came_is_asked_for_again_under_the_same_key(broken: Exception) -> None:
    ticket, sent, pauses = drive(submit, broken, broken, accepted())
    assert ticket.state.status == "queued"
    assert len({send.request.headers["Idempotency-Key"] for send in sent}) == 1
    assert 0 < pauses[0] < pauses[1]


@pytest.mark.parametrize(
    "hopeless",
    [
        httpx.LocalProtocolError("Illegal header value"),
        httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"),
    ],
    ids=type,
)
def test_what_no_repetition_can_mend_is_told_at_once(hopeless: Exception) -> None:
    error, sent, _ = drive(submit, hopeless)
    assert isinstance(error, errors.NoAnswer)
    assert str(hopeless) in str(error)
    assert len(sent) == 1


def test_patience_may_have_no_end() -> None:
    error, sent, _ = drive(lambda calls: calls.search(b"x"), httpx.Response(200, json=DONE), timeout_s=float("inf"))
    assert isinstance(error, errors.JobCanceled)
    assert sent[0].request.form == {}
    assert all(wait is not None and wait < 1e9 for wait in sent[0].timeout.as_dict().values())


def test_a_key_that_no_header_can_carry_is_told_of() -> None:
    error, _, _ = drive(lambda calls: calls.submit(b"x", idempotency_key="ключ"))
    assert isinstance(error, errors.InputError)


def test_what_cannot_be_repeated_is_repeated_only_if_it_was_never_sent() -> None:
    def roll_back(calls: Calls) -> Call[Any]:
        return calls.rollback(live="v2")

    error, sent, _ = drive(roll_back, httpx.ReadError("reset"))
    assert isinstance(error, errors.NoAnswer)
    assert len(sent) == 1
    version, _, _ = drive(
        roll_back, httpx.ConnectError("refused"), httpx.Response(200, json={"version": "v1", "live": 1})
    )
    assert version.version == "v1"


def test_nobody_there_is_told_when_time_is_up_and_not_later() -> None:
    gone: list[Said] = [httpx.ConnectError("refused")] * 5
    error, sent, pauses = drive(submit, *gone, timeout_s=3)
    assert isinstance(error, errors.NoAnswer)
    assert isinstance(error.__cause__, httpx.ConnectError)
    assert sum(pauses) < 3
    assert all(send.timeout.read <= 4 for send in sent if send.timeout.read)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_without_a_service_behind_it_is_tried_again(status: int) -> None:
    ticket, _, _ = drive(
        submit, httpx.Response(status, text="<html>", request=httpx.Request("POST", "http://x")), accepted()
    )
    assert ticket.state.id == JOB["id"]


def test_a_model_that_is_missing_is_told_at_once() -> None:
    error, _, pauses = drive(lambda calls: calls.index(), problem(503, "index_missing"))
    assert isinstance(error, errors.IndexMissing | errors.NotServing)
    assert pauses == []


def test_a_cancel_whose_first_answer_was_lost_has_cancelled() -> None:
    def cancel(calls: Calls) -> Call[Any]:
        ticket = yield from calls.job("a" * 32)
        return (yield from calls.cancel(ticket))

    ticket, _, _ = drive(
        cancel, httpx.Response(200, json=JOB), httpx.ReadError("reset"), problem(409, "job_finished"),
        httpx.Response(200, json=DONE),
    )  # fmt: skip
    assert ticket.state.status == "canceled"


def test_a_service_too_busy_to_hold_answers_back_is_not_asked_without_pause() -> None:
    def wait(calls: Calls) -> Call[Any]:
        ticket = yield from calls.job("a" * 32)
        return (yield from calls.wait(ticket, 20))

    error, sent, pauses = drive(wait, *[httpx.Response(200, json=JOB)] * 41)
    assert isinstance(error, errors.TimedOut)
    assert error.job_id == "a" * 32
    assert len(pauses) == len(sent) - 1


def test_who_gives_up_on_a_search_leaves_no_work_behind() -> None:
    _, sent, _ = drive(lambda calls: calls.search(b"x", timeout_s=5), httpx.Response(200, json=DONE))
    assert sent[0].request.form == {"deadline_s": "5"}
    assert sent[0].request.headers["Prefer"] == "wait=3"  # of the rest, the answer needs some


def _codes() -> dict[str, type[service_errors.LookalikeError]]:
    found = [service_errors.LookalikeError]
    for error in found:
        found += error.__subclasses__()
    never_sent = {"catalogue_unusable", "weights_unusable", "training_failed", "cannot_start", "dimension_mismatch"}
    never_sent |= {"reranker_missing", "reranker_damaged"}
    return {error.code: error for error in found if error.code not in never_sent}


@pytest.mark.parametrize(("code", "theirs"), _codes().items())
def test_every_code_of_the_service_has_a_class_of_its_own(
    code: str, theirs: type[service_errors.LookalikeError]
) -> None:
    error = refusal(problem(theirs.http_status, code))
    if code not in _NAMED_BY_FAMILY:
        assert error.default_code == error.code == code
    assert isinstance(error, errors.Overload) == issubclass(theirs, service_errors.Overload)


# Faults of a request that this client does not make: told apart by `code`.
_NAMED_BY_FAMILY = {
    "length_required", "body_incomplete", "request_timeout", "host_not_trusted", "cross_site_refused",
}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "family"),
    [
        (400, errors.InputError), (401, errors.AccessDenied), (403, errors.AccessDenied), (404, errors.NotFound),
        (409, errors.Conflict), (410, errors.NotFound), (418, errors.InputError), (422, errors.InputError),
        (429, errors.Overload), (500, errors.ServiceError), (503, errors.Overload), (507, errors.NotServing),
    ],
)  # fmt: skip
def test_a_code_of_a_newer_service_is_of_its_statuss_family_and_kept(status: int, family: type[Exception]) -> None:
    error = refusal(problem(status, "out_of_paper"))
    assert isinstance(error, family)
    assert error.code == "out_of_paper"


def test_the_tree_in_the_docstring_is_the_one_in_the_code() -> None:
    told = errors.__doc__ or ""
    for name, error in vars(errors).items():
        if isinstance(error, type) and issubclass(error, errors.LookalikeError):
            assert name in told


def test_another_service_at_that_address_is_told_in_words() -> None:
    page = httpx.Response(200, html="<h1>It works!</h1>", request=httpx.Request("GET", "http://x/v1/index"))
    error, _, _ = drive(lambda calls: calls.index(), page)
    assert isinstance(error, errors.UnexpectedAnswer)
    moved = httpx.Response(308, headers={"Location": "https://x/"}, request=httpx.Request("GET", "http://x"))
    error, _, _ = drive(lambda calls: calls.index(), moved)
    assert "https://x/" in str(error)


PAIRS: list[tuple[type[BaseModel], type[BaseModel]]] = [
    (answers.SearchResult, models.SearchResult),
    (answers.EmbedResult, models.EmbedResult),
    (jobs.ImageChangeResult, models.ImageChange),
    (answers.CategoryAnswer, models.CategoryAnswer),
    (answers.CertainPath, models.CertainPath),
    (answers.Neighbour, models.Neighbour),
    (answers.Timing, models.Timing),
    (jobs.JobError, models.Failure),
    (worker_report.IndexInfo, models.IndexInfo),
    (duplicates.DuplicatesResult, models.DuplicatesResult),
    (duplicates.DuplicateGroup, models.DuplicateGroup),
    (duplicates.DuplicatePair, models.DuplicatePair),
    (duplicates.DuplicateImage, models.DuplicateImage),
    (duplicates.DuplicateOf, models.DuplicateOf),
    (reindex.ReindexResult, models.ReindexResult),
    (reindex.ReindexReport, models.ReindexReport),
    (reindex.ReindexCounts, models.ReindexCounts),
    (reindex.SnapshotQuality, models.SnapshotQuality),
    (reindex.Progress, models.Progress),
    (versions.VersionReport, models.VersionReport),
    (views.Readiness, models.Readiness),
    (views.JobList, models.JobPage),
    (views.FeedbackView, models.FeedbackGiven),
    (views.WorkerList, models.WorkerList),
    (views.QueueView, models.QueueState),
]


@pytest.mark.parametrize(("theirs", "ours"), PAIRS, ids=lambda model: model.__name__)
def test_the_client_reads_every_field_that_the_service_writes(theirs: type[BaseModel], ours: type[BaseModel]) -> None:
    assert set(theirs.model_fields) == set(ours.model_fields)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (job_view.JobView, models.JobState),
        (versions.VersionView, models.Version),
        (views.BatchItemView, models.BatchItemState),
        (views.WorkerView, models.Worker),
    ],
)
def test_but_for_links_whose_way_it_knows_and_what_metrics_are_made_of(
    theirs: type[BaseModel], ours: type[BaseModel]
) -> None:
    assert set(theirs.model_fields) - {"links", "stats"} == set(ours.model_fields)


def test_the_options_are_those_of_the_service() -> None:
    any_job = set(jobs.Submission.model_fields) | {"idempotency_key"}
    assert set(JobOptions.__annotations__) == any_job
    assert set(typing.get_type_hints(SearchOptions)) == any_job | set(jobs.SearchRequest.model_fields) - {
        *jobs.OF_THE_INDEX,
        "without_photo",
    }
    assert set(typing.get_type_hints(EmbedOptions)) == any_job | set(jobs.EmbedRequest.model_fields) - {
        *jobs.OF_THE_INDEX,
        "without_photo",
        "photo_size",
        "encoding",
    }


def test_fields_of_a_newer_service_are_passed_over() -> None:
    assert models.JobState.model_validate({**JOB, "mood": "good", "status": "pondering"}).status == "pondering"


def test_both_clients_make_every_call() -> None:
    names = {name for cls in (Calls, IndexCalls) for name in vars(cls) if not name.startswith("_")}
    calls = names - {"plotter", "bind_query"}
    for client in (Client, AsyncClient):
        assert calls <= set(vars(client))
        assert all(getattr(client, name).__doc__ for name in calls)


def photo_inputs(directory: Path) -> dict[str, Photo]:
    file = directory / "ä b.jpg"
    file.write_bytes(encode(noise_image(3)))
    content = file.read_bytes()
    return {
        "path": file, "text": str(file), "bytes": content, "bytearray": bytearray(content),
        "memoryview": memoryview(content), "file": BytesIO(content),
    }  # fmt: skip


def test_a_photo_may_be_a_path_bytes_or_a_file(tmp_path: Path) -> None:
    assert len({read_photo(photo) for photo in photo_inputs(tmp_path).values()}) == 1


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "CMYK", "1", "I;16", "YCbCr"])
def test_a_picture_of_any_usual_mode_is_sent_as_it_looks(mode: str) -> None:
    picture = noise_image(3).convert("L" if mode == "I;16" else mode) if mode != "LA" else noise_image(3).convert("LA")
    sent = Image.open(BytesIO(read_photo(picture.convert(mode) if mode == "I;16" else picture)))
    assert sent.size == (160, 120)
    if mode == "RGB":
        assert np.abs(np.asarray(sent, int) - np.asarray(picture, int)).mean() < 2  # JPEG of quality 95


def test_a_picture_keeps_the_word_on_which_way_is_up() -> None:
    photo = noise_image(3)
    turned = photo.getexif()
    turned[0x0112] = 6
    again = Image.open(BytesIO(encode(photo, exif=turned)))
    assert Image.open(BytesIO(read_photo(again))).getexif()[0x0112] == 6


def closed() -> BytesIO:
    file = BytesIO()
    file.close()
    return file


@pytest.mark.parametrize(
    ("photo", "word"),
    [
        ("nowhere.jpg", "image_id="), ("https://x/a.jpg", "address"),
        ("a\0b", "cannot be read"), (".", "cannot be read"),
        (StringIO("x"), "'rb'"), (closed(), "closed"), (3, "not int"), (None, "not NoneType"),
        (Image.new("F", (4, 4)), "mode F"),
    ],
    ids=lambda given: given if isinstance(given, str) else type(given).__name__,
)  # fmt: skip
def test_what_is_no_photo_is_told_in_words(photo: Any, word: str) -> None:
    with pytest.raises(errors.PhotoUnreadable, match=word):
        read_photo(photo)


def test_a_result_may_be_pickled_copied_and_compared() -> None:
    score = {"name": "Appliances", "probability": 0.5}
    told = {
        "category": {**score, "index": 9, "top": [score]},
        "neighbours": [],
        "index_version": "v",
        "model_fingerprint": "f",
    }
    result = models.SearchResult.model_validate(told)
    result._origin = models.Origin((b"photo", None), lambda result: result)  # type: ignore[arg-type,return-value]
    assert pickle.loads(pickle.dumps(result)) == copy.deepcopy(result) == result
    with pytest.raises(ValueError, match=r"client\.plot"):
        copy.deepcopy(result).plot()


def test_an_address_is_checked_at_once() -> None:
    for wrong in ("127.0.0.1:8080", "ftp://x", "http://"):
        with pytest.raises(errors.NoAnswer, match=r"http://127\.0\.0\.1:8080"):
            Client(wrong)


def test_the_client_loads_nothing_of_the_service_and_no_drawing() -> None:
    heavy = {"torch", "faiss", "flask", "redis", "celery", "numpy", "matplotlib", "PIL"}
    assert not loaded_by("lookalike") & (heavy | {"api", "worker", "pipeline", "shared"})
