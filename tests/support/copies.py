"""Copies of photos as sellers and sites make them, and pictures to copy: for tests and the benchmark of duplicates."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

Rng = np.random.Generator


def recompressed(image: Image.Image, rng: Rng) -> Image.Image:
    return Image.open(BytesIO(jpeg(image, 40))).convert("RGB")


def cropped(image: Image.Image, rng: Rng) -> Image.Image:
    """A tenth of each side less, from anywhere."""
    width, height = image.size
    dx, dy = round(width * 0.1), round(height * 0.1)
    x, y = int(rng.integers(dx + 1)), int(rng.integers(dy + 1))
    return image.crop((x, y, x + width - dx, y + height - dy))


def mirrored(image: Image.Image, rng: Rng) -> Image.Image:
    return ImageOps.mirror(image)


def bordered(image: Image.Image, rng: Rng) -> Image.Image:
    colour = ((255, 255, 255), (0, 0, 0), (200, 30, 30))[int(rng.integers(3))]
    return ImageOps.expand(image, int(max(image.size) * rng.uniform(0.03, 0.08)), fill=colour)


def watermarked(image: Image.Image, rng: Rng) -> Image.Image:
    layer = Image.new("RGBA", image.size)
    size = max(12, image.width // 8)
    at = (image.width // 10, int(image.height * rng.uniform(0.1, 0.8)))
    font = ImageFont.load_default(size)
    ImageDraw.Draw(layer).text(at, "SELLER.EXAMPLE", font=font, fill=(255, 255, 255, 150))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def rotated(image: Image.Image, rng: Rng) -> Image.Image:
    """By 2 to 5 degrees either way, the corners filled."""
    degrees = rng.uniform(2, 5) * rng.choice([-1, 1])
    fill = ((255, 255, 255), (0, 0, 0))[int(rng.integers(2))]
    return image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=fill)


COPIES: dict[str, Callable[[Image.Image, Rng], Image.Image]] = {
    "recompressed": recompressed,
    "cropped": cropped,
    "mirrored": mirrored,
    "bordered": bordered,
    "watermarked": watermarked,
    "rotated": rotated,
}


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def scene(seed: int, size: tuple[int, int] = (256, 192)) -> Image.Image:
    """A picture with something to see everywhere: coarse and fine colours over one another."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        )
        for n in (4, 12, 30)
    ]
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


def cut_out(
    seed: int, size: tuple[int, int] = (256, 192), *, colour: tuple[int, int, int] | None = None
) -> Image.Image:
    """A plain thing on white, as shops show them: each of another shape, all alike to a coarse look."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, "white")
    width, height = size
    angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
    radii = rng.uniform(0.2, 0.42, 12)
    points = [
        (width / 2 + width * r * np.cos(a), height / 2 + height * r * np.sin(a))
        for a, r in zip(angles.tolist(), radii.tolist(), strict=True)
    ]
    drawn: tuple[int, int, int] = tuple(rng.integers(20, 200, 3).tolist())
    ImageDraw.Draw(image).polygon(points, fill=colour or drawn)
    return image
