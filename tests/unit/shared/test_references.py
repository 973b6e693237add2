"""Reference photos: the same to the bit everywhere, and a bundle that has none says so"""

import hashlib

import numpy as np
import pytest

from shared.model.bundle import Precision, References
from shared.model.references import DRAWING, N_PHOTOS, UNVERIFIED, notice_of, reference_pixels
from shared.photos.images import PreprocessSpec
from tests.support.manifests import manifest

DIGESTS = {
    224: "a51a0659565ed3fb182a84364521e56f3dc27690556f1cc4e1043c35dd882f41",
    97: "8bb144ffa1d96649ca9a006855e7f3817db531a0d9456649e3c5710ad4054a86",
}
KNOWN = References(drawing=DRAWING, sha256="0" * 64)


@pytest.mark.parametrize(("size_px", "digest"), DIGESTS.items())
def test_the_reference_photos_are_the_same_bytes_on_every_machine(size_px: int, digest: str) -> None:
    pixels = reference_pixels(size_px)
    assert pixels.shape == (N_PHOTOS, size_px, size_px, 3)
    assert pixels.dtype == np.uint8
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == digest, "a changed drawing needs another name"


def test_reference_photos_differ_and_use_the_whole_range_of_values() -> None:
    pixels = reference_pixels(64)
    assert len({photo.tobytes() for photo in pixels}) == N_PHOTOS
    assert (pixels.min(), pixels.max()) == (0, 255)


@pytest.mark.parametrize(
    ("precision", "references", "said"),
    [
        (Precision.INT8, None, f"made up. {UNVERIFIED}"),
        (Precision.INT8, References(drawing="of a later version", sha256="0" * 64), f"made up. {UNVERIFIED}"),
        (Precision.INT8, KNOWN, "made up."),
        (Precision.FLOAT32, None, "made up."),
    ],
)
def test_an_int8_bundle_without_reference_photos_is_served_with_a_notice(
    precision: Precision, references: References | None, said: str
) -> None:
    made = manifest(PreprocessSpec(), precision=precision, references=references)
    assert notice_of(made.model_copy(update={"notice": "made up."})) == said
    assert notice_of(made) == (said.removeprefix("made up.").strip() or None)


def test_reference_photos_are_no_part_of_the_fingerprint() -> None:
    plain = manifest(PreprocessSpec())
    assert plain.compute_fingerprint() == plain.model_copy(update={"references": KNOWN}).compute_fingerprint()
