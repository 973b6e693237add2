"""Brings the colours of photos to sRGB, by their ICC profile or by the code of their colour space.

A photo of RGB or grey without a profile, or with one of sRGB, keeps its pixels bit by bit.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageCms

from shared.photos.formats import DECODER_ERRORS

_Matrix = npt.NDArray[np.float64]

# Modes, and what a profile of them says that it is of. One of another says nothing about their pixels.
_RGB, _GREY, _CMYK = b"RGB ", b"GRAY", b"CMYK"
_SPACES = dict.fromkeys(("RGB", "RGBA", "RGBX", "P", "PA"), _RGB)
_SPACES |= dict.fromkeys(("L", "LA", "I;16", "I;16B"), _GREY) | {"CMYK": _CMYK}
_MODES = {_RGB: "RGB", _GREY: "L", _CMYK: "CMYK"}
_MAX_PROFILE_BYTES = 4 << 20
_MOST_PROFILES = 16
# A profile that moves the probe by less is one of sRGB: the many of them differ in rounding and in the darkest tones.
_SRGB_LEVELS = 8
_PROBE_STEP = 51

_D50 = np.array([0.96422, 1.0, 0.82521])
_D65_XY = (0.3127, 0.3290)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
# ITU-T H.273: colour primaries (red, green, blue as x, y) that are wider than sRGB.
_PRIMARIES = {
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),  # BT.2020
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}
# Transfer characteristics: g, a, b, c, d of ICC's parametric curve, type 3.
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_BT709_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_CURVES = {1: _BT709_CURVE, 6: _BT709_CURVE, 14: _BT709_CURVE, 15: _BT709_CURVE, 2: SRGB_CURVE, 13: SRGB_CURVE}


def to_srgb(image: Image.Image, mode: str, info: dict[str | tuple[int, int], Any]) -> Image.Image:
    """Convert a photo's colours to sRGB.

    Building a transform takes milliseconds and is done once a profile; applying it to a photo that has been reduced
    takes less than two.

    Args:
        image: the scaled photo in RGB, or in CMYK.
        mode: of the photo as it was decoded.
        info: of the decoded photo; `icc_profile`, or `cicp`: the codes of primaries and transfer (ITU-T H.273).

    Returns:
        the photo in RGB; its colours are as they are, if there is no profile of its mode that can be read and differs
        from sRGB. Those of CMYK are then taken as the complement of RGB.
    """
    space = _SPACES.get(mode)
    profile = info.get("icc_profile") or (_coded_profile(*info.get("cicp", (1, 13))) if space == _RGB else None)
    if not space or not isinstance(profile, bytes) or not _is_of(profile, space):
        return image.convert("RGB")
    transform = _transform(profile, space)
    return transform.apply(image.convert(_MODES[space])) if transform else image.convert("RGB")


def set_colour_codes(image: Image.Image, photo: bytes) -> None:
    """Keep the codes of a photo's primaries and transfer in `info["cicp"]`, where its file has them (nclx, cICP).

    Args:
        image: opened.
        photo: its file.
    """
    if image.format == "HEIF":
        profile = image.info.get("nclx_profile") or {}
        image.info["cicp"] = profile.get("color_primaries", 1), profile.get("transfer_characteristics", 13)
        return
    if image.format == "AVIF" and (at := photo.find(b"colrnclx")) >= 0:
        codes = photo[at + 8 : at + 12]
    elif image.format == "PNG" and (at := photo.find(b"\0\0\0\x04cICP", 0, photo.find(b"IDAT"))) >= 0:
        codes = bytes([0, photo[at + 8], 0, photo[at + 9]])
    else:
        return
    image.info["cicp"] = struct.unpack(">HH", codes)


def matrix_profile(
    primaries: Sequence[tuple[float, float]], white: tuple[float, float], curve: Sequence[float]
) -> bytes:
    """Make an ICC profile (version 4) of an RGB space.

    Args:
        primaries: x, y of red, green and blue.
        white: x, y of white.
        curve: g, a, b, c, d of the parametric curve, type 3 (ICC.1:2022, 10.18): (a x + b)^g from d on, below it c x.
    """
    colorants = _columns(primaries)
    white_xyz = _columns([white])[:, 0]
    colorants *= np.linalg.solve(colorants, white_xyz)
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ white_xyz)
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ colorants
    trc = b"para" + struct.pack(">IHH", 0, 3, 0) + _fixed(curve)
    tags = {b"wtpt": _xyz(_D50), b"rTRC": trc, b"gTRC": trc, b"bTRC": trc}
    tags |= {name: _xyz(adapted[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    table, content, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, tag in tags.items():
        table += name + struct.pack(">II", start + len(content), len(tag))
        content += tag.ljust(-(-len(tag) // 4) * 4, b"\0")
    header = struct.pack(">I4sI4s4s4s", start + len(content), b"", 0x04300000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + _fixed(_D50)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + content


def _is_of(profile: bytes, space: bytes) -> bool:
    return len(profile) <= _MAX_PROFILE_BYTES and profile[16:20] == space


@lru_cache(_MOST_PROFILES)
def _coded_profile(primaries: int, transfer: int) -> bytes | None:
    """Profile of a wide colour space by its codes; None for sRGB's primaries and for curves of high dynamic range."""
    if primaries not in _PRIMARIES or transfer not in _CURVES:
        return None
    return matrix_profile(_PRIMARIES[primaries], _D65_XY, _CURVES[transfer])


@lru_cache(_MOST_PROFILES)
def _transform(profile: bytes, space: bytes) -> ImageCms.ImageCmsTransform | None:
    """Build the transform from a profile to sRGB; None if it is damaged, or one of sRGB itself."""
    # Black of print is grey on a screen, and was made from a screen's black: that it is again, as viewers have it.
    black = ImageCms.Flags.BLACKPOINTCOMPENSATION if space == _CMYK else ImageCms.Flags.NONE
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            _MODES[space],
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.NOCACHE | black,  # threads share it
        )
        probe = _probe().convert(_MODES[space])
        moved = np.asarray(ImageChops.difference(probe.convert("RGB"), transform.apply(probe)))
    except (ImageCms.PyCMSError, *DECODER_ERRORS):
        return None
    return transform if moved.max() > _SRGB_LEVELS else None


def _probe() -> Image.Image:
    levels = np.arange(0, 256, _PROBE_STEP, dtype=np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3))


def _columns(chromaticities: Sequence[tuple[float, float]]) -> _Matrix:
    """XYZ, with Y = 1, of each pair of x and y: one column each."""
    return np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in chromaticities]).T


def _fixed(values: Sequence[float] | _Matrix) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65_536)) for value in values)


def _xyz(values: _Matrix) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(values)
