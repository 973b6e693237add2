"""Make upright working copies of photos with their sizes and hashes, and find near duplicates across listings."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import BytesIO
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.building.embed import Progress
from shared.atomic_files import write_atomically
from shared.catalogue.categories import CataloguePhoto
from shared.catalogue.decode import CHANGED, ahead
from shared.cores import n_cores
from shared.duplicates.groups import components, joining_pairs
from shared.duplicates.looks import dhash
from shared.errors import InputError
from shared.exhaustion import raise_exhaustion
from shared.photos.images import WORKING_SIDE_PX, open_photo, upright
from shared.progress import progress_bar

# Measured on 2,527 real photos: all 170 pairs across listings up to here show the same picture, 42 of them with 13 to
# 15 bits between them; the next pair (18 bits) and nearly all beyond it do not.
NEAR_BITS = 15
# A dHash sees where brightness rises, so that different things cut out on white look alike to it: 2 of 100 pairs of
# drawn ones. A second measure must agree. Thumbnails of copies (JPEG 40, a third of the size) differ by up to 3 levels
# where drawn and 7 where real, those of drawn cut-outs of near dHash by 6 and nearly all by 16 and more. pHashes of
# real copies differ in up to 18 bits, also where colours changed; for flat drawn shapes they are unstable. Of those 170
# real pairs 162 are confirmed; the others are one photo, a logo drawn otherwise (14 levels, 52 bits).
NEAR_LEVELS = 8
NEAR_PHASH_BITS = 18
_THUMBNAIL_PX = 8
_QUALITY = 95
_FULL_COLOUR = 0  # Pillow's name for 4:4:4
_AHEAD = 64
_COMPARED_AT_ONCE = 1 << 22  # eight bytes each
_CONFIRMED_AT_ONCE = 1 << 18
_COPY = re.compile(r"\.?[0-9a-f]{64}\.(jpg|tmp|jpg\.tmp)")  # with what killed runs of any version leave half written


@dataclass(frozen=True, slots=True)
class Picture:
    """Size and perceptual hash of a photo that can be decoded.

    Attributes:
        width, height: as stored, before the EXIF orientation is applied.
        dhash: 128 bits in hexadecimal: whether brightness rises from each cell of an 8 x 8 grid to the next one
            along its row (64 bits), and to the next one down its column (64 bits).
        phash: 256 bits in hexadecimal: which of its 16 x 16 lowest frequencies are above their median.
        thumbnail: its mean colours on an 8 x 8 grid, 192 bytes in hexadecimal.
    """

    width: int
    height: int
    dhash: str
    phash: str = ""
    thumbnail: str = ""


@dataclass(frozen=True, slots=True)
class Unusable:
    """A photo that cannot be used: the reason, which rows are counted by, and what was found in its file."""

    reason: str
    detail: str = ""


class NearDuplicate(NamedTuple):
    """Two photos of different listings that show the same picture.

    Attributes:
        image_a, image_b: image ids, sorted.
        listing_a, listing_b: their listings.
        distance: bits in which their dHashes differ.
        same_file: whether both are the same bytes.
    """

    image_a: str
    image_b: str
    listing_a: str
    listing_b: str
    distance: int
    same_file: bool


_CHANGED = Unusable(CHANGED)


def working_copy(directory: Path, sha256: str) -> Path:
    """Path of a photo's working copy: a JPEG without chroma subsampling, at most WORKING_SIDE_PX on its longer side."""
    return directory / "photos" / sha256[:2] / f"{sha256}.jpg"


def prepare_photos(
    photos: Sequence[CataloguePhoto], directory: Path, *, progress: Progress = progress_bar
) -> dict[str, Picture | Unusable]:
    """Make the working copies that are missing, and remove those of photos that are gone.

    A killed run is continued by the next: each photo is noted once its copy is complete.

    Args:
        photos: of the catalogue.
        directory: of the cleaned catalogue; copies go into `photos/`, notes into `cache/pictures.jsonl`.
        progress: wraps the iteration over missing photos.

    Returns:
        by the file's sha256: size and hash of each photo, or why it cannot be used.
    """
    wanted = {photo.sha256: photo for photo in photos}
    notes = directory / "cache" / "pictures.jsonl"
    copies = _remove_stale_copies(directory, wanted)
    known = {
        sha256: picture
        for sha256, picture in _read_notes(notes).items()
        if sha256 in wanted and (sha256 in copies or isinstance(picture, Unusable))
    }
    notes.parent.mkdir(parents=True, exist_ok=True)
    missing = [photo for sha256, photo in wanted.items() if sha256 not in known]
    if not missing:
        return known
    with ThreadPoolExecutor(n_cores(), thread_name_prefix="photos") as pool, notes.open("a") as file:
        file.write("\n")  # ends a line that a kill has cut
        made = ahead(pool, lambda photo: _prepare(photo, directory), missing, n_ahead=_AHEAD)
        for photo, picture in progress(made, total=len(missing), desc="photos"):
            known[photo.sha256] = picture
            if picture != _CHANGED:  # that was not the photo of this sha256
                file.write(_note(photo.sha256, picture))
                file.flush()
    return known


