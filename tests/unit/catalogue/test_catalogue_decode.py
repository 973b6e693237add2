"""Photos of a catalogue are read while others are decoded"""

import threading
from pathlib import Path

import pytest

from shared.catalogue.decode import CHANGED, decode_file
from shared.catalogue.scan import PhotoDigests, Stat
from shared.photos.images import PreprocessSpec
from tests.conftest import encode, noise_image
from tests.support.limits import no_more_files


class Photo:
    """Refuses to be read while somebody decodes."""

    def __init__(self, decoding: threading.Lock) -> None:
        self._decoding = decoding

    def read_bytes(self) -> bytes:
        assert not self._decoding.locked()
        return encode(noise_image())


def test_a_photo_is_read_before_it_waits_for_its_turn_to_be_decoded() -> None:
    decoding = threading.Lock()
    assert not isinstance(decode_file(Photo(decoding), PreprocessSpec(), turn=decoding), str)
    assert decode_file(Photo(decoding), PreprocessSpec(), "0" * 64, turn=decoding) == CHANGED
    assert not decoding.locked()


def test_a_photo_for_which_no_more_files_may_be_opened_does_not_count_as_gone(tmp_path: Path) -> None:
    photo = tmp_path / "a.jpg"
    photo.write_bytes(encode(noise_image()))
    with no_more_files():
        with pytest.raises(OSError, match="Too many open files"):
            decode_file(photo, PreprocessSpec())
        with pytest.raises(OSError, match="Too many open files"):
            PhotoDigests().read([(str(photo), Stat(1, 1, 1))])
    assert decode_file(tmp_path / "b.jpg", PreprocessSpec()) == CHANGED
    assert PhotoDigests().read([(str(tmp_path / "b.jpg"), Stat(1, 1, 1))]) == [""]
