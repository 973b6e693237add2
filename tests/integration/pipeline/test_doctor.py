"""`lookalike doctor` on a healthy machine, and on machines where one thing after another is broken for real."""

import fcntl
import json
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner

from pipeline.cli.doctor import CHECKS
from pipeline.cli.main import main
from pipeline.doctor.findings import State
from shared.artifacts.snapshots import index_store
from shared.index.vectors.stored_vectors import VECTORS
from shared.redis_address import publish_redis_url
from tests.support.installation import Installation
from tests.support.milvus import MilvusLite


@pytest.fixture(autouse=True)
def machine(
    monkeypatch: pytest.MonkeyPatch, built: Installation, client: redis.Redis, valkey_url: str, unused_port: int
) -> None:
    """A healthy one. Packages are looked at by tests of their own: loading them all takes long."""
    monkeypatch.delitem(CHECKS, "wheels")
    for name in [name for name in os.environ if name.startswith("LOOKALIKE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LOOKALIKE_HOME", str(built.home))
    monkeypatch.setenv("LOOKALIKE_REDIS_URL", valkey_url)
    monkeypatch.setenv("LOOKALIKE_BACKBONE", "efficientnet_lite0")
    monkeypatch.setenv("LOOKALIKE_PORT", str(unused_port))
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", "0")


def examined(code: int) -> dict[str, list[dict[str, str]]]:
    """Findings by the thing they are about."""
    result = CliRunner().invoke(main, ["doctor", "--json"])
    assert result.exit_code == code, result.output
    report: Any = json.loads(result.stdout)
    assert report["ok"] is (code == 0)
    by_thing: dict[str, list[dict[str, str]]] = {}
    for finding in report["findings"]:
        assert bool(finding["advice"]) == (finding["state"] != "ok")
        by_thing.setdefault(finding["what"], []).append(finding)
    return by_thing


def the(thing: str, state: State, found: dict[str, list[dict[str, str]]]) -> str:
    """What was found of it, being the only thing in that state but for what depends on this machine."""
    [finding] = [finding for finding in found[thing] if finding["state"] == state]
    return finding["found"] + " -> " + finding["advice"]


def failed(code: int = 1) -> set[str]:
    return {what for what, findings in examined(code).items() for f in findings if f["state"] == State.FAIL}


def test_a_healthy_machine_fails_nothing(built: Installation) -> None:
    found = examined(0)
    assert {"python", "processor", "settings", "home", "port", "redis", "weights", "artifacts"} <= set(found)
    assert "52 photos" in the("artifacts", State.OK, found)
    text = CliRunner().invoke(main, ["doctor"]).output
    assert re.search(r"\d+ ok, \d+ warn, 0 fail", text)
    assert "\x1b" not in text  # no colours where no terminal is


def test_a_new_machine_is_told_what_will_happen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path / "not" / "yet"))
    monkeypatch.delenv("LOOKALIKE_REDIS_URL")
    found = examined(0)
    assert "to be made" in the("home", State.OK, found)
    assert "make run" in the("artifacts", State.WARN, found)
    assert "valkey" in the("redis", State.OK, found)
    assert list(tmp_path.iterdir()) == []  # it changes nothing


@pytest.mark.parametrize(
    ("variable", "value", "thing", "word"),
    [
        ("LOOKALIKE_HOME", "/dev/null/home", "home", "LOOKALIKE_HOME=DIR"),
        ("LOOKALIKE_REDIS_URL", "redis://127.0.0.1:1/0", "redis", "does not answer"),
        ("LOOKALIKE_CATALOGUE", "/nonexistent", "catalogue", "Products.csv"),
        ("LOOKALIKE_PORT", "0", "settings", "LOOKALIKE_PORT"),
        ("LOOKALIKE_REDIS_URL", "redis+cluster://h", "settings", "LOOKALIKE_REDIS_URL"),
    ],
)
def test_what_is_broken_fails_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, thing: str, word: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert word in the(thing, State.FAIL, examined(1))


