"""Drawing tools of the demo catalogue: shaded outlines on a transparent layer, and ornaments that many things share."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

LAYER_PX = 512  # side of a finished layer
SUPERSAMPLE = 2
PX_PER_UNIT = LAYER_PX * SUPERSAMPLE / 100  # shapes are described on a square of 100 x 100 units, y down

INK, CHARCOAL, STEEL, CHROME = (34, 34, 38), (62, 64, 70), (150, 156, 166), (206, 210, 216)
WHITE, CREAM, GOLD, GLASS = (244, 244, 242), (236, 224, 200), (206, 164, 84), (120, 158, 178)
WALNUT, LEAF = (104, 70, 46), (70, 132, 66)
PAINTS: dict[str, Colour] = {
    "red": (196, 48, 46),
    "orange": (230, 120, 44),
    "mustard": (222, 172, 60),
    "green": (62, 138, 84),
    "teal": (40, 130, 136),
    "sky blue": (98, 168, 216),
    "navy": (40, 62, 118),
    "purple": (126, 78, 150),
    "pink": (222, 128, 158),
    "white": (238, 238, 236),
    "grey": (134, 138, 144),
    "black": (52, 54, 60),
}
BRIGHTS = ((208, 52, 52), (240, 180, 48), (60, 148, 86), (48, 108, 190), (232, 110, 44), (150, 84, 168))


@dataclass(frozen=True)
class Pattern:
    """Decoration of a surface: "stripes", "bars", "checks", "dots" or "zigzag", repeated every step_units."""

    kind: str
    colour: Colour
    step_units: float


@dataclass(frozen=True)
class Look:
    """What distinguishes one thing from others of its kind: colours, decoration and proportions.

    Attributes:
        main, accent: colours.
        pattern: decoration, if any.
        rng: gives the proportions in the order in which a drawing asks for them.
    """

    main: Colour
    accent: Colour
    pattern: Pattern | None
    rng: np.random.Generator

    def between(self, low: float, high: float) -> float:
        """A random length or share, low <= x < high."""
        return float(self.rng.uniform(low, high))

    def whole(self, low: int, high: int) -> int:
        """A random whole number, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def bright(self) -> Colour:
        """A random bright colour."""
        return BRIGHTS[self.rng.integers(len(BRIGHTS))]


def tone(colour: Colour, factor: float) -> Colour:
    """Darken (factor below 1) or lighten towards white (factor 1..2)."""
    if factor <= 1:
        red, green, blue = (round(c * factor) for c in colour)
    else:
        red, green, blue = (round(c + (255 - c) * (factor - 1)) for c in colour)
    return red, green, blue


def path(text: str) -> list[Point]:
    """Points from their written form, "x,y x,y"."""
    pairs = (pair.split(",") for pair in text.split())
    return [(float(x), float(y)) for x, y in pairs]


def arc(cx: float, cy: float, rx: float, ry: float, start_deg: float = 0, end_deg: float = 360) -> list[Point]:
    """Points of an elliptic arc, clockwise from the right, the ends included."""
    n_points = max(6, int(abs(end_deg - start_deg) / 5))
    angles = np.radians(np.linspace(start_deg, end_deg, n_points))
    return [(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles]


def smooth(points: Sequence[Point], closed: bool = False) -> list[Point]:
    """Catmull-Rom curve through the points, 8 segments between neighbours."""
    knots = np.asarray(points, dtype=float)
    knots = np.vstack([knots[-1:], knots, knots[:2]] if closed else [knots[:1], knots, knots[-1:]])
    t = np.linspace(0, 1, 8, endpoint=False)[:, None]
    curve = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(knots, knots[1:], knots[2:], knots[3:], strict=False)
    ]
    samples = np.vstack([*curve, knots[-2:-1]])  # (n, 2)
    return [(float(x), float(y)) for x, y in samples]


def mirrored(points: Sequence[Point], cx: float = 50) -> list[Point]:
    """An outline symmetric about x = cx from its right half, listed from top to bottom."""
    return [*points, *((2 * cx - x, y) for x, y in reversed(points))]


