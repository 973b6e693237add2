"""What Pillow leaves undone of a TIFF: to find the main page, and to say how deep grey is coded."""

from PIL import Image, TiffImagePlugin

from shared.photos.formats import DECODER_ERRORS, forget_xmp, unsupported

_REDUCED = 1  # bit of NewSubfileType: the page is a smaller copy of another one
_MAX_PAGES = 8  # looked at for the main one
_SUBFILE_TYPE = 254
_WHITE_IS_ZERO = 0  # photometric interpretation
_SEPARATE_PLANES = 2


def prepare_tiff(image: Image.Image) -> None:
    """Go to the main page of an opened TIFF: the first that is no reduced copy of another one.

    How the grey levels of a mode deeper than eight bits are coded is kept in `info`: `grey_bits`, and `white_is_zero`.
    Pillow turns the levels of eight bits only. Images of other formats are left as they are.

    Raises:
        UnsupportedFormat: colours of 16 bits in separate planes, of which Pillow would make noise.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    _seek_main_page(image)
    tags = image.tag_v2
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    if tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == _SEPARATE_PLANES and len(bits) > 1 and max(bits) > 8:
        raise unsupported(f"a TIFF of {max(bits)} bits a sample in separate planes")
    if image.mode.startswith("I") or image.mode == "F":
        image.info["grey_bits"] = max(bits)
        image.info["white_is_zero"] = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO


def _seek_main_page(image: TiffImagePlugin.TiffImageFile) -> None:
    try:
        for page in range(_MAX_PAGES):
            image.seek(page)
            if not image.tag_v2.get(_SUBFILE_TYPE, 0) & _REDUCED:
                return
        image.seek(0)
    except DECODER_ERRORS:  # there are no more pages, or they are damaged
        image.seek(0)
    finally:
        forget_xmp(image)
