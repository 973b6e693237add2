"""Photos so large that they are reduced band by band, whatever their mode, against plain twins; seconds each."""

import numpy as np
import pytest
from PIL import Image

from shared.photos.images import Fit, Pixels, PreprocessSpec, decode_photo
from tests.conftest import encode, noise_image
from tests.unit.photos.test_fits import FITS
from tests.unit.photos.test_images import distance


def decode(photo: bytes, fit: Fit = "letterbox", size_px: int = 224) -> Pixels:
    return decode_photo(photo, PreprocessSpec(size_px=size_px, fit=fit))


# A large photo is reduced band by band where that saves memory; the plain one all at once. Bicubic over boxes of
# other sizes rounds differently, by less than a grey level.
@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "I;16", "1"])
def test_a_large_photo_of_an_odd_mode_gives_the_pixels_of_its_plain_twin(mode: str) -> None:
    image = noise_image(9, (4100, 3001))
    grey = image.convert("L")
    make = {
        "RGBA": lambda: image.convert("RGBA"),
        "P": lambda: image.quantize(64),
        "LA": lambda: grey.convert("LA"),
        "I;16": lambda: Image.fromarray(np.asarray(grey).astype(np.uint16) * 257),
        "1": lambda: grey.convert("1"),
    }
    made = make[mode]()
    plain = {"I;16": grey}.get(mode) or made.convert("L" if mode in ("LA", "1") else "RGB")
    assert distance(decode(encode(made, "PNG", compress_level=1)), decode(encode(plain, "PNG", compress_level=1))) < 1


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("mode", ["RGBA", "P", "I;16", "I"])
def test_a_photo_of_an_odd_mode_gives_the_pixels_of_its_plain_twin_whatever_the_fit(fit: Fit, mode: str) -> None:
    image = noise_image(9, (2100, 1201))
    grey = image.convert("L")
    levels = np.asarray(grey)
    make = {
        "RGBA": lambda: image.convert("RGBA"),
        "P": lambda: image.quantize(64),
        "I;16": lambda: Image.fromarray(levels.astype(np.uint16) * 257),
        "I": lambda: Image.fromarray(levels.astype(np.int32) * 257),
    }
    made = make[mode]()
    plain = grey if mode.startswith("I") else made.convert("RGB")
    assert distance(decode(encode(made, "TIFF"), fit, 160), decode(encode(plain, "TIFF"), fit, 160)) < 1
