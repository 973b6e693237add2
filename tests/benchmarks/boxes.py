"""Proposed boxes: what searches find by the best of them, in photos of two things and in plain photos.

Photos of a catalogue are put together in pairs, side by side or one above the other, of one size or one much smaller,
with and without a gap. Each thing is searched by the whole composite, by the proposal that overlaps it most, by that of
some fixed boxes, and by its own box; also by its clean photo. Counted are other photos of its listing among the first
four (recall@4) and neighbours of its category from other listings (precision@4). A plain photo is searched whole, and
by its first proposal, as if that were taken unseen. Nothing here is asserted.
"""

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from shared.array_types import FloatArray
from shared.artifacts.snapshots import bundle_store, index_store
from shared.index.snapshot import open_snapshot
from shared.model.bundle import open_bundle
from shared.model.proposals import Proposal, propose_boxes
from shared.model.runtimes import open_embedder
from shared.photos.boxes import Box
from shared.photos.images import open_photo, render, upright
from shared.settings import Backbone
from tests.benchmarks.support.installation import installed
from tests.benchmarks.support.report import RESULTS, Report

_SIDE_PX = 400
_BATCH = 16
_WHOLE = Box(0, 0, 1, 1)
_HALVES = [Box(0, 0, 0.5, 1), Box(0.5, 0, 0.5, 1), Box(0, 0, 1, 0.5), Box(0, 0.5, 1, 0.5)]
_FIXED = [*_HALVES, *(Box(x, y, 0.5, 0.5) for x in (0, 0.5) for y in (0, 0.5))]


class Thing(NamedTuple):
    """A photo of the index, where it is in a composite, and what else is there."""

    row: int
    box: Box
    rows: tuple[int, int]


def main() -> None:
    """Print tables; write `var/bench/boxes.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, help="an installation; default: one with drawn photos")
    parser.add_argument("--catalogue", type=Path, help="whose index that is")
    parser.add_argument("--n", type=int, default=100, help="composites of each kind, and plain photos")
    parser.add_argument("--quick", action="store_true", help="a few of each")
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    home = options.home or installed(Backbone.EFFICIENTNET_LITE0)
    n = 8 if options.quick else options.n
    report = Report("boxes", home=str(home), composites=n)
    searches = _Searches(home, options.catalogue or home.parent / "catalogue-52")
    searches.cost(report)  # before anything else has the graph compiled
    for kind, smallest, largest in (("of one size", 1.0, 1.0), ("one smaller", 0.35, 0.7)):
        searches.of_composites(kind, n, (smallest, largest), report)
    searches.of_plain_photos(n, report)
    report.finish()


class _Searches:
    """Searches in an index of photos that lie in a catalogue's directory."""

    def __init__(self, home: Path, catalogue: Path) -> None:
        bundle = open_bundle(bundle_store(home))
        index = open_snapshot(index_store(home), fingerprint=bundle.manifest.fingerprint)
        self._spec, self._embedder = bundle.manifest.preprocess, open_embedder(bundle)
        self._catalogue, self._photos = catalogue, list(index.photos())
        self._vectors: FloatArray = np.asarray(index.vectors(slice(None)))
        self._listings = np.array([photo.listing_id for photo in self._photos])
        self._categories = np.array([photo.category for photo in self._photos])
        counts = Counter(self._listings.tolist())
        rows = [row for row, listing in enumerate(self._listings.tolist()) if counts[listing] > 1]
        self._rows = np.random.default_rng(17).permutation(rows).tolist()

    def of_composites(self, kind: str, n: int, sizes: tuple[float, float], report: Report) -> None:
        rng = np.random.default_rng(11)
        images: list[Image.Image] = []
        things: list[tuple[int, Thing]] = []  # by composite
        for one, other in zip(self._rows[:n], self._rows[n : 2 * n], strict=False):
            if self._listings[one] != self._listings[other]:
                image, shown = _composite(self._image(one), self._image(other), sizes, rng)
                things += [
                    (len(images), Thing(row, box, (one, other))) for row, box in zip((one, other), shown, strict=True)
                ]
                images.append(image)
        proposed = [[box for box, _ in self._proposals(image)] for image in images]

        def overlapping_most(boxes: Sequence[Sequence[Box]]) -> list[Box]:
            return [max(boxes[i], key=lambda box: _iou(box, thing.box), default=_WHOLE) for i, thing in things]

        ways = {
            "the whole": [_WHOLE] * len(things),
            "best of 8 fixed boxes": overlapping_most([_FIXED] * len(images)),
            "best of the proposals": overlapping_most(proposed),
            "its own box": [thing.box for _, thing in things],
        }
        clean = np.stack([self._vectors[thing.row] for _, thing in things])
        found = {"its clean photo": (clean, [1.0] * len(things))}
        for way, boxes in ways.items():
            vectors = self._embedded([(images[i], box) for (i, _), box in zip(things, boxes, strict=True)])
            found[way] = vectors, [_iou(box, thing.box) for box, (_, thing) in zip(boxes, things, strict=True)]
        for way, (vectors, overlaps) in found.items():
            report.add(
                f"two things, {kind}",
                searched_by=way,
                searches=len(things),
                recall_at_4=self._recall(vectors, [thing.rows for _, thing in things], [t.row for _, t in things]),
                precision_at_4=self._precision(vectors, [thing.row for _, thing in things]),
                overlap=statistics.mean(overlaps),
                proposals=statistics.mean(map(len, proposed)) if "proposals" in way else None,
            )

    def of_plain_photos(self, n: int, report: Report) -> None:
        rows = self._rows[:n]
        images = [self._image(row) for row in rows]
        proposed = [self._proposals(image) for image in images]
        first = [boxes[0].box if boxes else _WHOLE for boxes in proposed]
        for way, taken in {"the whole": [_WHOLE] * len(rows), "its first proposal, unseen": first}.items():
            vectors = self._embedded(list(zip(images, taken, strict=True)))
            report.add(
                "plain photos",
                searched_by=way,
                searches=len(rows),
                recall_at_4=self._recall(vectors, [(row, row) for row in rows], rows),
                precision_at_4=self._precision(vectors, rows),
                proposals=statistics.mean(map(len, proposed)),
            )

    def cost(self, report: Report) -> None:
        images = [self._image(row) for row in self._rows[:20]]
        pixels = [render(image, self._spec) for image in images]
        began = time.perf_counter()
        self._embedder.feature_maps(pixels[0])
        first_s = time.perf_counter() - began

        def each_ms(work: object) -> float:
            began = time.process_time()
            for photo, image in zip(pixels, images, strict=True):
                work(photo, image)  # type: ignore[operator]
            return 1e3 * (time.process_time() - began) / len(pixels)

        maps = self._embedder.feature_maps(pixels[0])
        report.add(
            "milliseconds of one core",
            an_embedding=each_ms(lambda photo, image: self._embedder.embed(photo[None])),
            maps=each_ms(lambda photo, image: self._embedder.feature_maps(photo)),
            cutting=each_ms(lambda photo, image: propose_boxes(maps, photo, self._spec.fit, *image.size)),
            first_maps_by_the_clock=1e3 * first_s,
        )

    def _image(self, row: int) -> Image.Image:
        return upright(open_photo((self._catalogue / str(self._photos[row].path)).read_bytes()), _SIDE_PX)

    def _proposals(self, image: Image.Image) -> list[Proposal]:
        pixels = render(image.copy(), self._spec)
        return propose_boxes(self._embedder.feature_maps(pixels), pixels, self._spec.fit, *image.size)

    def _embedded(self, parts: list[tuple[Image.Image, Box]]) -> FloatArray:
        pixels = [render(image.crop(box.pixels(*image.size)), self._spec) for image, box in parts]
        batches = [np.stack(pixels[start : start + _BATCH]) for start in range(0, len(pixels), _BATCH)]
        return np.concatenate([self._embedder.embed(batch).vectors for batch in batches])

    def _recall(self, vectors: FloatArray, hidden: list[tuple[int, int]], rows: list[int]) -> float:
        scores = vectors @ self._vectors.T
        for number, some in enumerate(hidden):
            scores[number, list(some)] = -2
        nearest = np.argsort(-scores, axis=1)[:, :4]
        return float((self._listings[nearest] == self._listings[rows][:, None]).any(axis=1).mean())

    def _precision(self, vectors: FloatArray, rows: list[int]) -> float:
        scores = vectors @ self._vectors.T
        scores[self._listings[rows][:, None] == self._listings[None]] = -2
        nearest = np.argsort(-scores, axis=1)[:, :4]
        return float((self._categories[nearest] == self._categories[rows][:, None]).mean())


