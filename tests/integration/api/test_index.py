"""The index over HTTP: reindexes, its versions, the way forward and back, and a report that people can read"""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient

from api.app import create_app
from shared.api_keys import KeyRing, Scope
from shared.artifacts.snapshots import index_store
from shared.jobs.contract import Job
from shared.jobs.reindex_contract import Promotion, ReindexMode, ReindexRequest
from shared.jobs.store import JobStore
from tests.integration.conftest import assert_problem, settings
from tests.support.versions import FINGERPRINT, REPORT, promote_bundle, write_version


@pytest.fixture
def app(client: redis.Redis, valkey_url: str, tmp_path: Path) -> Flask:
    return create_app(settings(valkey_url, home=tmp_path))


@pytest.fixture
def http(app: Flask) -> FlaskClient:
    return app.test_client()


def test_a_reindex_without_a_body_is_one_of_defaults(http: FlaskClient, jobs: JobStore) -> None:
    answer = http.post("/v1/jobs/reindex")
    assert answer.status_code == 202, answer.text
    assert answer.get_json()["kind"] == "reindex"
    assert answer.headers["Location"] == f"/v1/jobs/{answer.get_json()['id']}"
    assert _submitted(http, jobs).request == ReindexRequest()


def _submitted(http: FlaskClient, jobs: JobStore) -> Job:
    return jobs.get(http.get("/v1/jobs?kind=reindex").get_json()["jobs"][0]["id"])


def test_what_is_asked_of_a_reindex_reaches_its_job(http: FlaskClient, jobs: JobStore) -> None:
    asked = {"mode": "all", "dry_run": True, "promote": "never", "force": True, "deadline_s": 600}
    assert http.post("/v1/jobs/reindex", json=asked).status_code == 202
    job = _submitted(http, jobs)
    assert job.request == ReindexRequest(mode=ReindexMode.ALL, dry_run=True, promote=Promotion.NEVER, force=True)
    assert job.submission.deadline_s == 600


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"mode": "some"}, "mode"),
        ({"force": 1}, "force"),
        ({"catalogue": "/etc"}, "catalogue"),
        ({"dry_run": "true"}, "dry_run"),
        ([], "object"),
    ],
)
def test_a_reindex_that_means_nothing_is_422_and_named(http: FlaskClient, body: object, named: str) -> None:
    assert named in assert_problem(http.post("/v1/jobs/reindex", json=body), 422, "invalid_request")


def test_options_outside_the_json_are_refused_rather_than_passed_over(http: FlaskClient) -> None:
    assert_problem(http.post("/v1/jobs/reindex?mode=all"), 422, "invalid_request")
    assert_problem(http.post("/v1/jobs/reindex", data={"mode": "all"}), 422, "invalid_request")


def test_a_second_reindex_is_told_where_the_first_is(http: FlaskClient) -> None:
    first = http.post("/v1/jobs/reindex", headers={"Idempotency-Key": "one"}).get_json()
    assert http.post("/v1/jobs/reindex", headers={"Idempotency-Key": "one"}).get_json()["id"] == first["id"]
    second = http.post("/v1/jobs/reindex", json={"mode": "all"})
    assert (second.status_code, second.mimetype) == (409, "application/problem+json")
    assert second.get_json()["code"] == "reindex_running"
    assert second.get_json()["job"] == second.headers["Location"] == first["links"]["self"]
    http.post(first["links"]["cancel"])
    assert http.post("/v1/jobs/reindex").status_code == 202


def test_versions_are_listed_newest_first_with_what_an_operator_asks(http: FlaskClient, tmp_path: Path) -> None:
    assert http.get("/v1/index/versions").get_json() == {"versions": []}
    first, second = write_version(tmp_path), write_version(tmp_path, report=REPORT)
    index_store(tmp_path).promote(first)
    newest, oldest = http.get("/v1/index/versions").get_json()["versions"]
    assert (newest["version"], newest["live"], newest["promoted_at"]) == (second, False, None)
    assert newest["report"]["gates_failed"] == ["recall@10"]
    assert newest["report"]["counts"]["new"] == 3
    assert newest["links"]["promote"] == f"/v1/index/versions/{second}/promote"
    assert (oldest["version"], oldest["live"], oldest["report"]) == (first, True, None)
    assert (oldest["count"], oldest["model_fingerprint"]) == (10, FINGERPRINT)
    assert oldest["bytes"] > 1000
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT.*Z", oldest["promoted_at"])
    assert "promote" not in oldest["links"]


def test_a_version_goes_live_and_back_in_one_call_each(http: FlaskClient, tmp_path: Path) -> None:
    promote_bundle(tmp_path)
    first, second = write_version(tmp_path), write_version(tmp_path)
    for version in (first, second, second):
        answer = http.post(f"/v1/index/versions/{version}/promote")
        assert (answer.status_code, answer.get_json()["version"], answer.get_json()["live"]) == (200, version, True)
    assert index_store(tmp_path).current() == second
    back = http.post("/v1/index/rollback")
    assert (back.status_code, back.get_json()["version"]) == (200, first)
    assert index_store(tmp_path).current() == first
    assert_problem(http.post("/v1/index/rollback"), 409, "promotion_refused")


