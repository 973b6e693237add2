"""Feedback by the client: a result of a search knows its job, and a copy of one does not."""

import copy
from typing import Any, cast

import httpx

from lookalike import SearchResult, errors
from lookalike.calls import Calls
from lookalike.exchange import Call
from lookalike.models import FeedbackGiven
from tests.integration.api.test_feedback import FOUND
from tests.unit.test_client import DONE, JOB, drive

ENDED = {**DONE, "status": "succeeded", "result": FOUND.model_dump(mode="json")}
GIVEN = {"job_id": JOB["id"], "event": "right", "image_id": "p2", "position": 2, "index_version": "v1"}


def answered(body: object) -> httpx.Response:
    return httpx.Response(200, json=body, request=httpx.Request("POST", "http://x"))


def test_a_result_is_told_of_by_itself_by_its_id_and_by_its_jobs_id() -> None:
    def told(calls: Calls) -> Call[Any]:
        found = yield from calls.search(image_id="p0")
        given = yield from calls.give_feedback(found, "right", found.neighbours[1])
        yield from calls.give_feedback(found.job_id, "click", "p1")
        yield from calls.give_feedback(found, "category", category="Appliances")
        return given

    broken = httpx.ReadError("gone")
    given, sent, _ = drive(told, answered(ENDED), answered(GIVEN), broken, answered(GIVEN), answered(GIVEN))
    assert given == FeedbackGiven.model_validate(GIVEN)
    bodies = [dict(cast(dict[str, str], one.request.json)) for one in sent[1:]]
    assert {body.pop("job_id") for body in bodies} == {JOB["id"]}
    click = {"event": "click", "image_id": "p1"}
    right, corrected = {"event": "right", "image_id": "p2"}, {"event": "category", "category": "Appliances"}
    assert bodies == [right, click, click, corrected]  # the click was sent again


def test_a_copy_of_a_result_is_told_of_by_the_id_of_its_job() -> None:
    result = SearchResult.model_validate(ENDED["result"])
    result._origin.job_id = "a"
    assert (result.job_id, copy.deepcopy(result).job_id) == ("a", "")
    outcome, sent, _ = drive(lambda calls: calls.give_feedback(copy.deepcopy(result), "click", "p1"))
    assert isinstance(outcome, errors.InputError)
    assert sent == []
