"""`lookalike search` as text: what people read of a result."""

import pytest

from pipeline.cli.remote import answer_lines

TOP = [{"name": "Boats / Sail", "probability": 0.5}, {"name": "Boats / Motor", "probability": 0.4}]
PART = {"name": "Boats", "path": ["Boats"], "probability": 0.9}


@pytest.mark.parametrize(
    ("said", "first"),
    [
        ({"certain": False, "certain_path": PART}, [" 90.0%  Boats, of which it is certain; perhaps:"]),
        ({"certain": False, "certain_path": None}, []),
        ({"certain": False}, []),
        ({"certain": True, "certain_path": {**PART, "name": "Boats / Sail", "probability": 0.5}}, []),
    ],
)
def test_what_is_certain_of_a_path_comes_first_where_not_all_is(said: dict[str, object], first: list[str]) -> None:
    neighbour = {"rank": 1, "score": 0.75, "image_id": "p1", "category": "Boats / Sail"}
    lines = answer_lines({"category": {"top": TOP, **said}, "neighbours": [neighbour]})
    assert lines == [*first, " 50.0%  Boats / Sail", " 40.0%  Boats / Motor", "  1. 0.750  p1  Boats / Sail"]
