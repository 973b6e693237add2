"""Generate the demo catalogue: invented second-hand listings with rendered photos, in the format of a raw dump.

The result is two CSV tables and a folder of JPEGs.
"""

import csv
import math
import os
import shutil
import uuid
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from pipeline.demo import devices, shapes
from pipeline.demo.pen import LAYER_PX, PAINTS, Look, Pattern, Pen
from shared.array_types import DoubleArray, FloatArray
from shared.cores import n_cores

PHOTOS_PER_LISTING = 2
POOL_FROM_LISTINGS = 60  # fewer are drawn sooner than processes start
PHOTO_SIZES_PX = ((480, 640), (640, 480), (520, 520), (420, 560), (560, 420))
PATTERNS = {
    "stripes": "striped",
    "bars": "pinstripe",
    "checks": "checked",
    "dots": "spotted",
    "zigzag": "zigzag",
}


@dataclass(frozen=True)
class Kind:
    """One kind of thing for sale.

    Attributes:
        draw: draws it.
        section: category path below its root category.
        names: what sellers call it.
        price_gbp: lowest and highest price.
        standing: photographed upright before a wall; else lying on a surface.
    """

    draw: Callable[[Pen, Look], None]
    section: str
    names: tuple[str, str]
    price_gbp: tuple[float, float]
    standing: bool = True


