"""Limits of size and memory for photos, checked in their headers before anything is decoded."""

from operator import mul

from PIL import Image, JpegImagePlugin, TiffImagePlugin

from shared.errors import PhotoTooHeavy, PhotoTooLarge, PhotoUndecodable

MAX_PIXELS = 64_000_000
MAX_SIDE_PX = 20_000
MAX_ASPECT = 200
# Estimated memory that decoding one photo may take.
MAX_DECODING_BYTES = 256 << 20
DECODED_BYTES = 4  # a pixel, in Pillow
# Environment of processes that decode. Blocks over 4 MiB go back to the system when they are freed; else glibc keeps
# the memory of the largest photo so far. Smaller blocks are reused for the next photo: new pages from the kernel took a
# quarter of the decoding time.
DECODER_MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "4194304", "MALLOC_TRIM_THRESHOLD_": "4194304"}
WEBP_BYTES = 16  # a pixel: two canvases of the animation, the frame, its copy in Pillow
# Canvas of an animation that later frames of are looked at; two megapixels fit into the decoder of small photos.
MAX_ANIMATION_PIXELS = 2_000_000
_ANIMATION_BYTES = 16  # a pixel
# A pixel: the planes and a turned copy of them, RGB, and its copy in Pillow. Ten bits take two bytes in the planes.
_HEIF_BYTES, _DEEP_HEIF_BYTES = 10, 13


def check_size(width: int, height: int, max_pixels: int) -> None:
    if min(width, height) < 1:
        raise PhotoUndecodable(f"the photo has no area ({width}x{height} px)")
    if width * height > max_pixels:
        raise PhotoTooLarge(f"{width}x{height} px exceeds {max_pixels} pixels; send a smaller copy")
    if max(width, height) > MAX_SIDE_PX:
        raise PhotoTooLarge(f"{width}x{height} px has a side longer than {MAX_SIDE_PX} px; send a smaller copy")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise PhotoTooLarge(f"{width}x{height} px is more than {MAX_ASPECT} times as long as wide; crop it")


def check_weight(size: tuple[int, int], image_format: str, n_bytes: int, max_bytes: int) -> None:
    shape = f"{size[0]}x{size[1]} px of {image_format} would need {n_bytes >> 20} MiB to decode"
    if n_bytes > MAX_DECODING_BYTES:
        raise PhotoTooLarge(f"{shape}; send a smaller copy or a plain JPEG")
    if n_bytes > max_bytes:
        raise PhotoTooHeavy(shape)


def decoding_bytes(image: Image.Image, n_scans: int) -> int:
    """Estimate the memory that decoding takes, per pixel and format, from measurements (Pillow 13), rounded up."""
    n_pixels = image.width * image.height
    if image.format == "WEBP":
        return WEBP_BYTES * n_pixels
    if image.format in ("GIF", "PNG", "AVIF") and n_pixels <= MAX_ANIMATION_PIXELS:
        return _ANIMATION_BYTES * n_pixels
    if image.format == "HEIF":
        return (_HEIF_BYTES if image.info.get("bit_depth", 8) == 8 else _DEEP_HEIF_BYTES) * n_pixels
    if image.format == "AVIF":
        return 12 * n_pixels
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        # Several scans need every coefficient kept, two bytes each; a single one is scaled as it is read.
        across, down = ([component[axis] for component in image.layer] for axis in (1, 2))
        n_coefficients = n_pixels * sum(map(mul, across, down)) // (max(across) * max(down))
        return 2 * n_coefficients if n_scans > 1 else n_pixels // 3
    return DECODED_BYTES * n_pixels + (_largest_block(image) if isinstance(image, TiffImagePlugin.TiffImageFile) else 0)


def _largest_block(image: TiffImagePlugin.TiffImageFile) -> int:
    """Bytes libtiff unpacks at once: a strip, or a tile, which may be larger than the photo."""
    tags = image.tag_v2
    rows = min(int(tags.get(TiffImagePlugin.ROWSPERSTRIP, image.height)), image.height)
    across, down = (int(tags.get(tag, 0)) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH))
    n_bits = sum(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    return max(image.width * rows, across * down) * max(n_bits, 32) // 8
