"""Activations on disk: computed once, whatever interrupts it, and never more of them than there is room for."""

import os
import resource
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from pipeline.training.network import activations
from pipeline.training.network.activations import Activations, activations_key, evict_activations
from pipeline.training.network.dataset import Augmentation, PhotoViews, View
from shared.array_types import FloatArray
from shared.catalogue.categories import CataloguePhoto
from shared.errors import ArtifactUnwritable
from shared.photos.images import Pixels, PreprocessSpec
from tests.conftest import encode, noise_image

SPEC = PreprocessSpec(size_px=32)
N_PHOTOS = 5
WANTED: list[View] = [(row, view) for view in (1, 2) for row in range(N_PHOTOS)]


class Usage(NamedTuple):
    free: int


@pytest.fixture
def views(tmp_path: Path) -> PhotoViews:
    photos = []
    for n in range(N_PHOTOS):
        path = tmp_path / f"{n}.jpg"
        path.write_bytes(encode(noise_image(n)))
        photos.append(CataloguePhoto(f"p{n}", f"l{n}", 0, path, f"{n:064x}"))
    return PhotoViews(photos, lambda photo: Path(str(photo.path)), SPEC, Augmentation(), seed=1)


class Front:
    """Means of the colours of each quarter, (2, 2, 3); counts the views it is shown."""

    def __init__(self) -> None:
        self.n_views = 0

    def __call__(self, pixels: Pixels) -> list[FloatArray]:
        self.n_views += len(pixels)
        return [pixels.reshape(len(pixels), 2, 16, 2, 16, 3).mean((2, 4), dtype=np.float32)]


def filled(directory: Path, views: PhotoViews, wanted: Sequence[View], front: Front) -> Activations:
    found = Activations(directory, [photo.sha256 for photo in views.photos], (2, 2, 3))
    found.fill(views, wanted, lambda: front, lambda _: None)
    return found


def test_records_are_what_the_front_gave_to_half_precision(views: PhotoViews, tmp_path: Path) -> None:
    found = filled(tmp_path / "a", views, WANTED, Front())
    expected = Front()(views.__getitems__([(3, 2), (0, 1)]).numpy())[0]
    # float16 keeps eleven bits.
    np.testing.assert_allclose(found.__getitems__([(3, 2), (0, 1)]).numpy(), expected, rtol=2**-11)


def test_what_is_there_is_not_computed_again_and_what_is_new_is_added(views: PhotoViews, tmp_path: Path) -> None:
    front = Front()
    before = filled(tmp_path / "a", views, WANTED[:4], front).__getitems__(WANTED[:4])
    after = filled(tmp_path / "a", views, WANTED, front)
    assert front.n_views == len(WANTED)
    assert (after.__getitems__(WANTED[:4]) == before).all()


def test_photos_of_the_same_bytes_share_a_record(views: PhotoViews, tmp_path: Path) -> None:
    views.photos = [views.photos[0]] * N_PHOTOS
    front = Front()
    assert len(filled(tmp_path / "a", views, WANTED, front)) == front.n_views == 2


@pytest.mark.parametrize("n_lost", [1, 30, 70, 71, 200])
@pytest.mark.parametrize("name", ["values.f16", "rows.txt"])
def test_records_cut_short_by_a_kill_are_computed_again(
    name: str, n_lost: int, views: PhotoViews, tmp_path: Path
) -> None:
    whole = filled(tmp_path / "a", views, WANTED, Front()).__getitems__(WANTED)
    path = tmp_path / "a" / name
    os.truncate(path, max(0, path.stat().st_size - n_lost))
    assert (filled(tmp_path / "a", views, WANTED, Front()).__getitems__(WANTED) == whole).all()


def test_without_room_on_the_disk_nothing_is_begun(
    views: PhotoViews, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(activations._SPARE_BYTES + 10))
    with pytest.raises(ArtifactUnwritable, match="make room"):
        filled(tmp_path / "a", views, WANTED, Front())


def test_a_disk_that_fills_up_is_told_and_what_was_written_is_kept(views: PhotoViews, tmp_path: Path) -> None:
    filled(tmp_path / "a", views, WANTED[:4], Front())
    values = (tmp_path / "a" / "values.f16").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error instead
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(values) + 30, limits[1]))
    try:
        with pytest.raises(ArtifactUnwritable, match="cannot be written"):
            filled(tmp_path / "a", views, WANTED, Front())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    front = Front()
    filled(tmp_path / "a", views, WANTED, front)
    assert front.n_views == len(WANTED) - 4


@pytest.mark.parametrize(
    "change",
    [
        lambda: activations_key("other", SPEC, Augmentation(), 1),
        lambda: activations_key("front", PreprocessSpec(size_px=64), Augmentation(), 1),
        lambda: activations_key("front", SPEC, Augmentation(hue=0.5), 1),
        lambda: activations_key("front", SPEC, Augmentation(), 2),
    ],
)
def test_whatever_decides_a_record_decides_the_directory(change: Callable[[], str]) -> None:
    assert change() != activations_key("front", SPEC, Augmentation(), 1)


def test_old_sets_and_those_beyond_the_limit_are_removed_and_never_the_one_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "MAX_BYTES", 250)
    now = (tmp_path).stat().st_mtime
    for name, age_s in {"used": 90 * 86_400, "young": 10, "older": 100, "ancient": 40 * 86_400}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "values.f16").write_bytes(bytes(100))
        os.utime(tmp_path / name, (now - age_s, now - age_s))
    evict_activations(tmp_path, keep="used")
    assert {path.name for path in tmp_path.iterdir()} == {"used", "young"}
