"""`lookalike search`: what its options take, and how a result looks on a terminal."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lookalike.models import Match
from pipeline.cli.main import main
from pipeline.cli.search import answer_lines

CATEGORY = {"name": "Boote", "top": [{"name": "Boote", "probability": 0.5}]}


def hit(rank: int, attributes: dict[str, Any] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"rank": rank, "score": 0.5, "image_id": f"i{rank}", "category": "Boote"}
    return found if attributes is None else {**found, "attributes": attributes}


def test_price_and_title_are_columns_and_other_attributes_have_their_names() -> None:
    price = {"amount": 1250.5, "currency": "EUR"}
    hits = [
        hit(1, {"colour": "rot", "price": price, "title": "Boot\x1b[31m" + 60 * "a"}),
        hit(2),
        hit(3, {"price": price}),
        hit(4, {"km": 1_234_567.0, "size": 0.5}),
    ]
    lines = answer_lines({"category": CATEGORY, "neighbours": hits})
    assert lines == [
        " 50.0%  Boote",
        "  1. 0.500  i1  Boote  1,250.50 EUR  Boot [31m" + 38 * "a" + "…  colour: rot",
        "  2. 0.500  i2  Boote",
        "  3. 0.500  i3  Boote  1,250.50 EUR",
        "  4. 0.500  i4  Boote  km: 1234567  size: 0.5",
    ]


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


@pytest.mark.parametrize(
    ("probability", "certain", "line"),
    [
        (0.97, True, " 97.0%  that it is the same thing as p1: certain"),
        (0.6, False, " 60.0%  that it is the same thing as p1: not certain"),
        (0.01, True, "  1.0%  that it is here: certain that it is not"),
    ],
)
def test_whether_the_same_thing_is_there_comes_before_the_neighbours(
    probability: float, certain: bool, line: str
) -> None:
    match = {"probability": probability, "certain": certain, "image_id": "p1", "listing_id": "l1"}
    assert answer_lines({"category": CATEGORY, "match": match, "neighbours": [hit(1)]})[1:] == [
        line,
        "  1. 0.500  i1  Boote",
    ]
    told = Match.model_validate({**match, "newer": 1})
    assert told.found is (probability > 0.5 if certain else None)


def test_facets_are_their_most_frequent_values_or_their_range() -> None:
    numbers = {"count": 4, "values": [], "minimum": 0.0, "maximum": 86_400.0, "quantiles": [0.0] * 10 + [43_200.0] * 11}
    facets = {
        "colour": {"type": "keyword", "count": 9, "values": [{"value": f"c{n}", "count": 9 - n} for n in range(9)]},
        "size": {"type": "number", **numbers},
        "added": {"type": "time", **numbers},
        "sold": {"type": "boolean", "count": 0, "values": []},
    }
    assert answer_lines({"category": CATEGORY, "neighbours": [], "facets": facets})[1:] == [
        "colour: c0 9, c1 8, c2 7, c3 6, c4 5, c5 4, c6 3, c7 2, …",
        "size: 0 to 86,400, half of 4 listings up to 43,200",
        "added: 1970-01-01 to 1970-01-02, half of 4 listings up to 1970-01-01",
        "sold: no listing has it",
    ]


@pytest.mark.parametrize(
    ("given", "told"), [("{", "it is no JSON"), ("[]", "a JSON object is needed"), ("@gone", "gone")]
)
def test_a_filter_that_cannot_be_read_is_a_wrong_command_line(tmp_path: Path, given: str, told: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    done = CliRunner().invoke(main, ["search", str(tmp_path / "a.jpg"), "--filter", given])
    assert done.exit_code == 2
    assert told in done.output


def test_a_weight_of_no_words_is_a_wrong_command_line(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    done = CliRunner().invoke(main, ["search", str(tmp_path / "a.jpg"), "--text-weight", "0.5"])
    assert done.exit_code == 2
    assert "with --text" in done.output


def test_filter_file_and_names_reach_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "filter.json").write_text('\ufeff{"must": []}', encoding="utf-8")
    asked: list[Any] = []

    def remote(photo: Path, options: Any, *rest: object, **more: object) -> dict[str, Any]:
        asked.append(options)
        return {"category": CATEGORY, "neighbours": []}

    monkeypatch.setattr("pipeline.cli.search.search_remote", remote)
    command = ["search", str(tmp_path / "a.jpg"), "--url", "http://x", "--json", "--filter", f"@{tmp_path}/filter.json"]
    done = CliRunner().invoke(main, [*command, "--include", "title, colour,", "--facets", "category"])
    assert json.loads(done.stdout)["neighbours"] == []
    assert asked == [{"k": 4, "filter": {"must": []}, "include": ["title", "colour"], "facets": ["category"]}]


def test_a_box_reaches_the_search_and_one_that_is_none_is_a_wrong_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    asked: list[Any] = []

    def remote(photo: Path, options: Any, *rest: object, **more: object) -> dict[str, Any]:
        asked.append(options)
        return {"category": CATEGORY, "neighbours": []}

    monkeypatch.setattr("pipeline.cli.search.search_remote", remote)
    command = ["search", str(tmp_path / "a.jpg"), "--url", "http://x", "--box"]
    assert CliRunner().invoke(main, [*command, "0.5, 0, 0.5, 1"]).exit_code == 0
    assert asked == [{"k": 4, "box": (0.5, 0, 0.5, 1)}]
    for box, told in {"0,0,1": "four numbers", "0.5,0,0.6,1": "beyond the photo"}.items():
        done = CliRunner().invoke(main, [*command, box])
        assert done.exit_code == 2
        assert told in done.output


def test_photos_together_or_a_listing_reach_the_search_and_what_is_no_query_is_a_wrong_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = (tmp_path / name for name in ("a.jpg", "b.jpg"))
    for photo in (a, b):
        photo.write_bytes(b"")
    asked: list[Any] = []

    def remote(photos: tuple[Path, ...], options: Any, *rest: object, **more: object) -> dict[str, Any]:
        asked.append((photos, options))
        return {"category": CATEGORY, "neighbours": []}

    monkeypatch.setattr("pipeline.cli.search.search_remote", remote)

    def exit_code(*arguments: object) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["search", "--url", "http://x", *map(str, arguments)])
        return done.exit_code, done.output

    assert exit_code("--together", a, b)[0] == exit_code("--listing", "l1")[0] == 0
    assert asked == [((a, b), {"k": 4}), ((), {"k": 4, "listing_id": "l1"})]
    for wrong, told in {
        (): "--listing",
        (a, "--listing", "l1"): "one of the two",
        (a, b): "--together",
        (a, b, "--together", "--box", "0,0,1,1"): "--box: ",
    }.items():
        code, said = exit_code(*wrong)
        assert (code, told in said) == (2, True), wrong
