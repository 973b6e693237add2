"""Photos of shards are decoded in processes of their own, that come and go unnoticed"""

import hashlib
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import psutil
import pytest

from shared.catalogue.decode import CHANGED
from shared.errors import InternalError, StoreUnavailable, WorkerLost
from shared.jobs.reindex_contract import ShardPhoto
from shared.photos.images import PreprocessSpec, decode_photo
from tests.conftest import encode, noise_image
from tests.e2e.conftest import eventually
from tests.support.runners import DECODERS
from worker.tasks import shard_decoder
from worker.tasks.shard_decoder import ShardDecoders

_SPEC = PreprocessSpec(size_px=96)
_CACHE = Path("not-used")


@pytest.fixture
def decoders() -> Iterator[ShardDecoders]:
    """Decoders, of no other test."""
    DECODERS.close()
    made = ShardDecoders()
    yield made
    made.close()


def _processes() -> list[psutil.Process]:
    alive = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in alive if shard_decoder.__name__ in child.cmdline()]


def _photo(path: Path, content: bytes) -> ShardPhoto:
    path.write_bytes(content)
    return ShardPhoto(path=str(path), sha256=hashlib.sha256(content).hexdigest())


@pytest.fixture
def photos(tmp_path: Path) -> list[ShardPhoto]:
    return [_photo(tmp_path / f"{number}.jpg", encode(noise_image(number, (120, 90)))) for number in range(40)]


def test_pixels_come_in_the_order_of_the_photos_as_they_are_decoded_elsewhere(
    decoders: ShardDecoders, photos: list[ShardPhoto], tmp_path: Path
) -> None:
    photos[3] = _photo(tmp_path / "none.jpg", b"no photo")
    photos[7] = photos[7].model_copy(update={"sha256": "0" * 64})
    photos[9] = photos[9].model_copy(update={"path": str(tmp_path / "gone.jpg")})
    with decoders.decoded(photos, _SPEC, _CACHE) as decoded:
        for number, (photo, pixels) in enumerate(zip(photos, decoded, strict=True)):
            match number:
                case 3:
                    assert pixels == "photo cannot be used: unsupported_format"
                case 7 | 9:
                    assert pixels == CHANGED
                case _:
                    assert np.array_equal(pixels, decode_photo(Path(photo.path).read_bytes(), _SPEC))


def test_one_process_decodes_shard_after_shard_and_ends_when_it_is_idle(
    decoders: ShardDecoders, photos: list[ShardPhoto], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_decoder, "_IDLE_S", 0.3)
    for _ in range(3):
        with decoders.decoded(photos, _SPEC, _CACHE) as decoded:
            assert len(list(decoded)) == len(photos)
    assert len(_processes()) == 1
    eventually(lambda: not _processes(), 10, "the idle process ends")
    with decoders.decoded(photos, _SPEC, _CACHE) as decoded:
        assert len(list(decoded)) == len(photos)


def test_a_shard_that_is_left_keeps_nothing_for_the_next(decoders: ShardDecoders, photos: list[ShardPhoto]) -> None:
    with decoders.decoded(photos, _SPEC, _CACHE) as decoded:
        next(decoded)
    assert not _processes()
    with decoders.decoded(photos[5:6], _SPEC, _CACHE) as decoded:
        (pixels,) = decoded
    assert np.array_equal(pixels, decode_photo(Path(photos[5].path).read_bytes(), _SPEC))


def test_a_process_that_ends_in_a_shard_is_told_as_a_lost_worker(
    decoders: ShardDecoders, photos: list[ShardPhoto]
) -> None:
    with decoders.decoded(photos * 20, _SPEC, _CACHE) as decoded:
        next(decoded)
        _processes()[0].kill()
        with pytest.raises(WorkerLost):
            list(decoded)
    assert not _processes()