def test_a_rollback_that_names_what_it_leaves_goes_back_once_however_often_it_is_sent(
    http: FlaskClient, tmp_path: Path
) -> None:
    versions = [write_version(tmp_path) for _ in range(3)]
    for version in versions:
        index_store(tmp_path).promote(version)
    assert http.post(f"/v1/index/rollback?live={versions[2]}").status_code == 200
    assert_problem(http.post(f"/v1/index/rollback?live={versions[2]}"), 409, "promotion_refused")
    assert index_store(tmp_path).current() == versions[1]
    assert_problem(http.post("/v1/index/rollback?to=x"), 422, "invalid_request")


@pytest.mark.parametrize("name", ["20260101T000000000000Z-00000000", "CURRENT", "..", "%2e%2e", "x" * 500, "a%00b"])
def test_a_version_that_is_not_there_is_404(http: FlaskClient, tmp_path: Path, name: str) -> None:
    write_version(tmp_path)
    assert http.post(f"/v1/index/versions/{name}/promote").status_code == 404
    assert http.get(f"/v1/index/versions/{name}/report").status_code == 404


def test_a_version_of_another_model_is_not_promoted_nor_gone_back_to(http: FlaskClient, tmp_path: Path) -> None:
    foreign, ours = write_version(tmp_path, fingerprint="b" * 64), write_version(tmp_path)
    store = index_store(tmp_path)
    store.promote(foreign)
    store.promote(ours)
    promote_bundle(tmp_path)
    for path in (f"/v1/index/versions/{foreign}/promote", "/v1/index/rollback"):
        assert "bbbbbbbbbbbb, the live model is aaaaaaaaaaaa" in assert_problem(
            http.post(path), 409, "promotion_refused"
        )
    assert store.current() == ours


def test_a_version_with_a_damaged_manifest_is_listed_with_its_reason_and_not_promoted(
    http: FlaskClient, tmp_path: Path
) -> None:
    version = write_version(tmp_path)
    (index_store(tmp_path).path(version) / "manifest.json").write_text("{")
    [listed] = http.get("/v1/index/versions").get_json()["versions"]
    assert "not JSON" in listed["problem"]
    assert listed["count"] is None
    assert "not JSON" in assert_problem(http.post(f"/v1/index/versions/{version}/promote"), 409, "promotion_refused")
    assert "not JSON" in http.get(f"/v1/index/versions/{version}/report").text


def test_only_administrators_change_the_index_and_it_is_on_record(
    app: Flask, client: redis.Redis, tmp_path: Path
) -> None:
    ring = KeyRing(client)
    user, admin = (
        {"Authorization": f"Bearer {ring.create('k', scopes)[1]}"}
        for scopes in ({*Scope} - {Scope.ADMIN}, {Scope.ADMIN})
    )
    http = app.test_client()
    versions = [write_version(tmp_path) for _ in range(2)]
    index_store(tmp_path).promote(versions[0])
    calls = (f"/v1/index/versions/{versions[1]}/promote", "/v1/index/rollback", "/v1/jobs/reindex")
    for path in calls:
        assert_problem(http.post(path, headers=user), 403, "scope_missing")
    for path in calls:
        assert http.post(path, headers=admin).status_code in (200, 202)
    assert http.get("/v1/index/versions", headers=user).status_code == 200
    done = [(entry.action, entry.subject) for entry in ring.audit()]
    assert done == [("index.rollback", versions[0]), ("index.promote", versions[1])]


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def test_the_report_is_a_page_that_runs_nothing_and_loads_only_our_stylesheet(
    http: FlaskClient, tmp_path: Path
) -> None:
    answer = http.get(f"/v1/index/versions/{write_version(tmp_path, report=REPORT)}/report")
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    for told in ("recall@10", "failed", "0.9312", "0.9000", "0.8125", "passed", "12.3 s"):
        assert told in answer.text
    assert "&lt;b&gt;ours&lt;/b&gt;" in answer.text  # a catalogue may be called anything
    assert "no &lt;image&gt;" in answer.text
    page = _Page()
    page.feed(answer.text)
    assert not {"script", "style", "img", "iframe", "form", "a"} & set(page.tags)
    assert not {"style", "onload", "src"} & {name for name, _ in page.attributes}
    linked = [str(value) for name, value in page.attributes if name == "href"]
    assert all(path.startswith("/static/") and http.get(path).status_code == 200 for path in linked)
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "nonce" not in policy


def test_the_report_is_json_for_those_who_ask_for_it(http: FlaskClient, tmp_path: Path) -> None:
    version = write_version(tmp_path, report=REPORT)
    answer = http.get(f"/v1/index/versions/{version}/report", headers={"Accept": "application/json"})
    assert answer.mimetype == "application/json"
    assert answer.get_json()["version"]["version"] == version
    assert answer.get_json()["report"] == json.loads(REPORT.model_dump_json())


def test_a_version_that_no_reindex_made_has_a_page_too(http: FlaskClient, tmp_path: Path) -> None:
    answer = http.get(f"/v1/index/versions/{write_version(tmp_path)}/report", headers={"Accept": "text/html,*/*;q=0.8"})
    assert "there is no report" in answer.text
