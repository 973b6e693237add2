"""Which picture of an animation stands for it: the one that viewers show, not always the first of the file."""

import zlib
from collections.abc import Iterator

from PIL import Image, ImageFile, ImageStat

from shared.errors import PhotoUndecodable
from shared.photos.formats import DECODER_ERRORS, open_image
from shared.photos.limits import MAX_ANIMATION_PIXELS
from shared.photos.resize import flatten, resized, to_eight_bit

_ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
# Frames looked at: a few seconds of an animation, within a fraction of a second of a core's work.
_MAX_FRAMES = 32
_MAX_FRAMES_PIXELS = 16_000_000
_LOOK_PX = 64
_BLANK_LEVELS = 8  # a frame whose grey levels differ by less is one plain colour
_FULL_CONTRAST = 0.9  # of the highest found: a later frame with a little more is not worth waiting for


def without_hidden_picture(photo: bytes) -> bytes:
    """Replace the picture of an animated PNG that is no part of the animation by the animation's first frame.

    Browsers show the animation; the hidden picture is for programs that know no animations (PNG, third edition, 11.3.4:
    no fcTL before the first IDAT).

    Returns:
        a PNG of this one frame, of its size if it is smaller than the canvas; other files as they are.
    """
    if not photo.startswith(b"\x89PNG\r\n\x1a\n"):
        return photo
    head, frame, size = [], b"", b""
    animated, in_head, n_controls = False, True, 0
    for kind, content in _chunks(photo):
        animated |= kind == b"acTL"
        in_head &= kind != b"IDAT"
        n_controls += kind == b"fcTL"
        if (in_head and kind == b"fcTL") or (not in_head and not animated) or n_controls > 1 or kind == b"IEND":
            break
        if in_head and kind not in (b"acTL", b"IHDR"):
            head.append(_chunk(kind, content))
        elif kind == b"IHDR":
            depth_and_colour = content[8:]
        elif kind == b"fcTL":
            size = content[4:12]
        elif kind == b"fdAT" and size:
            frame += content[4:]
    if not frame:
        return photo
    header = _chunk(b"IHDR", size + depth_and_colour)
    return photo[:8] + header + b"".join(head) + _chunk(b"IDAT", frame) + _chunk(b"IEND", b"")


def seek_shown_frame(image: Image.Image, photo: bytes) -> None:
    """Go to the frame of an animation that stands for it: the first one, unless it is blank.

    Of an animation that begins with one plain colour, as those that fade in do, it is the first frame with nearly the
    highest contrast of all. It is looked for among 32 frames and 16 million pixels at most, of a canvas of at most
    `MAX_ANIMATION_PIXELS`.

    Args:
        image: opened, at its first frame.
        photo: its file.
    """
    n_pixels = image.width * image.height
    if image.format not in _ANIMATED or n_pixels > MAX_ANIMATION_PIXELS:
        return
    if image.format != "GIF" and getattr(image, "n_frames", 1) == 1:  # a GIF would be read to its end to count them
        return
    contrasts: list[float] = []
    try:
        probe = open_image(photo)  # apart, so that damage behind the first frame leaves the photo's image as it is
        for frame in range(min(_MAX_FRAMES, _MAX_FRAMES_PIXELS // n_pixels)):
            probe.seek(frame)
            contrasts.append(_contrast(probe))
            if contrasts[0]:
                return
    except DECODER_ERRORS:
        pass  # the end of the animation, or of what can be read of it
    highest = max(contrasts, default=0.0)
    if highest > 0:
        image.seek(next(i for i, contrast in enumerate(contrasts) if contrast >= _FULL_CONTRAST * highest))


def clear_uncovered(image: Image.Image) -> None:
    """Make transparent what the first frame of a GIF leaves uncovered of its canvas, as browsers show it.

    Pillow gives it the first colour of the palette. It gets the index that the frame uses least, mostly not at all.

    Args:
        image: opened; decoded if a part of the canvas is uncovered.

    Raises:
        PhotoUndecodable: truncated or corrupt.
    """
    if image.format != "GIF" or "transparency" in image.info or not isinstance(image, ImageFile.ImageFile):
        return
    covered = image.tile[0].extents if image.tile else None
    if image.tell() or not covered or covered == (0, 0, *image.size):
        return
    try:
        frame = image.crop(covered)
    except DECODER_ERRORS as exc:
        raise PhotoUndecodable("the GIF file is damaged or cut short") from exc
    uses = frame.histogram()
    least = uses.index(min(uses))
    image.paste(least, (0, 0, *image.size))
    image.paste(frame, covered)
    image.info["transparency"] = least


def _contrast(image: Image.Image) -> float:
    """Standard deviation of a frame's grey levels; 0 if it is one plain colour."""
    image.load()
    look = flatten(resized(to_eight_bit(image), (min(_LOOK_PX, image.width), min(_LOOK_PX, image.height))))
    if all(high - low < _BLANK_LEVELS for low, high in ImageStat.Stat(look).extrema):
        return 0.0
    return float(ImageStat.Stat(look.convert("L")).stddev[0]) or 1.0


def _chunks(photo: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 8
    while position + 8 <= len(photo):
        n_bytes = int.from_bytes(photo[position : position + 4], "big")
        yield photo[position + 4 : position + 8], photo[position + 8 : position + 8 + n_bytes]
        position += 12 + n_bytes


def _chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