def test_a_process_that_may_open_no_more_files_blames_no_photo(
    decoders: ShardDecoders, photos: list[ShardPhoto]
) -> None:
    with decoders.decoded(photos[:1], _SPEC, _CACHE) as decoded:
        list(decoded)
    process = _processes()[0]
    before = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds(), before[1]))
    with (
        decoders.decoded(photos, _SPEC, _CACHE) as decoded,
        pytest.raises(StoreUnavailable, match="Too many open files"),
    ):
        list(decoded)


def test_while_one_hangs_it_is_asked_whether_the_shard_is_wanted(
    decoders: ShardDecoders, photos: list[ShardPhoto], monkeypatch: pytest.MonkeyPatch
) -> None:
    unwanted = False

    def check() -> None:
        if unwanted:
            raise CancelledError

    monkeypatch.setattr(shard_decoder, "_ASKED_EVERY_S", 0.1)
    with decoders.decoded(photos * 20, _SPEC, _CACHE, check) as decoded:
        next(decoded)
        _processes()[0].suspend()
        unwanted = True
        with pytest.raises(CancelledError):
            list(decoded)
    assert not _processes()


def test_one_that_hangs_for_long_is_told_as_a_lost_worker(
    decoders: ShardDecoders, photos: list[ShardPhoto], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_decoder, "_ASKED_EVERY_S", 0.1)
    with decoders.decoded(photos * 20, _SPEC, _CACHE) as decoded:
        next(decoded)
        _processes()[0].suspend()
        monkeypatch.setattr(shard_decoder, "_SILENT_S", 0.2)
        with pytest.raises(WorkerLost):
            list(decoded)
    assert not _processes()


def test_one_that_does_not_start_or_is_of_another_build_is_no_fault_of_a_photo(
    decoders: ShardDecoders, photos: list[ShardPhoto], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"_READY": b"0", "__name__": "worker.tasks.gone"}.items():
        monkeypatch.setattr(shard_decoder, name, value)
        with (
            pytest.raises(InternalError, match="does not start"),
            decoders.decoded(photos, _SPEC, _CACHE),
        ):
            pass
    assert not _processes()


def test_one_that_is_killed_before_it_has_begun_is_started_again(
    decoders: ShardDecoders, photos: list[ShardPhoto], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_ready = shard_decoder._Decoder.is_ready
    killed: list[shard_decoder._Decoder] = []

    def killed_at_first(decoder: shard_decoder._Decoder, check: Callable[[], None]) -> bool:
        if len(killed) < 2:
            decoder._process.kill()
            killed.append(decoder)
        return is_ready(decoder, check)

    monkeypatch.setattr(shard_decoder._Decoder, "is_ready", killed_at_first)
    with decoders.decoded(photos, _SPEC, _CACHE) as decoded:
        assert len(list(decoded)) == len(photos)
    assert len(_processes()) == 1


def test_one_that_was_killed_while_idle_is_replaced(decoders: ShardDecoders, photos: list[ShardPhoto]) -> None:
    with decoders.decoded(photos, _SPEC, _CACHE) as decoded:
        list(decoded)
    (process,) = _processes()
    process.kill()
    with decoders.decoded(photos, _SPEC, _CACHE) as decoded:
        assert len(list(decoded)) == len(photos)
    assert len(_processes()) == 1


def test_it_gives_way_and_outlives_a_signal_to_the_whole_group(
    decoders: ShardDecoders, photos: list[ShardPhoto]
) -> None:
    with decoders.decoded(photos * 20, _SPEC, _CACHE) as decoded:
        next(decoded)
        (process,) = _processes()
        assert process.nice() > psutil.Process().nice()
        for asked_to_stop in (signal.SIGTERM, signal.SIGINT):
            process.send_signal(asked_to_stop)
        assert len(list(decoded)) == 20 * len(photos) - 1


def test_a_store_that_does_not_answer_is_told(
    decoders: ShardDecoders, photos: list[ShardPhoto], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    away = ShardPhoto(path="s3://photos/1.jpg", sha256="0" * 64)
    with pytest.raises(StoreUnavailable), decoders.decoded([*photos, away], _SPEC, tmp_path) as decoded:
        list(decoded)
