"""API, workers and Celery's tools as the Redis user of docs/security.md: it may do all they need, and nothing else."""

import re
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from shared.catalogue.categories import CATEGORIES
from shared.jobs.contract import JobKind
from shared.redis_client import connect
from tests import ROOT
from tests.e2e.conftest import eventually, verb
from tests.e2e.support.celery_cli import CELERY, celery
from tests.e2e.support.held_fleet import HeldFleet, held_fleet

PASSWORD = "of-the-test"
YEARLY = "0 0 1 1 *"


def rules() -> list[str]:
    """The user as docs/security.md has it made."""
    block = re.search(
        r"^redis-cli (ACL SETUSER lookalike (?:.*\\\n)*.*)$", (ROOT / "docs/security.md").read_text(), re.M
    )
    assert block
    return [word.replace("PASSWORD", PASSWORD) for word in shlex.split(block[1].replace("\\\n", " "))]


def url_of(fleet: HeldFleet) -> str:
    """The Redis as that user is to name it."""
    return fleet.redis_url.replace("://", f"://lookalike:{PASSWORD}@")


@pytest.fixture(scope="module")
def fleet(home: Path, catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeldFleet]:
    """A service whose every process is that user; `fleet.client()` is an administrator."""
    directory = tmp_path_factory.mktemp("acl")
    with held_fleet(home, catalogue, directory, worker_beat=0, celery_events=1, reindex_cron=YEARLY) as fleet:
        with fleet.client() as client:
            client.execute_command(*rules())
            client.execute_command("ACL", "LOG", "RESET")
        fleet.configure(redis_url=url_of(fleet))
        fleet.start("api")
        fleet.start("held")
        fleet.wait_ready()
        yield fleet


@pytest.fixture
def user(fleet: HeldFleet) -> Iterator[redis.Redis]:
    with connect(url_of(fleet), timeout_s=5) as client:
        yield client


def ended(fleet: HeldFleet, *job_ids: str) -> None:
    eventually(lambda: {fleet.status(job_id) for job_id in job_ids} == {"succeeded"}, 60, "jobs succeed")


def test_nothing_that_the_service_and_its_tools_do_is_refused(fleet: HeldFleet, photos: list[Path]) -> None:
    events = fleet.launch("events", [*CELERY, "events", "--dump"])
    batch = requests.post(
        f"{fleet.url}/v1/batches",
        files=[("image", photo.read_bytes()) for photo in photos[:3]],
        headers={"Idempotency-Key": "one"},
        timeout=10,
    )
    assert batch.status_code == 202, batch.text
    put = requests.put(
        f"{fleet.url}/v1/images/new",
        files={"image": photos[5].read_bytes()},
        data={"listing_id": "new", "category": CATEGORIES[0]},
        timeout=10,
    )
    assert put.status_code == 202, put.text
    failed = fleet.submit(JobKind.SEARCH, image_id="no-such-photo")
    ended(fleet, fleet.submit(JobKind.SEARCH, photos[0]), fleet.submit(JobKind.EMBED, photos[1], priority="bulk"))
    ended(fleet, put.json()["id"], *(item["job_id"] for item in batch.json()["items"]))
    eventually(lambda: fleet.status(failed) == "failed", 20, "it fails")
    assert requests.post(f"{fleet.url}/v1/jobs/{failed}/retry", timeout=10).status_code == 202

    ended(fleet, fleet.submit(JobKind.REINDEX, mode="all"))
    with fleet.client() as client:
        client.hset("lookalike:schedule", mapping={"cron": YEARLY, "slot": "0.0", "job": ""})
        beat = fleet.launch("beat", [*CELERY, "beat"])
        eventually(lambda: client.hget("lookalike:schedule", "job"), 30, "beat takes the slot")
    beat.send_signal(signal.SIGTERM)
    assert beat.wait(20) == 0

    fleet.hold("photos")
    canceled = fleet.submit(JobKind.SEARCH, photos[2])
    eventually(lambda: fleet.status(canceled) == "running", 20, "it runs")
    assert "pong" in celery(fleet, "inspect", "ping").stdout
    assert canceled in celery(fleet, "inspect", "active").stdout
    assert celery(fleet, "control", "revoke", canceled).returncode == 0
    fleet.release()
    eventually(lambda: fleet.status(canceled) == "canceled", 20, "it is cancelled")
    eventually(lambda: "task succeeded: lookalike.embed_shard" in fleet.log_text(), 20, "events come")
    events.kill()  # an interrupt, if it comes at a bad moment, is swallowed
    events.wait(20)

    for path in ("/readyz", "/metrics", "/v1/jobs", "/v1/index", "/v1/images/new"):
        assert requests.get(fleet.url + path, timeout=10).status_code == 200, path
    for words in (["jobs", "list"], ["schedule", "show"], ["keys", "list"], ["workers"], ["audit"]):
        asked = verb(*words, home=fleet.home, redis_url=url_of(fleet))
        assert asked.returncode == 0, asked.stderr
    assert fleet.kill("held", signal.SIGTERM) == 0
    with fleet.client() as client:
        assert [(one["reason"], one["object"], one["client-info"]) for one in client.acl_log()] == []


def raw(user: redis.Redis, *words: object) -> object:
    """Send a command as it is typed."""
    return user.execute_command(*words)  # type: ignore[no-untyped-call]


REFUSED: dict[str, Callable[[redis.Redis], Any]] = {
    "a key of others": lambda user: user.get("theirs"),
    "writing a key of others": lambda user: user.set("theirs", "ours"),
    "deleting a key of others": lambda user: user.delete("theirs"),
    "a key of others in a script": lambda user: user.eval("return redis.call('GET', 'theirs')", 0),
    "a channel of others": lambda user: user.publish("theirs", "message"),
    "all keys": lambda user: user.keys("*"),
    "all keys bit by bit": lambda user: user.scan(),
    "any key": lambda user: user.randomkey(),
    "flushall": lambda user: user.flushall(),
    "flushdb": lambda user: user.flushdb(),
    "swapdb": lambda user: raw(user, "SWAPDB", 0, 1),
    "config get": lambda user: user.config_get("*"),
    "config set": lambda user: user.config_set("dir", "/tmp"),
    "acl list": lambda user: user.acl_list(),
    "acl setuser": lambda user: raw(user, "ACL", "SETUSER", "lookalike", "+@all"),
    "shutdown": lambda user: raw(user, "SHUTDOWN", "NOSAVE"),
    "monitor": lambda user: raw(user, "MONITOR"),
    "script flush": lambda user: user.script_flush(),
    "function load": lambda user: user.function_load("#!lua name=a\nserver.register_function('a', function() end)"),
    "replicaof": lambda user: user.replicaof("127.0.0.1", 1),
    "client list": lambda user: user.client_list(),
    "client kill": lambda user: raw(user, "CLIENT", "KILL", "TYPE", "normal"),
    "migrate": lambda user: raw(user, "MIGRATE", "127.0.0.1", 1, "lookalike:jobs", 0, 1),
    "save": lambda user: user.save(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_everything_else_is_refused(fleet: HeldFleet, user: redis.Redis, what: str) -> None:
    with fleet.client() as client:
        client.set("theirs", "secret")
        with pytest.raises(redis.ResponseError, match=r"[Nn]o permissions|ACL failure"):
            REFUSED[what](user)
        assert client.get("theirs") == b"secret"
