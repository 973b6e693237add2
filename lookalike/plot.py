"""The picture of a search: the query, and beside it what was found. matplotlib is loaded here alone."""

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
_BADGE = {"facecolor": "green", "alpha": 0.75, "pad": 4, "edgecolor": "none"}


class Grid(Figure):
    """A matplotlib figure that notebooks show; `savefig` writes it, `show` opens it in a viewer. Needs no pyplot."""

    def show(self, warn: bool = True) -> None:
        Image.open(BytesIO(self._repr_png_())).show()

    def _repr_png_(self) -> bytes:
        written = BytesIO()
        self.savefig(written, format="png")
        return written.getvalue()


def draw(result: SearchResult, query: bytes | None, pictures: list[bytes | None]) -> Grid:
    """The query on the left, its neighbours in a grid as square as can be.

    Args:
        query: a JPEG or another image file; None where it is not known.
        pictures: of the neighbours in their order; None where one is gone.
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
    return grid


def _headline(result: SearchResult) -> str:
    found = result.category
    return f"{found.name}, {found.probability:.0%}" + ("" if found.certain else " (not sure)")


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