def turned(points: Sequence[Point], cx: float = 50) -> list[Point]:
    """The smooth outline of a thing symmetric about x = cx."""
    return smooth(mirrored(points, cx))


def star(cx: float, cy: float, radius: float, n_tips: int = 5, inner: float = 0.45) -> list[Point]:
    """A star upright on (cx, cy); inner is the radius of its notches as a share of the radius."""
    spokes = [(radius * (inner if i % 2 else 1), math.pi * i / n_tips - math.pi / 2) for i in range(2 * n_tips)]
    return [(cx + r * math.cos(a), cy + r * math.sin(a)) for r, a in spokes]


@cache
def _ramp(shade: str) -> npt.NDArray[np.float64]:
    """How lit each point of a shaded surface is: (96, 96, 1), 0..1."""
    y, x = np.mgrid[0:1:96j, 0:1:96j]
    light = {
        "down": 1 - y * 0.8 - x * 0.2,
        "across": 1 - x * 0.8 - y * 0.2,
        "tube": 1 - np.abs(x - 0.32) / 0.68,
        "rod": 1 - np.abs(y - 0.3) / 0.7,
        "ball": 1 - np.hypot(x - 0.36, y - 0.32) / 0.93,
        "flat": np.full_like(x, 0.6),
    }[shade]
    return np.asarray(light.clip(0, 1)[..., None])