# Six things are listed under either of two categories, as sellers do: no classifier can be right about all.
KINDS = {
    "Home & Garden": (
        Kind(shapes.sofa, "Sofas & Armchairs / Sofas", ("sofa", "settee"), (60, 1400)),
        Kind(devices.table_lamp, "Lighting / Lamps", ("table lamp", "bedside lamp"), (8, 60)),
        Kind(shapes.potted_plant, "Garden & Patio / Plants", ("house plant", "potted plant"), (4, 40)),
        Kind(shapes.wall_clock, "Home Decor / Clocks", ("wall clock", "dining room clock"), (5, 80)),
    ),
    "Baby & Kids Stuff": (
        Kind(shapes.pram, "Prams & Strollers / Prams", ("pram", "baby carriage"), (40, 450)),
        Kind(shapes.teddy_bear, "Toys / Soft Toys", ("teddy bear", "cuddly bear"), (3, 35)),
        Kind(shapes.toy_blocks, "Toys / Wooden Toys", ("toy blocks", "building bricks"), (4, 30)),
        Kind(shapes.football, "Toys / Outdoor Toys", ("football", "kickabout ball"), (3, 20)),
    ),
    "DIY Tools & Materials": (
        Kind(devices.power_drill, "Power Tools / Drills", ("drill", "cordless drill"), (20, 160), standing=False),
        Kind(shapes.hand_saw, "Hand Tools / Saws", ("hand saw", "panel saw"), (4, 35), standing=False),
    ),
    "Music, Films, Books & Games": (
        Kind(shapes.guitar, "Instruments / Guitars", ("guitar", "folk guitar"), (40, 1250)),
        Kind(shapes.vinyl_record, "Music / Vinyl", ("vinyl LP", "record"), (3, 60), standing=False),
    ),
    "Phones, Mobile Phones & Telecoms": (
        Kind(devices.smartphone, "Mobile Phones", ("smartphone", "mobile"), (50, 700), standing=False),
        Kind(devices.desk_telephone, "Home Phones", ("telephone", "desk phone"), (8, 70)),
    ),
    "Clothes, Footwear & Accessories": (
        Kind(shapes.t_shirt, "Men's Clothing / Tops", ("t-shirt", "tee"), (2, 25), standing=False),
        Kind(shapes.trainers, "Shoes", ("trainers", "high tops"), (8, 110)),
    ),
    "Other Goods": (
        Kind(shapes.framed_picture, "Art / Pictures", ("framed picture", "landscape painting"), (10, 300)),
        Kind(shapes.suitcase, "Luggage / Suitcases", ("suitcase", "cabin case"), (10, 90)),
        Kind(shapes.wall_clock, "Clocks", ("wall clock", "kitchen clock"), (5, 80)),
    ),
    "Health & Beauty": (
        Kind(shapes.perfume, "Fragrances / Perfume", ("perfume", "eau de toilette"), (10, 95)),
        Kind(devices.hair_dryer, "Hair Care / Dryers", ("hair dryer", "dryer"), (6, 99), standing=False),
    ),
    "Sports, Leisure & Travel": (
        Kind(shapes.bicycle, "Bicycles / Road Bikes", ("bicycle", "road bike"), (60, 1900)),
        Kind(shapes.football, "Ball Sports / Football", ("football", "match ball"), (4, 40)),
        Kind(shapes.suitcase, "Travel / Luggage", ("suitcase", "travel case"), (10, 90)),
    ),
    "Appliances": (
        Kind(devices.washing_machine, "Washing Machines", ("washing machine", "washer"), (70, 420)),
        Kind(devices.kettle, "Small Appliances / Kettles", ("kettle", "cordless kettle"), (6, 60)),
        Kind(
            devices.hair_dryer,
            "Small Appliances / Hair",
            ("hair dryer", "blow dryer"),
            (6, 90),
            standing=False,
        ),
    ),
    "Computers & Software": (
        Kind(devices.laptop, "Laptops", ("laptop", "notebook computer"), (90, 1500)),
        Kind(devices.tower_pc, "Desktops / Towers", ("tower PC", "desktop computer"), (120, 1800)),
        Kind(devices.gamepad, "Peripherals", ("PC gamepad", "USB controller"), (8, 60), standing=False),
    ),
    "Office Furniture & Equipment": (
        Kind(shapes.office_chair, "Chairs", ("office chair", "swivel chair"), (20, 320)),
        Kind(shapes.office_desk, "Desks", ("office desk", "writing desk"), (40, 480)),
        Kind(shapes.filing_cabinet, "Storage", ("filing cabinet", "cabinet"), (25, 180)),
        Kind(devices.desk_telephone, "Telephones", ("office telephone", "desk phone"), (8, 70)),
    ),
    "Video Games & Consoles": (
        Kind(devices.gamepad, "Accessories", ("gamepad", "controller"), (10, 70), standing=False),
        Kind(devices.handheld_console, "Consoles", ("handheld", "pocket console"), (60, 300), standing=False),
        Kind(devices.console_with_pad, "Consoles", ("console and pad", "console"), (70, 420), standing=False),
    ),
}
REMARKS = (
    "Collection only, cash on collection please.",
    "Comes from a smoke-free home.",
    "Selling because we are moving house.",
    "A few light marks, see the second photo.",
    "Works as it should.",
    "Hardly used since it was a present.",
    'My daughter calls it "the good one", but she has left home.',
    "Could deliver nearby for petrol money.",
)
TOWNS = (
    "Leeds, West Yorkshire",
    "Bath, Somerset",
    "Norwich, Norfolk",
    "Hove, East Sussex",
    "Stirling",
    "Swansea",
    "Truro, Cornwall",
    "Durham, County Durham",
)
CONDITIONS = ("Good as new", "Used, in good order", "Well loved", "Tidy condition", "Unwanted gift")


def _clouds(rng: np.random.Generator, rows: int, cols: int, size_px: tuple[int, int]) -> FloatArray:
    """Smooth noise of about unit amplitude, rows x cols random knots stretched over the photo; (h, w, 1)."""
    knots = Image.fromarray(rng.standard_normal((rows, cols), dtype=np.float32))
    return np.asarray(knots.resize(size_px, Image.Resampling.BICUBIC), dtype=np.float32)[..., None]


