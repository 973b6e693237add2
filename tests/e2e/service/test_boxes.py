"""A photo of two things: with a box around one, a search finds that one's listing as its own photo does."""

from pathlib import Path

import pytest
from PIL import Image, ImageOps

from lookalike import Client
from tests.conftest import encode
from tests.e2e.conftest import Stack

N_THINGS = 40
SIDE_PX = 400
Box = tuple[float, float, float, float]
LEFT, RIGHT, UPPER, LOWER = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 0.5, 1.0), (0.0, 0.0, 1.0, 0.5), (0.0, 0.5, 1.0, 0.5)
# How a camera stores a photo that viewers show upright, by EXIF orientation.
STORED = {1: None, 6: Image.Transpose.ROTATE_90, 3: Image.Transpose.ROTATE_180, 8: Image.Transpose.ROTATE_270}


def things(photos: list[Path]) -> list[tuple[str, Image.Image]]:
    chosen = photos[:: max(1, len(photos) // N_THINGS)][:N_THINGS]
    return [(path.stem, ImageOps.pad(Image.open(path).convert("RGB"), (SIDE_PX, SIDE_PX))) for path in chosen]


def beside(one: Image.Image, other: Image.Image, orientation: int, *, stacked: bool) -> bytes:
    """A JPEG of both, stored as a camera stores it that was held so."""
    upright = Image.new("RGB", (SIDE_PX, 2 * SIDE_PX) if stacked else (2 * SIDE_PX, SIDE_PX))
    upright.paste(one, (0, 0))
    upright.paste(other, (0, SIDE_PX) if stacked else (SIDE_PX, 0))
    turn, exif = STORED[orientation], Image.Exif()
    exif[0x0112] = orientation
    return encode(upright if turn is None else upright.transpose(turn), quality=85, exif=exif)


@pytest.mark.parametrize("stacked", [False, True])
def test_with_a_box_around_one_of_two_things_that_one_is_found(
    stack: Stack, photos: list[Path], *, stacked: bool
) -> None:
    found: list[bool] = []
    found_without: list[bool] = []
    boxes: tuple[Box, Box] = (UPPER, LOWER) if stacked else (LEFT, RIGHT)
    with Client(stack.url) as client:
        shown = things(photos)
        for number, pair in enumerate(zip(shown[::2], shown[1::2], strict=True)):
            photo = beside(pair[0][1], pair[1][1], list(STORED)[number % len(STORED)], stacked=stacked)
            for (image_id, _), box in zip(pair, boxes, strict=True):
                found.append(image_id in ids(client, photo, box))
                found_without.append(image_id in ids(client, photo, None))
    assert sum(found) >= 0.9 * len(found)  # of their own photos: all, as these are in the index
    assert sum(found_without) < sum(found)


def test_the_embedding_of_a_box_is_that_of_the_part(stack: Stack, photos: list[Path]) -> None:
    image = Image.open(photos[0]).convert("RGB")
    edges = (image.width // 4, image.height // 4, image.width // 4 * 3, image.height)
    box = [edges[0] / image.width, edges[1] / image.height, 0, 0]
    box[2:] = edges[2] / image.width - box[0], 1 - box[1]
    with Client(stack.url) as client:
        part = client.embed(encode(image, "PNG"), box=box)
        alone = client.embed(encode(image.crop(edges), "PNG"))
        whole = client.embed(encode(image, "PNG"))
    assert part.embedding == alone.embedding  # the same pixels, which the worker remembers
    assert part.embedding != whole.embedding


def test_proposed_boxes_are_around_two_things_whichever_way_the_camera_was_held(
    stack: Stack, photos: list[Path]
) -> None:
    pair = things(photos)[:2]
    with Client(stack.url) as client:
        for orientation in STORED:
            photo = beside(pair[0][1], pair[1][1], orientation, stacked=False)
            boxes = client.embed(photo, propose_boxes=True).boxes
            assert boxes
            for x, y, w, h in (LEFT, RIGHT):
                centres = [(one.box[0] + one.box[2] / 2, one.box[1] + one.box[3] / 2) for one in boxes]
                assert any(x < across < x + w and y < down < y + h for across, down in centres)
            assert pair[0][0] in {found for one in boxes for found in ids(client, photo, one.box)}
        assert client.embed(photo).boxes is None


def ids(client: Client, photo: bytes, box: Box | None) -> list[str]:
    result = client.search(photo) if box is None else client.search(photo, box=box)
    return [neighbour.image_id for neighbour in result.neighbours]
