"""Split a catalogue for training, and give photos as tensors, plain or augmented."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from shared.catalogue.categories import CataloguePhoto
from shared.catalogue.decode import decode_file
from shared.errors import CatalogueUnusable
from shared.model.bundle import Split
from shared.photos.images import Pixels, PreprocessSpec, render

PLAIN = 0  # the view of a photo that serving would see; every other number is an augmented one

View = tuple[int, int]  # the photo's row, and which view of it

_N_FOLDS = 10


def split_listings(
    photos: Sequence[CataloguePhoto], near_duplicates: Iterable[tuple[str, str]] = (), *, seed: int = 17
) -> Split:
    """Split listings by category into 80 % for training, 10 % for validation and 10 % for testing.

    Listings that share a photo or a near duplicate, also through others, stay on one side. With fewer than ten such
    groups all listings are for training, and no accuracy can be stated.

    Args:
        photos: of the catalogue.
        near_duplicates: pairs of image ids.
        seed: of the shuffling.
    """
    groups = linked_listings(photos, near_duplicates)
    listings = frozenset(photo.listing_id for photo in photos)
    if len(set(groups)) < _N_FOLDS:
        return Split(train=listings)
    labels = [photo.category for photo in photos]
    # Where every category is smaller than the number of folds there is nothing to stratify.
    tiny = max(Counter(labels).values()) < _N_FOLDS
    splitter = (GroupKFold if tiny else StratifiedGroupKFold)(_N_FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a small category cannot be on every side
        folds = [held_out for _, held_out in splitter.split(np.zeros(len(photos)), labels, groups)]
    test, validation = (frozenset(photos[row].listing_id for row in fold) for fold in folds[:2])
    return Split(train=listings - validation - test, validation=validation, test=test)


def require_every_side(split: Split) -> None:
    """Refuse a split in which some sides are empty and others are not; all for training is none.

    Args:
        split: of a catalogue.

    Raises:
        CatalogueUnusable: it is such a split.
    """
    if (split.validation or split.test) and not (split.train and split.validation and split.test):
        empty = " and ".join(name for name in ("train", "validation", "test") if not getattr(split, name))
        raise CatalogueUnusable(
            f"the catalogue cannot be split: nothing is left for {empty}, because too many listings show the same "
            "pictures and must stay together; see near_duplicates.csv of `lookalike clean`"
        )


def linked_listings(photos: Sequence[CataloguePhoto], near_duplicates: Iterable[tuple[str, str]] = ()) -> list[str]:
    """Group listings that share a photo or a near duplicate: for each photo the listing that represents its group."""
    parent = {photo.listing_id: photo.listing_id for photo in photos}

    def find(listing: str) -> str:
        while parent[listing] != listing:
            parent[listing] = listing = parent[parent[listing]]
        return listing

    listing_of = {photo.image_id: photo.listing_id for photo in photos}
    for one, other in near_duplicates:
        if one in listing_of and other in listing_of:
            parent[find(listing_of[one])] = find(listing_of[other])
    holder: dict[str, str] = {}
    for photo in photos:
        parent[find(photo.listing_id)] = find(holder.setdefault(photo.sha256 or photo.image_id, photo.listing_id))
    return [find(photo.listing_id) for photo in photos]


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
