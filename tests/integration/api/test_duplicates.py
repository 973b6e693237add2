"""/v1/jobs/duplicates and verdicts over HTTP: options, pages of groups, and what is decided of which photos"""

from pathlib import Path

import pytest
import redis
from flask.testing import FlaskClient

from api.app import create_app
from shared.duplicates.report import write_report
from shared.duplicates.verdicts import VerdictStore
from shared.jobs.duplicates_contract import (
    GROUPS_A_PAGE,
    DuplicateGroup,
    DuplicateImage,
    DuplicateLabel,
    DuplicatesRequest,
    DuplicatesResult,
)
from shared.jobs.store import JobStore
from tests.integration.api.test_images import catalogue, home
from tests.integration.conftest import assert_problem, settings

__all__ = ["catalogue", "home"]  # fixtures: the photos p1 and p2, with the digest 5a


@pytest.fixture
def http(client: redis.Redis, valkey_url: str, home: Path, catalogue: Path) -> FlaskClient:
    return create_app(settings(valkey_url, home=home, catalogue=catalogue)).test_client()


def group(n: int) -> DuplicateGroup:
    images = [DuplicateImage(image_id=f"{n}{side}", listing_id=side) for side in "ab"]
    return DuplicateGroup(label=DuplicateLabel.SAME_BYTES, n_images=2, images=images, n_pairs=0, pairs=[])


def end(jobs: JobStore, job_id: str, groups: list[DuplicateGroup], home: Path) -> None:
    """Stands in for a worker."""
    claim = jobs.claim_job(job_id, "w", lease_s=15)
    assert claim
    write_report(home, job_id, groups, ttl_s=3600)
    found = {"n_photos": 9, "n_unreadable": 0, "n_groups": len(groups), "groups_by_label": {}, "n_refuted": 0}
    jobs.succeed(claim.job, DuplicatesResult(index_version="v", groups=groups[:GROUPS_A_PAGE], **found))


def test_a_duplicates_job_waits_in_a_queue_of_its_own_with_its_options(http: FlaskClient, jobs: JobStore) -> None:
    [version] = [one["version"] for one in http.get("/v1/index/versions").get_json()["versions"]]
    answer = http.post("/v1/jobs/duplicates", json={"since": version, "same_thing_score": 0.9})
    assert (answer.status_code, answer.get_json()["kind"]) == (202, "duplicates")
    assert jobs.claim("w", lease_s=15) is None  # it is no photo job
    claim = jobs.claim_job(answer.get_json()["id"], "w", lease_s=15)
    assert claim
    assert claim.job.request == DuplicatesRequest(since=version, same_thing_score=0.9)
    assert_problem(http.post("/v1/jobs/duplicates", json={"since": "x"}), 404, "version_not_found")
    assert_problem(http.post("/v1/jobs/duplicates", json={"same_thing_score": 0.1}), 422, "invalid_request")


def test_groups_come_in_pages_however_many_there_are(http: FlaskClient, jobs: JobStore, home: Path) -> None:
    job_id = http.post("/v1/jobs/duplicates").get_json()["id"]
    assert_problem(http.get(f"/v1/jobs/{job_id}/duplicates"), 404, "job_not_found")
    groups = [group(n) for n in range(2 * GROUPS_A_PAGE + 1)]
    end(jobs, job_id, groups, home)
    seen, cursor = [], "0"
    while cursor:
        page = http.get(f"/v1/jobs/{job_id}/duplicates?cursor={cursor}").get_json()
        seen += [one["images"][0]["image_id"] for one in page["groups"]]
        cursor = page["next_cursor"]
    assert seen == [one.images[0].image_id for one in groups]
    assert http.get(f"/v1/jobs/{job_id}/duplicates?cursor=9").get_json() == {"groups": [], "next_cursor": None}
    assert len(http.get(f"/v1/jobs/{job_id}").get_json()["result"]["groups"]) == GROUPS_A_PAGE
    other = http.post("/v1/jobs/reindex").get_json()["id"]
    assert_problem(http.get(f"/v1/jobs/{other}/duplicates"), 404, "job_not_found")


def test_a_verdict_is_stored_for_every_two_photos_with_what_they_show(http: FlaskClient, client: redis.Redis) -> None:
    answer = http.post("/v1/duplicates/verdicts", json={"image_ids": ["p2", "p1"], "verdict": "not_duplicate"})
    assert answer.get_json() == {"image_ids": ["p1", "p2"], "verdict": "not_duplicate", "n_pairs": 1}
    [stored] = VerdictStore(client).all()
    assert (stored.image_ids, stored.sha256s) == (("p1", "p2"), ("5a", "5a"))
    listed = {"verdicts": [{"image_ids": ["p1", "p2"], "verdict": "not_duplicate"}], "next_cursor": None}
    assert http.get("/v1/duplicates/verdicts").get_json() == listed
    http.post("/v1/duplicates/verdicts", json={"image_ids": ["p1", "p2"], "verdict": None})
    assert http.get("/v1/duplicates/verdicts").get_json()["verdicts"] == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"image_ids": ["p1", "none"], "verdict": "duplicate"}, 404, "image_not_found"),
        ({"image_ids": ["p1", "p1"], "verdict": "duplicate"}, 422, "invalid_request"),
        ({"image_ids": ["p1"], "verdict": "duplicate"}, 422, "invalid_request"),
        ({"image_ids": ["p1", "p2"]}, 422, "invalid_request"),
        ({"image_ids": ["p1", "p2"], "verdict": "perhaps"}, 422, "invalid_request"),
        ({"image_ids": ["p1", "p2"], "verdict": "duplicate", "deadline_s": 1}, 422, "invalid_request"),
    ],
)
def test_a_verdict_that_cannot_be_stored_is_refused(
    http: FlaskClient, body: dict[str, object], status: int, code: str
) -> None:
    assert_problem(http.post("/v1/duplicates/verdicts", json=body), status, code)
