"""What `lookalike up` says when it is ready, and where it cannot listen."""

from pathlib import Path

import pytest

from pipeline.building.index import Prepared
from pipeline.local.up import _banner, _check_port
from shared.errors import CannotStart
from shared.model.bundle import Runtime
from shared.settings import Settings


@pytest.mark.parametrize("photo", ["Images/lot 2/0020.webp", "sets/1/pic.JPG"])
def test_the_photo_to_try_is_one_of_the_index_wherever_it_lies(tmp_path: Path, photo: str) -> None:
    catalogue = tmp_path / "catalogue"
    (catalogue / photo).parent.mkdir(parents=True)
    (catalogue / photo).touch()
    settings = Settings(home=tmp_path / "home", catalogue=str(catalogue))
    of = ("b", "i", 1, "catalogue", "resnet50")
    prepared = Prepared(*of, None, {}, built=False, outdated=False, photo=photo, runtime=Runtime.OPENVINO)
    assert f"image=@{catalogue / photo}" in _banner(settings, "http://127.0.0.1:8080", prepared)[-1].replace("'", "")


def test_a_host_that_is_none_is_told_in_words() -> None:
    with pytest.raises(CannotStart, match=r"cannot listen on nowhere\.invalid:8080 \((?!Unknown error).*known"):
        _check_port(Settings(host="nowhere.invalid"))