def _surface(kind: str, size_px: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """A tabletop, floor or wall seen straight on: (h, w, 3), 0..255."""
    width, height = size_px
    tints = {
        "wood": ((176, 130, 86), (120, 82, 54), (205, 172, 128), (150, 140, 128)),
        "carpet": ((148, 140, 130), (96, 104, 116), (170, 156, 132), (112, 96, 88)),
        "cloth": ((214, 206, 196), (122, 134, 148), (178, 150, 144), (150, 160, 140)),
        "tiles": ((206, 204, 198), (168, 166, 162), (188, 172, 156)),
        "paint": ((226, 220, 208), (196, 206, 212), (206, 196, 186), (182, 194, 180), (216, 208, 214)),
    }[kind]
    base = np.array(tints[rng.integers(len(tints))], dtype=np.float32) + rng.normal(0, 7, 3).astype(np.float32)
    y, x = (axis.astype(np.float32)[..., None] for axis in np.ogrid[0:height, 0:width])  # (h, 1, 1), (1, w, 1)
    light = 4 * _clouds(rng, 4, 4, size_px)
    if kind == "wood":
        plank_px = height / rng.integers(2, 6)
        light += 8 * _clouds(rng, height // 5, 5, size_px) - 45 * (y % plank_px < 2)
    elif kind == "carpet":
        light += 11 * _clouds(rng, height // 2, width // 2, size_px)
    elif kind == "cloth":
        fold = rng.uniform(0, math.pi)
        light += 4 * (np.sin(x * 1.1) + np.sin(y * 1.1))
        light += 9 * np.sin((x * math.cos(fold) + y * math.sin(fold)) / 40 + 2 * _clouds(rng, 3, 3, size_px))
    elif kind == "tiles":
        tile_px = rng.integers(90, 190)
        light -= 40 * ((y % tile_px < 3) | (x % tile_px < 3))
    return np.asarray(base + light, dtype=np.float32)


def _backdrop(standing: bool, size_px: tuple[int, int], horizon_px: int, rng: np.random.Generator) -> FloatArray:
    """Wall and floor for a standing thing, one surface seen from above for a lying one: (h, w, 3)."""
    if not standing:
        return _surface(str(rng.choice(["wood", "carpet", "cloth", "tiles", "paint"])), size_px, rng)
    width, height = size_px
    scene = _surface("paint", size_px, rng)
    scene[horizon_px:] = _surface(str(rng.choice(["wood", "carpet", "tiles"])), (width, height - horizon_px), rng)
    if rng.random() < 0.5:
        scene[horizon_px - 16 : horizon_px] = scene[horizon_px - 16 : horizon_px] * 0.3 + 160  # skirting board
    scene[horizon_px : horizon_px + 3] *= 0.7
    return scene


def _aim(size_px: tuple[int, int], standing: bool, view: int, rng: np.random.Generator) -> DoubleArray:
    """Choose where the corners of the layer lie in the photo: (4, 2) pixels, clockwise from top left."""
    width, height = size_px
    side_px = min(size_px) * rng.uniform(0.84, 1.1)
    turn = math.radians(rng.uniform(-5, 5) if standing else (-1) ** view * rng.uniform(4, 18))
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * side_px / 2
    corners[:2, 0] *= rng.uniform(0.84, 1.06)  # seen from above: the far edge is shorter
    corners[:, 0] *= rng.uniform(0.84, 1.0)
    corners[1:3, 1] *= rng.uniform(0.88, 1.06)  # seen from the left or the right
    turned = corners @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    centre = np.array([width, height]) * (0.5 + rng.uniform(-0.06, 0.06, 2))
    return np.asarray(turned + centre, dtype=np.float64)


def _project(layer: Image.Image, corners: DoubleArray, size_px: tuple[int, int]) -> Image.Image:
    """Project the layer in perspective, its corners at the given pixels."""
    side = float(LAYER_PX)
    rows, targets = [], []
    for (x, y), (u, v) in zip(corners, [(0, 0), (side, 0), (side, side), (0, side)], strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        targets += [u, v]
    coefficients = np.linalg.solve(np.array(rows), np.array(targets))
    return layer.transform(
        size_px, Image.Transform.PERSPECTIVE, [float(c) for c in coefficients], Image.Resampling.BILINEAR
    )


def _shadow(alpha: Image.Image, standing: bool, rng: np.random.Generator) -> FloatArray:
    """Shadow of a thing on its background, as a factor of brightness: (h, w, 1), 0..1."""
    lean = rng.uniform(-0.9, 0.9)
    if standing and (bounds := alpha.getbbox()):
        foot_px = bounds[3] - 2
        flatten = rng.uniform(3, 6)  # the shadow lies on the floor, this much shorter than the thing
        coefficients = (1, lean * flatten, -lean * flatten * foot_px, 0, flatten, foot_px * (1 - flatten))
    else:
        coefficients = (1, 0, -14 * lean, 0, 1, -rng.uniform(4, 14))
    cast = alpha.transform(alpha.size, Image.Transform.AFFINE, coefficients)
    soft = cast.reduce(4).filter(ImageFilter.BoxBlur(2)).resize(cast.size, Image.Resampling.BILINEAR)
    depth = rng.uniform(0.4, 0.65) / 255
    return np.asarray(1 - depth * np.asarray(soft, dtype=np.float32)[..., None], dtype=np.float32)


def _expose(scene: FloatArray, rng: np.random.Generator) -> Image.Image:
    """Apply light, tint, vignette, lens blur and sensor noise: (h, w, 3) -> photo."""
    height, width = scene.shape[:2]
    y, x = (axis.astype(np.float32)[..., None] for axis in np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j])
    direction = rng.uniform(0, 2 * math.pi)
    warmth = rng.uniform(-0.1, 0.1)
    light = rng.uniform(0.78, 1.16) * (1 + 0.16 * (x * math.cos(direction) + y * math.sin(direction)))
    light -= rng.uniform(0, 0.14) * (x * x + y * y)
    tint = np.array([1 + warmth, 1.0, 1 - warmth], dtype=np.float32)
    lit = scene * light
    lit *= tint
    lit += rng.uniform(2, 5) * rng.standard_normal((height, width, 1), dtype=np.float32)
    photo = Image.fromarray(lit.clip(0, 255, out=lit).astype(np.uint8))
    return photo.filter(ImageFilter.BoxBlur(rng.uniform(0.1, 0.6)))


def photograph(layer: Image.Image, *, standing: bool, view: int, rng: np.random.Generator) -> Image.Image:
    """Render a photo of a drawn thing.

    Args:
        layer: (LAYER_PX, LAYER_PX) RGBa, transparent around the thing.
        standing: upright before a wall, else lying on a surface and seen from above.
        view: number of the photo; even and odd views of a lying thing are turned opposite ways.
        rng: decides size, surroundings, framing, light and lens.
    """
    width, height = size_px = PHOTO_SIZES_PX[rng.integers(len(PHOTO_SIZES_PX))]
    seen = _project(layer, _aim(size_px, standing, view, rng), size_px)
    alpha = seen.getchannel("a")
    bounds = alpha.getbbox() or (0, 0, width, height)
    horizon_px = int(np.clip(bounds[3] - rng.uniform(0.1, 0.26) * height, 20, height - 20))
    scene = _backdrop(standing, size_px, horizon_px, rng)
    scene *= _shadow(alpha, standing, rng)
    scene *= 1 - np.asarray(alpha, dtype=np.float32)[..., None] / 255
    scene += np.asarray(seen)[..., :3]  # (h, w, 4) premultiplied -> (h, w, 3)
    return _expose(scene, rng)


@dataclass(frozen=True)
class Listing:
    """Rows of one listing in the two tables."""

    product_row: tuple[str, str, str, str, str, str]
    photo_ids: tuple[str, ...]


def _choose_kind(index: int) -> tuple[Kind, str]:
    """A kind and its full category path, round robin over categories and over the kinds of each."""
    turn, slot = divmod(index, len(KINDS))
    root, kinds = list(KINDS.items())[slot]
    kind = kinds[turn % len(kinds)]
    return kind, f"{root} / {kind.section}"


def _describe(kind: Kind, adjectives: str, rng: np.random.Generator) -> tuple[str, str, str, str]:
    """Invent the text of a listing: name, description, price, location."""
    name = f"{adjectives} {kind.names[rng.integers(2)]}".capitalize()
    remarks = [REMARKS[i] for i in rng.permutation(len(REMARKS))[: rng.integers(1, 4)]]
    # Every third description has bare carriage returns, as descriptions typed into a web form have.
    separator = "\r" if rng.random() < 1 / 3 else " "
    low, high = np.log(kind.price_gbp)
    price_gbp = round(math.exp(rng.uniform(low, high))) - float(rng.choice([0, 0.01, 0.5]))
    condition = CONDITIONS[rng.integers(len(CONDITIONS))]
    description = separator.join([f"{name}. {condition}.", *remarks])
    return name, description, f"£{price_gbp:,.2f}", TOWNS[rng.integers(len(TOWNS))]


def _draw_listing(index: int, seed: int, images_dir: Path) -> Listing:
    """Invent one listing and write its photos; seed and index alone decide the result."""
    rng = np.random.default_rng([seed, index])
    kind, category = _choose_kind(index)
    main, accent = (list(PAINTS)[i] for i in rng.permutation(len(PAINTS))[:2])
    motif = str(rng.choice(list(PATTERNS))) if rng.random() < 0.5 else None
    pattern = Pattern(motif, PAINTS[accent], float(rng.uniform(4, 9))) if motif else None
    adjectives = f"{PATTERNS[motif]} {main} and {accent}" if motif else f"{main}"
    name, description, price, town = _describe(kind, adjectives, rng)
    listing_id, *photo_ids = (str(uuid.UUID(bytes=rng.bytes(16), version=4)) for _ in range(1 + PHOTOS_PER_LISTING))
    form_seed = int(rng.integers(2**32))
    side = rng.choice([-1, 1])
    for view, photo_id in enumerate(photo_ids):
        pen = Pen(slant=(side * (-1) ** view * rng.uniform(0.3, 0.6), -rng.uniform(0.25, 0.4)))
        # The same form_seed for each view: a thing keeps its proportions from photo to photo.
        kind.draw(pen, Look(PAINTS[main], PAINTS[accent], pattern, np.random.default_rng(form_seed)))
        photo = photograph(pen.finish(), standing=kind.standing, view=view, rng=rng)
        photo.save(images_dir / f"{photo_id}.jpg", quality=int(rng.integers(72, 93)))
    return Listing((listing_id, name, category, description, price, town), tuple(photo_ids))


def _draw_listings(n_listings: int, seed: int, images_dir: Path) -> Generator[Listing]:
    """Draw listings in order of their index, in several processes from POOL_FROM_LISTINGS on."""
    draw = partial(_draw_listing, seed=seed, images_dir=images_dir)
    if n_listings < POOL_FROM_LISTINGS:
        yield from map(draw, range(n_listings))
        return
    n_processes = min(4, n_cores())
    with ProcessPoolExecutor(n_processes, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(draw, range(n_listings), chunksize=4)
        finally:
            pool.shutdown(cancel_futures=True)


def _write_table(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def generate(
    directory: Path,
    *,
    n_listings: int = 403,
    seed: int = 17,
    progress: Callable[[Iterable[int]], Iterable[int]] | None = None,
) -> None:
    """Draw a demo catalogue: Products.csv, Images.csv and images/<photo id>.jpg, two photos a listing.

    The same seed and n_listings give the same tables and, with the same Pillow, the same photo bytes.

    Args:
        directory: made by this call, with its parents; it appears complete or not at all.
        n_listings: a multiple of 13 spreads them evenly over the categories.
        progress: wraps the range of listing numbers, as tqdm does; advanced once a listing.

    Raises:
        FileExistsError: directory is there already.
    """
    if directory.exists():
        raise FileExistsError(f"{directory} already exists")
    draft = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    (draft / "images").mkdir(parents=True)
    try:
        steps = progress(range(n_listings)) if progress else range(n_listings)
        with closing(_draw_listings(n_listings, seed, draft / "images")) as drawn:
            listings = [listing for _, listing in zip(steps, drawn, strict=False)]
        header = ("id", "product_name", "category", "product_description", "price", "location")
        _write_table(draft / "Products.csv", header, (listing.product_row for listing in listings))
        photos = ((photo, listing.product_row[0]) for listing in listings for photo in listing.photo_ids)
        _write_table(draft / "Images.csv", ("id", "product_id"), photos)
        draft.rename(directory)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
