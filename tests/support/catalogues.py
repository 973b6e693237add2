"""Catalogues of other marketplaces, drawn by the tests: other categories, columns and languages than the demo's."""

import colorsys
import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

GERMAN = ("Boote", "Fahrräder", "Möbel & Leuchten", "Spielzeug", "Uhren")


def draw_catalogue(
    directory: Path,
    categories: Sequence[str],
    *,
    listings_each: int = 8,
    photos_each: int = 2,
    separator: str = " > ",
    columns: Sequence[str] = ("id", "titel", "category"),
    category_column: str = "category",
    cells: Mapping[str, Callable[[int], str]] | None = None,
) -> Path:
    """Write a raw dump in which every category is a shape in a colour of its own.

    Args:
        directory: made by this call.
        categories: their roots; each listing's path has a second level.
        listings_each, photos_each: listings of a category, photos of a listing.
        separator: of the path.
        columns: of Products.csv; beside `id` and that of the category whatever is wanted.
        category_column: which of them has the category.
        cells: further columns: what stands in each for the listing of that number.

    Returns:
        the directory.
    """
    (directory / "images").mkdir(parents=True)
    further = cells or {}
    products, images = [[*columns, *further]], [["id", "product_id"]]
    for position, name in enumerate(categories):
        for n in range(listings_each):
            listing = f"L{position:03}-{n:02}"
            given = {"id": listing, category_column: f"{name}{separator}Teil {n % 2}"}
            row = [given.get(column, f"{column} {n}") for column in columns]
            products.append([*row, *(cell(position * listings_each + n) for cell in further.values())])
            for photo in range(photos_each):
                images.append([f"{listing}-{photo}", listing])
                drawn(position, len(categories), seed=1000 * position + 10 * n + photo).save(
                    directory / "images" / f"{listing}-{photo}.jpg", quality=90
                )
    for table, rows in (("Products.csv", products), ("Images.csv", images)):
        with (directory / table).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    return directory


def drawn(position: int, n_categories: int, seed: int) -> Image.Image:
    """A photo of a category: its shape and colour, moved and scaled by chance."""
    rng = np.random.default_rng(seed)
    light = int(rng.integers(180, 250))
    image = Image.new("RGB", (240, 240), (light, light, light))
    draw = ImageDraw.Draw(image)
    colour = tuple(int(255 * part) for part in colorsys.hsv_to_rgb(position / n_categories, 0.9, rng.uniform(0.6, 0.9)))
    x, y, size = (int(value) for value in rng.integers((60, 60, 50), (180, 180, 90)))
    n_corners = 3 + position % 6
    draw.regular_polygon((x, y, size), n_corners, rotation=int(rng.integers(0, 30)), fill=colour)
    return image
