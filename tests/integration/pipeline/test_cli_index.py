"""`lookalike index | reindex | schedule` as an operator types them; the service is a thread that ends the job"""

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from click.testing import CliRunner, Result

from pipeline.cli.main import main
from shared.artifacts.snapshots import index_store
from shared.errors import InternalError
from shared.jobs import scripts
from shared.jobs.celery_config import NAMED_QUEUES
from shared.jobs.contract import Job, JobKind
from shared.jobs.reindex_contract import Progress, ReindexCounts, ReindexMode, ReindexRequest, ReindexResult
from shared.jobs.store import JobStore
from shared.schedule.slots import Schedule
from tests.conftest import Clock
from tests.support.runners import job_named_by
from tests.support.versions import REPORT, promote_bundle, write_version


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, client: redis.Redis, valkey_url: str, tmp_path: Path) -> Path:
    monkeypatch.setenv("LOOKALIKE_REDIS_URL", valkey_url)
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path))
    return tmp_path


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    return result


def run_json(*arguments: str, code: int = 0) -> Any:
    """Exactly one JSON object on standard output."""
    return json.loads(run(*arguments, "--json", code=code).stdout)


# --- index: without a service ---


def test_versions_are_listed_shown_promoted_and_rolled_back(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_REDIS_URL", "redis://127.0.0.1:1/0")  # nothing runs
    assert run_json("index", "list") == {"versions": []}
    assert run_json("index", "show", code=1)["error"]["code"] == "index_missing"
    promote_bundle(home)
    first, second = write_version(home), write_version(home, report=REPORT)
    for version in (first, second):
        assert run_json("index", "promote", version) == {"live": version}
    assert [(v["version"], v["live"]) for v in run_json("index", "list")["versions"]] == [
        (second, True),
        (first, False),
    ]
    assert f"* {second}" in run("index", "list").output
    assert run_json("index", "show")["report"]["counts"]["new"] == 3
    assert "FAILED  recall@10: 0.9312" in run("index", "show", second).output
    assert run_json("index", "rollback") == {"live": first}
    assert index_store(home).current() == first
    assert run_json("index", "rollback", code=1)["error"]["code"] == "promotion_refused"


@pytest.mark.parametrize("verb", ["show", "promote"])
def test_a_version_that_is_not_there_ends_with_1_and_says_so(verb: str) -> None:
    assert run_json("index", verb, "20260101T000000000000Z-00000000", code=1)["error"]["code"] == "version_not_found"


def test_a_damaged_or_foreign_version_is_not_promoted(home: Path) -> None:
    promote_bundle(home)
    damaged, foreign = write_version(home), write_version(home, fingerprint="b" * 64)
    (index_store(home).path(damaged) / "vectors").write_bytes(bytes(999))
    assert run_json("index", "promote", damaged, code=1)["error"]["code"] == "index_damaged"
    assert run_json("index", "promote", foreign, code=1)["error"]["code"] == "promotion_refused"
    assert index_store(home).current() is None


def test_pruning_keeps_as_many_as_the_setting_or_the_option_says(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = [write_version(home) for _ in range(7)]
    monkeypatch.setenv("LOOKALIKE_KEEP_SNAPSHOTS", "6")
    assert run_json("index", "prune") == {"removed": versions[:1]}
    assert run_json("index", "prune", "--keep", "2") == {"removed": versions[1:5]}
    assert "nothing to remove" in run("index", "prune", "--keep", "2").output


# --- reindex: the service is a thread that ends the job ---


def taken(client: redis.Redis, jobs: JobStore, *, within_s: int, kind: JobKind = JobKind.REINDEX) -> Job:
    """The job that the next message names, claimed."""
    deadline, popped = time.monotonic() + within_s, None
    while popped is None:
        assert time.monotonic() < deadline
        popped = cast(tuple[bytes, bytes] | None, client.brpop([NAMED_QUEUES[kind]], 1))
    claim = jobs.claim_job(job_named_by(popped[1]), "w", lease_s=30)
    assert claim
    return claim.job


def report(jobs: JobStore, job: Job, done: int) -> None:
    progress = Progress(stage="embedding", done=done, total=60)
    assert jobs.run(scripts.PROGRESS, job.id, job.attempt, progress.model_dump_json(), 0)


class Service(threading.Thread):
    """Takes the next job of a kind, says how far it is, and ends it."""

    kind = JobKind.REINDEX

    def __init__(self, client: redis.Redis, jobs: JobStore, end: Callable[[JobStore, Job], object]) -> None:
        super().__init__(daemon=True)
        self._client, self._jobs, self._end = client, jobs, end
        self.request: object = None

    def run(self) -> None:
        job = taken(self._client, self._jobs, within_s=20, kind=self.kind)
        self.request = job.request
        for done in (0, 30, 60):
            report(self._jobs, job, done)
        self._end(self._jobs, job)


def succeed(**fields: Any) -> Callable[[JobStore, Job], object]:
    result = ReindexResult(mode=ReindexMode.CHANGED, counts=ReindexCounts(seen=60, new=60), **fields)
    return lambda jobs, job: jobs.succeed(job, result)


@pytest.mark.parametrize(
    ("end", "options", "code", "printed"),
    [
        (succeed(index_version="v2", promoted=True, decision="as good as the live one"), (), 0, "version v2\n"),
        (succeed(decision="nothing has changed"), (), 0, "nothing has changed"),
        (succeed(index_version="v2", decision="recall is worse"), (), 3, "version v2, not live"),
        (succeed(index_version="v2", decision="as asked"), ("--promote", "never"), 0, "not live"),
        (lambda jobs, job: jobs.fail(job, InternalError("it crashed")), (), 1, "internal_error: it crashed"),
        (lambda jobs, job: (jobs.cancel(job.id), jobs.fail(job, InternalError(""))), (), 1, "canceled"),
    ],
)
def test_a_reindex_that_is_waited_for_says_how_it_ended(
    client: redis.Redis,
    jobs: JobStore,
    end: Callable[[JobStore, Job], object],
    options: tuple[str, ...],
    code: int,
    printed: str,
) -> None:
    service = Service(client, jobs, end)
    service.start()
    result = run("reindex", "--wait", *options, code=code)
    service.join()
    assert printed in result.stdout
    assert "60/60" not in result.stderr  # a bar is for those who look


def test_what_is_asked_reaches_the_service_and_the_result_is_told_as_json(client: redis.Redis, jobs: JobStore) -> None:
    service = Service(client, jobs, succeed(dry_run=True, decision="a dry run"))
    service.start()
    job = run_json("reindex", "--mode", "all", "--dry-run", "--force", "--promote", "if_valid", "--wait")
    service.join()
    assert (job["status"], job["result"]["decision"]) == ("succeeded", "a dry run")
    assert service.request == ReindexRequest.model_validate(
        {"mode": "all", "dry_run": True, "force": True, "promote": "if_valid"}
    )


def test_without_a_terminal_it_is_submitted_and_a_second_one_is_told_of_it(jobs: JobStore) -> None:
    job = run_json("reindex")
    assert jobs.get(job["id"]).request_id == "cli"
    error = run_json("reindex", code=1)["error"]
    assert error["code"] == "reindex_running"
    assert job["id"] in error["detail"]


def test_ctrl_c_ends_the_watching_and_not_the_reindex(client: redis.Redis, jobs: JobStore) -> None:
    screen, terminal = pty.openpty()  # a bar is drawn for those who look
    termios.tcsetwinsize(terminal, (24, 80))
    command = [sys.executable, "-m", "pipeline.cli", "reindex", "--wait"]
    # As a terminal would, whatever these tests were started by: in the background of a script Ctrl-C is ignored.
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    watching = subprocess.Popen(command, stderr=terminal, env=os.environ, preexec_fn=heeding)  # noqa: PLW1509
    os.close(terminal)
    deadline = time.monotonic() + 60
    job = taken(client, jobs, within_s=60)
    report(jobs, job, 1)
    seen: list[str] = []

    def read() -> None:  # all the time, as a terminal does: who writes to one that nobody reads stands still
        with suppress(OSError):  # how it says that nobody writes to it any more
            while more := os.read(screen, 4096):
                seen.append(more.decode(errors="replace"))

    reader = threading.Thread(target=read)
    reader.start()
    while "embedding" not in "".join(seen):  # it watches
        assert time.monotonic() < deadline
        time.sleep(0.02)
    watching.send_signal(signal.SIGINT)
    assert watching.wait(20) == 130
    reader.join(20)
    os.close(screen)
    assert f"lookalike jobs cancel {job.id}" in "".join(seen).replace("\r\n", "")
    assert jobs.get(job.id).status == "running"


# --- schedule ---


def test_the_schedule_is_shown_with_its_next_slot_and_the_last_job(
    client: redis.Redis, jobs: JobStore, clock: Clock
) -> None:
    assert run_json("schedule", "show") == {"cron": None}
    assert "LOOKALIKE_REINDEX_CRON" in run("schedule", "show").output
    schedule = Schedule(client, jobs, clock=clock)
    schedule.run_due("0 * * * *")
    assert run_json("schedule", "show")["last"] is None
    clock.now += 3600
    job_id = schedule.run_due("0 * * * *")
    shown = run_json("schedule", "show")
    assert (shown["cron"], shown["job"], shown["last"]) == ("0 * * * *", job_id, "1970-01-12T14:00:00Z")
    assert shown["next"].endswith(":00:00Z")
    assert str(job_id) in run("schedule", "show").output
