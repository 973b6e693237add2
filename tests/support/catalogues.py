"""Catalogues of other marketplaces, drawn by the tests: other categories, columns and languages than the demo's."""

import colorsys
import csv
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

GERMAN = ("Boote", "Fahrräder", "Möbel & Leuchten", "Spielzeug", "Uhren")
GERMAN_COLUMNS = ("id", "Titel", "category", "Preis", "Ort", "Farbe", "Neu", "SKU", "Eingestellt am")
GERMAN_NAMES = '[attributes.title]\ncolumn = "Titel"\n\n[attributes.price]\ncolumn = "Preis"\n'
GREEK = tuple(f"Είδη {root:02} / Κλάδος {n}" for root in range(30) for n in range(10))
GREEK_COLUMNS = ("id", "τίτλος", "category", "χρώμα")
_COLOURS, _PLACES = ("rot", "blau", "grün"), ("Köln, Nordrhein-Westfalen", "Bonn, Nordrhein-Westfalen", "Kiel")


def german_cells(position: int, n: int) -> dict[str, str]:
    """What the German catalogue has of the n-th listing of a category; every eighth listing has no price."""
    euros = 100 * position + 12.5 * n
    return {
        "Titel": f"{GERMAN[position]} Nr. {n}",
        "Preis": "" if n == 7 else f"{euros:,.2f} €".translate(str.maketrans(",.", ".,")),
        "Ort": _PLACES[n % 3],
        "Farbe": _COLOURS[position % 3],
        "Neu": "ja" if n % 2 else "nein",
        "SKU": f"00{position}{n:03}",
        "Eingestellt am": (date(2026, 11, 1) + timedelta(days=n)).strftime("%d.%m.%Y"),
    }


def draw_german(directory: Path) -> Path:
    """Write the German catalogue: five categories, and all that a listing may have besides."""
    draw_catalogue(directory, GERMAN, columns=GERMAN_COLUMNS, further=german_cells)
    (directory / "catalogue.toml").write_text(GERMAN_NAMES)
    return directory


def draw_greek(directory: Path) -> Path:
    """Write the Greek catalogue: 300 categories on two levels, a listing each, and no price."""
    return draw_catalogue(
        directory,
        GREEK,
        listings_each=1,
        photos_each=1,
        columns=GREEK_COLUMNS,
        further=lambda position, n: {
            "category": GREEK[position].replace(" / ", " > "),
            "τίτλος": f"Πράγμα {position}",
            "χρώμα": ("κόκκινο", "μπλε")[position % 2],
        },
    )


def draw_catalogue(
    directory: Path,
    categories: Sequence[str],
    *,
    listings_each: int = 8,
    photos_each: int = 2,
    separator: str = " > ",
    columns: Sequence[str] = ("id", "titel", "category"),
    category_column: str = "category",
    further: Callable[[int, int], Mapping[str, str]] = lambda position, n: {},
) -> Path:
    """Write a raw dump in which every category is a shape in a colour of its own.

    Args:
        directory: made by this call.
        categories: their roots; each listing's path has a second level.
        listings_each, photos_each: listings of a category, photos of a listing.
        separator: of the path.
        columns: of Products.csv; beside `id` and that of the category whatever is wanted.
        category_column: which of them has the category.
        further: the cells of a listing by column, from the position of its category and its number in it.

    Returns:
        the directory.
    """
    (directory / "images").mkdir(parents=True)
    products, images = [list(columns)], [["id", "product_id"]]
    for position, name in enumerate(categories):
        for n in range(listings_each):
            listing = f"L{position:03}-{n:02}"
            cells = {"id": listing, category_column: f"{name}{separator}Teil {n % 2}", **further(position, n)}
            products.append([cells.get(column, f"{column} {n}") for column in columns])
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
