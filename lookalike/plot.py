"""Draws a search result: the query beside its neighbours. The only module that imports matplotlib."""

from collections.abc import Mapping
from io import BytesIO
from math import ceil, sqrt
from typing import Any

from lookalike.models import Neighbour, SearchResult

try:
    from matplotlib.figure import Figure
    from PIL import Image, ImageOps
except ImportError as exc:
    raise ImportError("drawing needs matplotlib: pip install 'lookalike[plot]'") from exc

_PANEL_INCHES = 2.4
_LONGEST_PX = 640
_TITLE_CHARS = 32
_BADGE = {"facecolor": "green", "alpha": 0.75, "pad": 4, "edgecolor": "none"}


class Grid(Figure):
    """A matplotlib figure without pyplot: notebooks show it, `savefig` writes it to a file."""

    def show(self, warn: bool = True) -> None:
        """Open the figure in the system's image viewer.

        Args:
            warn: as of matplotlib's `Figure.show`; ignored.
        """
        Image.open(BytesIO(self._repr_png_())).show()

    def _repr_png_(self) -> bytes:
        written = BytesIO()
        self.savefig(written, format="png")
        return written.getvalue()


def draw(result: SearchResult, query: bytes | None, pictures: list[bytes | None]) -> Grid:
    """Draw the query on the left and its neighbours on the right, in a grid as square as possible.

    Args:
        result: of a search.
        query: the content of an image file; None if the query is not known.
        pictures: image files of the neighbours in their order; None for one that is no longer in the index.

    Returns:
        The figure.
    """
    n_columns = max(1, ceil(sqrt(len(pictures))))
    n_rows = max(1, ceil(len(pictures) / n_columns))
    left = max(n_rows, 1)  # the query is as high as the grid, and as wide
    grid = Grid(
        figsize=(_PANEL_INCHES * (left + n_columns), _PANEL_INCHES * n_rows + 0.6), dpi=100, layout="constrained"
    )
    cells = grid.add_gridspec(n_rows, left + n_columns)
    _panel(grid.add_subplot(cells[:, :left]), query, _headline(result))
    for place, (neighbour, picture) in enumerate(zip(result.neighbours, pictures, strict=True)):
        row, column = divmod(place, n_columns)
        axes = grid.add_subplot(cells[row, left + column])
        _panel(axes, picture, f"{neighbour.rank}.  {neighbour.score:.3f}")
        _label(axes, neighbour)
        _caption(axes, neighbour.attributes or {})
    return grid


def _headline(result: SearchResult) -> str:
    category = result.category
    return f"{category.name}, {category.probability:.0%}" + ("" if category.certain else " (not sure)")


def _panel(axes: Any, picture: bytes | None, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()
    if picture is None:
        axes.text(0.5, 0.5, "no picture", ha="center", va="center", transform=axes.transAxes)
        return
    with Image.open(BytesIO(picture)) as image:
        upright = ImageOps.exif_transpose(image)
        upright.thumbnail((_LONGEST_PX, _LONGEST_PX))
        axes.imshow(upright.convert("RGB"))


def _label(axes: Any, neighbour: Neighbour) -> None:
    axes.text(
        0.03, 0.97, neighbour.category, fontsize=8, style="oblique", color="white", va="top", wrap=True,
        bbox=_BADGE, transform=axes.transAxes,
    )  # fmt: skip


def _caption(axes: Any, attributes: Mapping[str, Any]) -> None:
    """Write title and price under a picture, if the result has them."""
    title, price = attributes.get("title"), attributes.get("price")
    lines = []
    if isinstance(title, str):
        lines.append(title if len(title) <= _TITLE_CHARS else title[: _TITLE_CHARS - 1] + "…")
    if isinstance(price, Mapping):
        lines.append(f"{price.get('amount'):,.2f} {price.get('currency', '')}".strip())
    if lines:
        # Text of a listing is no formula, whatever dollars are in it.
        axes.text(
            0.5, -0.03, "\n".join(lines), fontsize=8, ha="center", va="top", parse_math=False, transform=axes.transAxes
        )
