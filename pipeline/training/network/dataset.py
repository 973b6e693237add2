"""A catalogue's photos as tensors, plain or augmented."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from shared.catalogue.categories import CataloguePhoto
from shared.catalogue.decode import decode_file
from shared.errors import CatalogueUnusable
from shared.photos.images import Pixels, PreprocessSpec, render

PLAIN = 0  # the view of a photo that serving would see; every other number is an augmented one

View = tuple[int, int]  # the photo's row, and which view of it


@dataclass(frozen=True)
class Augmentation:
    """How much augmentation varies a photo. A thing that is turned or mirrored is still the same thing."""

    min_area: float = 0.5  # of the photo that is left, in the random crop
    stretch: float = 1.25  # the crop is at most so many times as wide, or as tall, as the photo's own shape
    p_mirror: float = 0.5
    p_upside_down: float = 0.1
    rotation_deg: float = 15
    colour: float = 0.2  # brightness, contrast and saturation are multiplied by 1 +- this
    hue: float = 0.02  # of the circle


def augment(image: Image.Image, how: Augmentation, rng: np.random.Generator, *, fill: int) -> Image.Image:
    """Make one random variation of an upright photo.

    Args:
        image: RGB.
        how: the ranges of the variation.
        rng: decides everything.
        fill: grey level of the corners that a rotation leaves empty.
    """
    area = image.width * image.height * rng.uniform(how.min_area, 1)
    shape = image.width / image.height * how.stretch ** rng.uniform(-1, 1)
    width = min(image.width, max(1, round((area * shape) ** 0.5)))
    height = min(image.height, max(1, round((area / shape) ** 0.5)))
    top, left = rng.integers(image.height - height + 1), rng.integers(image.width - width + 1)
    image = transforms.crop(image, int(top), int(left), height, width)
    if rng.random() < how.p_mirror:
        image = transforms.horizontal_flip(image)
    if rng.random() < how.p_upside_down:
        image = transforms.vertical_flip(image)
    angle = rng.uniform(-how.rotation_deg, how.rotation_deg)
    image = transforms.rotate(image, angle, interpolation=InterpolationMode.BILINEAR, fill=[fill] * 3)
    for adjust in (transforms.adjust_brightness, transforms.adjust_contrast, transforms.adjust_saturation):
        image = adjust(image, 1 + rng.uniform(-how.colour, how.colour))
    varied: Image.Image = transforms.adjust_hue(image, rng.uniform(-how.hue, how.hue))
    return varied


class PhotoViews(Dataset[Tensor]):
    """Dataset of views of photos, (S, S, 3) uint8 each; the same view always has the same pixels.

    Args:
        photos: one a row.
        working_copy: gives the path of a photo's upright copy, which augmented views are made from.
        spec: how pixels are preprocessed.
        augmentation: of every view but PLAIN.
        seed: of the augmentation.
    """

    def __init__(
        self,
        photos: Sequence[CataloguePhoto],
        working_copy: Callable[[CataloguePhoto], Path],
        spec: PreprocessSpec,
        augmentation: Augmentation,
        *,
        seed: int,
    ) -> None:
        self.photos, self.spec, self.augmentation, self.seed = photos, spec, augmentation, seed
        self._working_copy = working_copy
        # Pillow leaves Python's lock while it decodes and scales.
        self._pool = ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="views")

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, view: View) -> Tensor:
        return self.__getitems__([view])[0]

    def __getitems__(self, views: list[View]) -> Tensor:
        """The pixels of a batch of views, (n, S, S, 3) uint8; torch's DataLoader calls this where it can."""
        return torch.from_numpy(np.stack(list(self._pool.map(self._pixels, views))))

    def _pixels(self, view: View) -> Pixels:
        row, number = view
        photo = self.photos[row]
        if number == PLAIN:
            pixels = decode_file(photo.path, self.spec, photo.sha256)
            if isinstance(pixels, str):
                raise CatalogueUnusable(f"photo {photo.image_id}: {pixels}; start again to leave it out")
            return pixels
        rng = np.random.default_rng([self.seed, number, int(photo.sha256[:16], 16)])
        try:
            with Image.open(self._working_copy(photo)) as image:
                upright = image.convert("RGB")
        except OSError as exc:
            raise CatalogueUnusable(f"photo {photo.image_id}: its working copy is gone; clean again") from exc
        varied = augment(upright, self.augmentation, rng, fill=self.spec.fill)
        return render(varied, self.spec)