def _prepare(photo: CataloguePhoto, directory: Path) -> Picture | Unusable:
    try:
        content = photo.path.read_bytes()
    except OSError as exc:
        raise_exhaustion(exc)
        return _CHANGED
    if hashlib.sha256(content).hexdigest() != photo.sha256:
        return _CHANGED
    try:
        image = open_photo(content)
        size = image.size
        copy = upright(image, WORKING_SIDE_PX)
    except InputError as error:
        return Unusable(f"photo cannot be used: {error.code}", str(error))
    path = working_copy(directory, photo.sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = BytesIO()
    copy.save(encoded, "JPEG", quality=_QUALITY, subsampling=_FULL_COLOUR)
    with write_atomically(path) as temporary:
        temporary.write_bytes(encoded.getvalue())
    return Picture(*size, dhash(copy), str(imagehash.phash(copy, hash_size=16)), thumbnail(copy))


def thumbnail(image: Image.Image) -> str:
    """Compute the mean colours of a picture on a coarse grid, see `Picture.thumbnail`."""
    size = (_THUMBNAIL_PX, _THUMBNAIL_PX)
    return image.convert("RGB").resize(size, Image.Resampling.BOX).tobytes().hex()


def near_duplicates(photos: Sequence[CataloguePhoto], pictures: Mapping[str, Picture]) -> list[NearDuplicate]:
    """Find pairs of photos of different listings that are the same file or look the same.

    Those look the same whose dHashes are at most NEAR_BITS apart, and whose thumbnails or pHashes agree.

    Where two groups of equal photos are large, not every pair is listed, but enough to connect them all.

    Args:
        photos: of the catalogue.
        pictures: by sha256, for each of them.

    Returns:
        each pair once, sorted.
    """
    groups: dict[tuple[str, ...], list[CataloguePhoto]] = defaultdict(list)
    for photo in photos:
        picture = pictures[photo.sha256]
        looks = picture.dhash, picture.phash, picture.thumbnail
        groups[(photo.sha256,) if _featureless(picture.dhash) else looks].append(photo)
    seen = [key for key in groups if len(key) > 1]
    near = [(key, key, 0) for key in groups]
    near += [(seen[i], seen[j], distance) for i, j, distance in _near_pairs(seen)]
    pairs = set()
    for key, other_key, distance in near:
        for one, other in joining_pairs(groups[key], groups[other_key]):
            a, b = sorted((one, other), key=attrgetter("image_id"))
            if a.listing_id != b.listing_id:
                ids = a.image_id, b.image_id, a.listing_id, b.listing_id
                pairs.add(NearDuplicate(*ids, distance, a.sha256 == b.sha256))
    return sorted(pairs)


def largest_group(pairs: Sequence[NearDuplicate], *, at_least: float) -> frozenset[str]:
    """Find the largest group of photos that near duplicates connect, also through others.

    Args:
        pairs: as `near_duplicates` finds them.
        at_least: only groups of more photos count.

    Returns:
        the image ids; empty if there is no such group.
    """
    largest = max(components((pair.image_a, pair.image_b) for pair in pairs), key=len, default=set())
    return frozenset(largest) if len(largest) > at_least else frozenset()


def _near_pairs(looks: Sequence[tuple[str, ...]]) -> Iterator[tuple[int, int, int]]:
    """Positions i < j and dHash distance of every two pictures that look the same, given by dHash, pHash, thumbnail."""
    words = _words([dhash for dhash, *_ in looks])
    agree = _Agreement(looks)
    n_rows = max(1, _COMPARED_AT_ONCE // max(1, len(words)))
    for start in range(0, len(words), n_rows):
        rows, rest = words[start : start + n_rows, None], words[None, start:]
        differ = rows[..., 0] ^ rest[..., 0]  # (n_rows, n)
        distance = np.bitwise_count(differ)
        distance += np.bitwise_count(np.bitwise_xor(rows[..., 1], rest[..., 1], out=differ))
        ones, others = np.nonzero(distance <= NEAR_BITS)
        ones, others = ones[ones < others], others[ones < others]
        sure = agree(start + ones, start + others)
        for one, other in zip(ones[sure].tolist(), others[sure].tolist(), strict=True):
            yield start + one, start + other, int(distance[one, other])


class _Agreement:
    """Tells whether the thumbnails or the pHashes of pictures agree.

    Args:
        looks: dHash, pHash and thumbnail of each.
    """

    def __init__(self, looks: Sequence[tuple[str, ...]]) -> None:
        self._phashes = np.zeros((len(looks), 4), np.uint64)
        self._thumbnails = np.zeros((len(looks), 3 * _THUMBNAIL_PX**2), np.float32)
        for row, (_, phash, thumbnail) in enumerate(looks):
            if phash:  # without it, as with an empty one, there is nothing to disagree
                self._phashes[row] = np.frombuffer(bytes.fromhex(phash), np.uint64)
                self._thumbnails[row] = np.frombuffer(bytes.fromhex(thumbnail), np.uint8)
        self._squares = np.square(self._thumbnails).sum(axis=1)

    def __call__(self, ones: npt.NDArray[np.intp], others: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        """Compare the pictures at some positions with those at others, pair by pair."""
        agreed = np.zeros(len(ones), dtype=np.bool_)
        for start in range(0, len(ones), _CONFIRMED_AT_ONCE):
            a, b = ones[start : start + _CONFIRMED_AT_ONCE], others[start : start + _CONFIRMED_AT_ONCE]
            bits = np.bitwise_count(self._phashes[a] ^ self._phashes[b]).sum(axis=1)
            agreed[start : start + len(a)] = (bits <= NEAR_PHASH_BITS) | (self._levels(a, b) <= NEAR_LEVELS**2)
        return agreed

    def _levels(self, a: npt.NDArray[np.intp], b: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """Mean squares of the differences between thumbnails, pair by pair."""
        (rows, row), (columns, column) = np.unique(a, return_inverse=True), np.unique(b, return_inverse=True)
        # Where most rows meet most columns, as with cut-outs, one matrix product is the faster way.
        if 8 * len(a) > len(rows) * len(columns):
            products = (self._thumbnails[rows] @ self._thumbnails[columns].T)[row, column]
        else:
            products = np.einsum("nd,nd->n", self._thumbnails[a], self._thumbnails[b])
        levels: npt.NDArray[np.float32] = (self._squares[a] + self._squares[b] - 2 * products) / self._thumbnails.shape[
            1
        ]
        return levels


def _words(hashes: Sequence[str]) -> npt.NDArray[np.uint64]:
    return np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint64).reshape(-1, 2)


def _featureless(picture_hash: str) -> bool:
    """Whether a hash is within NEAR_BITS of that of a blank picture or a plain gradient.

    Such pictures (a white page with a dot, a sky) would all count as duplicates. None of 2,527 real photos is one.
    """
    along, down = (int(digits, 16).bit_count() for digits in (picture_hash[:16], picture_hash[16:]))
    return min(along, 64 - along) + min(down, 64 - down) <= NEAR_BITS


def _remove_stale_copies(directory: Path, wanted: Mapping[str, CataloguePhoto]) -> set[str]:
    """Remove copies of photos that are not wanted and those half written; returns the sha256 of the others."""
    found = [path for path in (directory / "photos").glob("??/*") if _COPY.fullmatch(path.name)]
    for path in found:
        if path.stem not in wanted or path.suffix == ".tmp":
            path.unlink()
    return {path.stem for path in found if path.stem in wanted and path.suffix == ".jpg"}


def _note(sha256: str, picture: Picture | Unusable) -> str:
    return json.dumps([sha256, asdict(picture)]) + "\n"


def _read_notes(notes: Path) -> dict[str, Picture | Unusable]:
    known: dict[str, Picture | Unusable] = {}
    for line in notes.read_bytes().splitlines() if notes.is_file() else []:
        try:
            sha256, facts = json.loads(line)
            picture = Unusable(**facts) if "reason" in facts else Picture(**facts)
            if isinstance(picture, Unusable) or picture.thumbnail:  # else an earlier version noted less
                known[sha256] = picture
        except (ValueError, TypeError):  # cut by a kill, or written by another version
            continue
    return known
