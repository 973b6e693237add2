"""What the client draws of a result."""

from typing import Any

from lookalike import models
from lookalike.plot import draw


def test_a_drawn_neighbour_has_its_title_and_price_beneath_it() -> None:
    hit: dict[str, Any] = {"image_id": "p", "listing_id": "l", "category": "c", "score": 0.5, "row": 0}
    price = {"amount": 1250, "currency": "EUR"}
    attributes = [{"title": "Stuhl $x$" + 40 * "a", "price": price}, {"price": price}, {"title": "Ein Tisch"}, None]
    neighbours = [
        models.Neighbour(rank=rank, attributes=given, **hit) for rank, given in enumerate(attributes, start=1)
    ]
    category = models.CategoryAnswer(name="c", index=0, probability=1)
    result = models.SearchResult(category=category, neighbours=neighbours, index_version="v", model_fingerprint="f")
    grid = draw(result, None, [None] * 4)
    beneath = [[text.get_text() for text in axes.texts][2:] for axes in grid.axes[1:]]
    assert beneath == [["Stuhl $x$" + 22 * "a" + "…\n1,250.00 EUR"], ["1,250.00 EUR"], ["Ein Tisch"], []]
    assert grid._repr_png_()[:4] == b"\x89PNG"