def test_weights_that_are_no_file_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOOKALIKE_BACKBONE", "resnet50")
    monkeypatch.setenv("LOOKALIKE_WEIGHTS", str(tmp_path / "none.pth"))
    assert failed() == {"weights"}
    (tmp_path / "none.pth").write_bytes(b"")
    examined(0)


def test_a_misspelt_setting_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_MAX_QUEUE", "5")
    assert "LOOKALIKE_MAX_QUEUE " in the("settings", State.WARN, examined(0))


def test_a_port_in_use_fails_unless_the_service_of_this_home_uses_it(built: Installation, unused_port: int) -> None:
    lock = built.home / "up.lock"
    with socket.create_server(("127.0.0.1", unused_port)):
        assert failed() == {"port"}
        with lock.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            assert "a service runs" in the("lock", State.OK, examined(0))
    lock.unlink()


def test_a_sentence_encoder_that_is_not_installed_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_TEXT_ENCODER", "nobody-has-this-package")
    assert "requirements/sentences.txt" in the("sentence encoder", State.FAIL, examined(1))


def test_what_a_killed_run_left_is_told_of(built: Installation, valkey_url: str) -> None:
    left = built.home / "redis.url"
    publish_redis_url(built.home, valkey_url)
    assert "killed" in the("lock", State.WARN, examined(0))
    left.unlink()


def test_a_redis_that_forgets_fails_and_one_without_a_log_is_warned_of(client: redis.Redis) -> None:
    client.config_set("maxmemory", "100mb")
    client.config_set("maxmemory-policy", "allkeys-lru")
    found = examined(1)
    assert "noeviction" in the("redis memory", State.FAIL, found)
    assert "appendonly" in the("redis disk", State.WARN, found)
    client.config_set("maxmemory-policy", "noeviction")
    assert "at most 100 MiB" in the("redis memory", State.OK, examined(0))


def test_a_redis_that_wants_a_password_is_told_from_one_that_is_away(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.config_set("requirepass", "s3cret")
    try:
        found = the("redis", State.FAIL, examined(1))
    finally:
        client.config_set("requirepass", "")
    assert "password" in found
    assert "s3cret" not in found


def test_a_redis_that_is_too_old_is_told_with_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.redis_client._OLDEST_VERSION", 1000)
    assert re.search(r"too old.* -> use .*7\.0 or newer", the("redis", State.FAIL, examined(1)))


def test_a_store_that_answers_is_told_from_one_without_the_bucket_and_one_that_is_away(
    bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_STORE", bucket_url)
    assert "and is empty" in the("store", State.OK, examined(0))
    monkeypatch.setenv("LOOKALIKE_STORE", "s3://nobody-made-this")
    assert "no such bucket" in the("store", State.FAIL, examined(1))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "AWS_ variables" in the("store", State.FAIL, examined(1))


def test_a_directory_for_artifacts_must_be_one_that_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_STORE", str(tmp_path / "shared"))
    assert "to be made" in the("store", State.OK, examined(0))
    (tmp_path / "shared").touch()
    assert "another directory" in the("store", State.FAIL, examined(1))


def test_a_milvus_that_answers_is_told_from_one_that_is_away(
    milvus: MilvusLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_INDEX", milvus.address)
    assert "Milvus answers" in the("index", State.OK, examined(0))
    monkeypatch.setenv("LOOKALIKE_INDEX", "milvus+http://127.0.0.1:1")
    assert "LOOKALIKE_INDEX_TOKEN" in the("index", State.FAIL, examined(1))


def test_a_damaged_index_fails(built: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = built.copy(tmp_path)
    monkeypatch.setenv("LOOKALIKE_HOME", str(copy.home))
    monkeypatch.setenv("LOOKALIKE_CATALOGUE", str(copy.catalogue))
    version = index_store(copy.home).current()
    assert version
    vectors = index_store(copy.home).path(version) / VECTORS
    content = bytearray(vectors.read_bytes())
    content[-1] ^= 1
    vectors.chmod(0o644)
    vectors.write_bytes(content)
    assert "lookalike index build" in the("artifacts", State.FAIL, examined(1))