def _pattern_mask(pattern: Pattern, size: tuple[int, int], step_px: float) -> Image.Image:
    """Where a pattern puts its colour on a surface of the given size: 255 there, 0 elsewhere."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]] / step_px
    on = {
        "stripes": lambda: y % 1 < 0.42,
        "bars": lambda: x % 1 < 0.38,
        "checks": lambda: (x % 1 < 0.5) ^ (y % 1 < 0.5),
        "dots": lambda: np.hypot((x + (y // 1 % 2) / 2) % 1 - 0.5, y % 1 - 0.5) < 0.3,
        "zigzag": lambda: (y + np.abs(x % 1 - 0.5)) % 1 < 0.4,
    }[pattern.kind]()
    return Image.fromarray(on.astype(np.uint8) * 255)


class Pen:
    """Draws shaded outlines on a transparent square layer; coordinates and widths in units of 0..100.

    Args:
        slant: how far depth goes right (or left, if negative) and up per unit: the side the viewer stands on.
    """

    def __init__(self, slant: Point = (0.5, -0.35)) -> None:
        side_px = LAYER_PX * SUPERSAMPLE
        self._layer = Image.new("RGBA", (side_px, side_px))
        self._draw = ImageDraw.Draw(self._layer)
        self._matrix = np.array([[PX_PER_UNIT, 0, 0], [0, PX_PER_UNIT, 0]])
        self._slant = slant

    def finish(self) -> Image.Image:
        """The layer at its final size, (LAYER_PX, LAYER_PX) RGBa: colours premultiplied by alpha."""
        # What is not opaque is transparent black, so the layer is premultiplied as it stands.
        return Image.frombytes("RGBa", self._layer.size, self._layer.tobytes()).reduce(SUPERSAMPLE)

    @contextmanager
    def placed(self, cx: float, cy: float, scale: float, turn_deg: float = 0) -> Iterator[None]:
        """Draw a whole 100 x 100 thing smaller: its middle lands on (cx, cy), turned clockwise."""
        before = self._matrix
        cos, sin = scale * math.cos(math.radians(turn_deg)), scale * math.sin(math.radians(turn_deg))
        inner = np.array([[cos, -sin, cx - 50 * (cos - sin)], [sin, cos, cy - 50 * (sin + cos)], [0, 0, 1]])
        self._matrix = before @ inner
        yield
        self._matrix = before

    def poly(
        self,
        points: Sequence[Point],
        colour: Colour,
        shade: str = "down",
        pattern: Pattern | None = None,
        opacity: float = 1.0,
        edge: float = 0.4,
    ) -> None:
        """Fill an outline with a shaded colour and trace its edge (0: no edge) in a darker one."""
        outline = self._to_px(points)
        self._fill(outline, 0, colour, shade, pattern, opacity)
        if edge and opacity == 1:
            width_px = max(1, round(edge * self._unit_px()))
            self._draw.line([*outline, outline[0]], fill=(*tone(colour, 0.5), 255), width=width_px, joint="curve")

    def rect(
        self,
        x0: float,
        y0: float,
        x1: float,
        y1: float,
        colour: Colour,
        radius: float = 0,
        shade: str = "down",
        pattern: Pattern | None = None,
        opacity: float = 1.0,
    ) -> None:
        """Rectangle, its corners rounded by radius."""
        r = min(radius, (x1 - x0) / 2, (y1 - y0) / 2)
        corners = [(x1 - r, y1 - r), (x0 + r, y1 - r), (x0 + r, y0 + r), (x1 - r, y0 + r)]
        points = [p for i, (x, y) in enumerate(corners) for p in arc(x, y, r, r, 90 * i, 90 * i + 90)]
        self.poly(points if r else [(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour, shade, pattern, opacity)

    def oval(
        self,
        cx: float,
        cy: float,
        rx: float,
        ry: float,
        colour: Colour,
        shade: str = "ball",
        pattern: Pattern | None = None,
        opacity: float = 1.0,
    ) -> None:
        """Ellipse about (cx, cy)."""
        self.poly(arc(cx, cy, rx, ry), colour, shade, pattern, opacity)

    def line(self, points: Sequence[Point], width: float, colour: Colour, shade: str = "down") -> None:
        """Stroke with round joints and ends."""
        self._fill(self._to_px(points), max(2, round(width * self._unit_px())), colour, shade, None, 1.0)

    def box(
        self,
        x0: float,
        y0: float,
        x1: float,
        y1: float,
        depth: float,
        colour: Colour,
        pattern: Pattern | None = None,
    ) -> None:
        """Cuboid: its front face is the rectangle, its top and one side go back by depth along the slant."""
        dx, dy = depth * self._slant[0], depth * self._slant[1]
        side = x1 if dx > 0 else x0
        top = [(x0, y0), (x1, y0), (x1 + dx, y0 + dy), (x0 + dx, y0 + dy)]
        flank = [(side, y0), (side + dx, y0 + dy), (side + dx, y1 + dy), (side, y1)]
        self.poly(top, tone(colour, 1.25))
        self.poly(flank, tone(colour, 0.62))
        self.rect(x0, y0, x1, y1, colour, pattern=pattern)

    def hole(self, points: Sequence[Point]) -> None:
        """Make the inside of an outline transparent again."""
        self._draw.polygon(self._to_px(points), fill=(0, 0, 0, 0))

    def _unit_px(self) -> float:
        return math.hypot(self._matrix[0, 0], self._matrix[1, 0])

    def _to_px(self, points: Sequence[Point]) -> list[Point]:
        placed = np.asarray(points, dtype=float) @ self._matrix[:, :2].T + self._matrix[:, 2]  # (n, 2)
        return [(float(x), float(y)) for x, y in placed]

    def _fill(
        self,
        points: Sequence[Point],
        stroke_px: int,  # 0 fills the outline
        colour: Colour,
        shade: str,
        pattern: Pattern | None,
        opacity: float,
    ) -> None:
        xs, ys = zip(*points, strict=True)
        margin = stroke_px / 2 + 1
        left, top = max(0, math.floor(min(xs) - margin)), max(0, math.floor(min(ys) - margin))
        right = min(self._layer.width, math.ceil(max(xs) + margin))
        bottom = min(self._layer.height, math.ceil(max(ys) + margin))
        if right <= left or bottom <= top:
            return
        size = (right - left, bottom - top)
        mask = Image.new("L", size)
        draw = ImageDraw.Draw(mask)
        local = [(x - left, y - top) for x, y in points]
        level = round(255 * opacity)
        if stroke_px:
            draw.line(local, fill=level, width=stroke_px, joint="curve")
            for x, y in (local[0], local[-1]):
                draw.circle((x, y), stroke_px / 2, fill=level)
        else:
            draw.polygon(local, fill=level)
        self._paint(colour, shade, mask, (left, top))
        if pattern:
            on = _pattern_mask(pattern, size, pattern.step_units * self._unit_px())
            self._paint(pattern.colour, shade, ImageChops.multiply(mask, on), (left, top))

    def _paint(self, colour: Colour, shade: str, mask: Image.Image, corner_px: tuple[int, int]) -> None:
        dark, light = np.array((*tone(colour, 0.62), 255)), np.array((*tone(colour, 1.22), 255))
        shaded = Image.fromarray((dark + (light - dark) * _ramp(shade)).astype(np.uint8))
        # NEAREST: reducing the layer hides the steps, and other filters cost four times as much.
        self._layer.paste(shaded.resize(mask.size, Image.Resampling.NEAREST), corner_px, mask)


def draw_emblem(pen: Pen, look: Look, cx: float, cy: float, radius: float) -> None:
    """A badge in the accent colour: star, ring, heart, bolt or sun."""
    kind, colour = look.whole(0, 4), look.accent
    if kind == 1:
        pen.oval(cx, cy, radius, radius, colour)
        pen.oval(cx, cy, radius * 0.55, radius * 0.55, look.main)
        return
    outline = {
        0: star(0, 0, 1),
        2: turned(path("0,-0.4 0.5,-0.9 1,-0.4 0.6,0.3 0,1"), 0),
        3: path("0.2,-1 -0.6,0.2 -0.1,0.2 -0.3,1 0.6,-0.3 0.1,-0.3"),
        4: star(0, 0, 1, n_tips=9, inner=0.7),
    }[kind]
    pen.poly([(cx + radius * x, cy + radius * y) for x, y in outline], colour)


def draw_keys(pen: Pen, corners: tuple[float, float, float, float], cols: int, rows: int, colour: Colour) -> None:
    """A grid of push buttons that fills the rectangle (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = corners
    w, h = (x1 - x0) / cols, (y1 - y0) / rows
    for i in range(cols * rows):
        x, y = x0 + w * (i % cols), y0 + h * (i // cols)
        pen.rect(x + w * 0.1, y + h * 0.12, x + w * 0.9, y + h * 0.88, colour, radius=w * 0.2)


def draw_wheel(pen: Pen, centre: Point, radius: float, rim: Colour, n_spokes: int) -> None:
    """A wire wheel with its tyre."""
    cx, cy = centre
    pen.line(arc(cx, cy, radius, radius), radius * 0.14, INK)
    pen.line(arc(cx, cy, radius * 0.86, radius * 0.86), radius * 0.07, rim)
    for spoke in arc(cx, cy, radius * 0.84, radius * 0.84)[:: 72 // n_spokes]:
        pen.line([centre, spoke], radius * 0.03, CHROME)
    pen.oval(cx, cy, radius * 0.12, radius * 0.12, STEEL)


def draw_landscape(pen: Pen, look: Look, x0: float, y0: float, x1: float, y1: float) -> None:
    """A picture for a canvas or a screen: sky, sun, two ridges of hills."""
    w, h = x1 - x0, y1 - y0
    pen.rect(x0, y0, x1, y1, tone(look.accent, 1.45))
    pen.oval(x0 + w * look.between(0.2, 0.8), y0 + h * look.between(0.2, 0.4), w * 0.09, w * 0.09, look.bright())
    for colour, level in ((look.accent, 0.5), (tone(look.main, 0.75), 0.72)):
        ridge = [(x0 + w * i / 5, y0 + h * (level + look.between(-0.16, 0.12))) for i in range(6)]
        pen.poly([(x0, y1), *ridge, (x1, y1)], colour)
