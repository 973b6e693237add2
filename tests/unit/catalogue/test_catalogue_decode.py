"""Photos of a catalogue are read while others are decoded"""

import threading

from shared.catalogue.decode import CHANGED, decode_file
from shared.photos.images import PreprocessSpec
from tests.conftest import encode, noise_image


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
