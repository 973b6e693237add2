"""What Pillow leaves to its caller of a PNG: transparent levels of shallow grey, and colours by gamma and primaries."""

from contextlib import suppress

from PIL import Image

from shared.photos.colour import matrix_profile
from shared.photos.formats import DECODER_ERRORS

_DEPTH_AT = 24  # in the file: bits a sample, of IHDR
_SHALLOW = (2, 4)
_SRGB_GAMMA, _GAMMA_TOLERANCE, _PRIMARIES_TOLERANCE = 0.45455, 0.01, 0.002
_SRGB_PRIMARIES = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # white, red, green, blue: as cHRM has them
# Exponents that files are coded with: 0.45 as sRGB, 0.56 on older Macs, 1 for linear light. Others are errors.
_MIN_GAMMA, _MAX_GAMMA = 0.3, 1.1


def prepare_png(image: Image.Image, photo: bytes) -> None:
    """Correct what is known of an opened PNG before it is decoded; other images are left as they are.

    The transparent level of grey of two or four bits is scaled as its pixels are. Colours that are defined by gAMA and
    cHRM get the profile of that space: these count where there is no profile, sRGB chunk or code (PNG, third edition,
    4.3), as in browsers.

    Args:
        image: opened; `info` is changed.
        photo: its file.
    """
    if image.format != "PNG":
        return
    info, depth = image.info, photo[_DEPTH_AT]
    if depth in _SHALLOW and image.mode == "L" and isinstance(info.get("transparency"), int):
        info["transparency"] *= 255 // ((1 << depth) - 1)
    gamma, primaries = info.get("gamma", 0), info.get("chromaticity", _SRGB_PRIMARIES)
    is_defined = _MIN_GAMMA <= gamma <= _MAX_GAMMA and not info.keys() & {"icc_profile", "srgb", "cicp"}
    if is_defined and not _is_of_srgb(gamma, primaries):
        with suppress(*DECODER_ERRORS):  # primaries that span no space
            white, *colours = zip(primaries[::2], primaries[1::2], strict=True)
            info["icc_profile"] = matrix_profile(colours, white, (1 / gamma, 1, 0, 0, 0))


def _is_of_srgb(gamma: float, primaries: tuple[float, ...]) -> bool:
    differences = [abs(one - other) for one, other in zip(primaries, _SRGB_PRIMARIES, strict=True)]
    return abs(gamma - _SRGB_GAMMA) < _GAMMA_TOLERANCE and max(differences) < _PRIMARIES_TOLERANCE
