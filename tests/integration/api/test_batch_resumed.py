"""A batch sent again after its first request died half way: its photos are not done twice."""

from io import BytesIO
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared.jobs.batches import BatchStore
from shared.jobs.records import Created
from shared.jobs.store import JobStore
from tests.conftest import encode, noise_image

PHOTOS = [encode(noise_image(seed)) for seed in range(3)]


def send(http: FlaskClient) -> TestResponse:
    form = {"image": [(BytesIO(photo), f"{n}.jpg") for n, photo in enumerate(PHOTOS)]}
    return http.post("/v1/batches", data=form, headers={"Idempotency-Key": "once"})


def test_a_batch_sent_again_under_its_key_finds_the_jobs_its_first_request_made(
    http: FlaskClient, jobs: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise redis.ConnectionError("Redis went away after the last photo was accepted")

    with monkeypatch.context() as patch:
        patch.setattr(BatchStore, "save", die)
        assert send(http).status_code == 503
    assert jobs.depth() == len(PHOTOS)
    again = send(http)
    assert again.status_code == 202
    assert jobs.depth() == len(PHOTOS)
    assert again.json is not None
    assert again.json["counts"]["queued"] == len(PHOTOS)
    assert send(http).json == again.json


def test_a_photo_whose_acceptance_nobody_heard_of_is_not_reported_as_refused(
    http: FlaskClient, jobs: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, n_created = JobStore.create, 0

    def create_and_drop_the_second(*arguments: Any, **options: Any) -> Created:
        nonlocal n_created
        n_created += 1
        made = create(*arguments, **options)
        if n_created == 2:
            raise redis.ConnectionError("Connection closed by server.")
        return made

    with monkeypatch.context() as patch:
        patch.setattr(JobStore, "create", create_and_drop_the_second)
        assert send(http).status_code == 503
    again = send(http)
    assert again.json is not None
    assert again.json["counts"]["queued"] == jobs.depth() == len(PHOTOS)