def _composite(
    one: Image.Image, other: Image.Image, sizes: tuple[float, float], rng: np.random.Generator
) -> tuple[Image.Image, tuple[Box, Box]]:
    """Both photos in one, side by side or one above the other, and where each is."""
    stacked, gap = bool(rng.integers(2)), int(rng.integers(2)) * int(rng.integers(10, 40))
    fill = ((255, 255, 255), (0, 0, 0), (128, 128, 128))[int(rng.integers(3))]
    wanted = [_SIDE_PX, _SIDE_PX * rng.uniform(*sizes)]
    if rng.integers(2):
        wanted.reverse()
    scaled = []
    for image, side in zip((one, other), wanted, strict=True):
        scale = side / (image.width if stacked else image.height)
        scaled.append(image.resize((max(40, round(image.width * scale)), max(40, round(image.height * scale)))))
    one, other = scaled
    if stacked:
        size = max(one.width, other.width), one.height + gap + other.height
        at = [(int(rng.integers(size[0] - one.width + 1)), 0)]
        at.append((int(rng.integers(size[0] - other.width + 1)), one.height + gap))
    else:
        size = one.width + gap + other.width, max(one.height, other.height)
        at = [(0, int(rng.integers(size[1] - one.height + 1)))]
        at.append((one.width + gap, int(rng.integers(size[1] - other.height + 1))))
    image = Image.new("RGB", size, fill)
    boxes = []
    for part, (x, y) in zip(scaled, at, strict=True):
        image.paste(part, (x, y))
        boxes.append(Box(x / size[0], y / size[1], part.width / size[0], part.height / size[1]))
    return image, (boxes[0], boxes[1])


def _iou(one: Box, other: Box) -> float:
    across = min(one.x + one.w, other.x + other.w) - max(one.x, other.x)
    down = min(one.y + one.h, other.y + other.h) - max(one.y, other.y)
    common = max(0.0, across) * max(0.0, down)
    return common / (one.w * one.h + other.w * other.h - common)


if __name__ == "__main__":
    main()
