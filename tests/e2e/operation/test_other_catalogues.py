"""A catalogue of another marketplace, with its own categories and columns, from the raw table to the page."""

import csv
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.conftest import Stack, eventually, lookalike
from tests.support.catalogues import GERMAN, draw_catalogue, drawn
from tests.support.once import made_once
from tests.support.places import copy_installation

NEW = "Zelte"


def build(home: Path) -> None:
    home.mkdir()
    catalogue = draw_catalogue(home / "german", GERMAN)
    built = lookalike("index", "build", "--catalogue", str(catalogue), home=home, precision="float32")
    assert built.returncode == 0, built.stderr


@pytest.fixture(scope="module")
def german(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service on a German catalogue of five categories."""
    directory = tmp_path_factory.mktemp("german")
    copy_installation(made_once(tmp_path_factory, "german", build), directory / "home")
    stack = Stack(directory / "home", directory / "valkey", directory / "log")
    catalogue = directory / "home" / "german"
    stack.start("worker", catalogue=catalogue)
    stack.start("api", catalogue=catalogue, probe_every_s=0)
    stack.wait_ready()
    yield stack
    stack.close()


def photo(position: int, seed: int) -> BytesIO:
    file = BytesIO()
    drawn(position, len(GERMAN), seed).save(file, "JPEG", quality=90)
    file.seek(0)
    return file


def ask(stack: Stack, kind: str, image: BytesIO, **options: str) -> requests.Response:
    return requests.post(
        f"{stack.url}/v1/jobs/{kind}", files={"image": image}, data=options, headers={"Prefer": "wait=20"}, timeout=30
    )


def result(answer: requests.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["result"]
    return found


def test_a_search_answers_in_the_catalogues_own_categories(german: Stack) -> None:
    found = [result(ask(german, "search", photo(position, 7_000 + position), k="4")) for position in range(5)]
    assert {one["category"]["name"] for one in found} <= set(GERMAN)
    assert {neighbour["category"] for one in found for neighbour in one["neighbours"]} <= set(GERMAN)
    assert sum(one["category"]["name"] == name for one, name in zip(found, GERMAN, strict=True)) >= 3
    assert all(GERMAN[one["category"]["index"]] == one["category"]["name"] for one in found)
    assert all("certain_path" not in one["category"] for one in found)  # they have one level


def test_a_search_can_be_narrowed_to_one_of_them_and_to_no_other(german: Stack) -> None:
    inside = result(ask(german, "search", photo(0, 7_001), k="30", category=GERMAN[2]))["neighbours"]
    assert [one["category"] for one in inside] == [GERMAN[2]] * 16
    refused = ask(german, "search", photo(0, 7_001), category="Appliances")
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert "; ".join(GERMAN) in refused.json()["detail"]


def test_an_embedding_and_the_older_endpoint_have_a_number_for_each(german: Stack) -> None:
    assert len(result(ask(german, "embed", photo(1, 7_002)))["scores"]) == len(GERMAN)
    older = requests.post(german.url + "/predict/feature_embedding", files={"image": photo(1, 7_002)}, timeout=30)
    assert (older.status_code, len(older.json()["features"])) == (200, len(GERMAN))


def test_page_and_contract_name_them(german: Stack) -> None:
    page = requests.get(german.url + "/", headers={"Accept": "text/html"}, timeout=10).text
    assert "<option>Möbel &amp; Leuchten</option>" in page
    assert "Appliances" not in page
    contract = requests.get(german.url + "/openapi.json", timeout=10).json()
    search = contract["paths"]["/v1/jobs/search"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert search["properties"]["category"]["enum"] == list(GERMAN)
    assert requests.get(german.url + "/v1/index", timeout=10).json()["categories"] == list(GERMAN)


def test_a_photo_is_put_into_one_of_them(german: Stack) -> None:
    said = {"listing_id": "live", "category": GERMAN[3]}
    put = {"files": {"image": photo(3, 7_003)}, "headers": {"Prefer": "wait=20"}, "timeout": 30}
    answer = requests.put(german.url + "/v1/images/neu", data=said, **put)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded"), answer.text
    first = result(ask(german, "search", photo(3, 7_003), k="1"))["neighbours"][0]
    assert (first["image_id"], first["category"]) == ("neu", GERMAN[3])


def test_a_category_that_is_new_is_left_out_of_a_reindex_told_and_learnt_by_training(german: Stack) -> None:
    catalogue = german.home / "german"
    with (catalogue / "Products.csv").open("a", newline="") as table:
        csv.writer(table).writerows([[f"Z{n}", f"Zelt {n}", f"{NEW} > x"] for n in range(12)])
    with (catalogue / "Images.csv").open("a", newline="") as table:
        csv.writer(table).writerows([[f"Z{n}-0", f"Z{n}"] for n in range(12)])
    for n in range(12):
        drawn(5, 6, 9_000 + n).save(catalogue / "images" / f"Z{n}-0.jpg", quality=90)
    place = {"home": german.home, "catalogue": catalogue, "redis_url": german.redis_url, "precision": "float32"}
    reindexed = lookalike("reindex", "--wait", "--json", **place)  # type: ignore[arg-type]
    assert json.loads(reindexed.stdout)["result"]["reasons"]["listing of unknown category"] == 12, reindexed.stdout
    trained = lookalike("train", "--recipe", "head", "--epochs", "1", **place)  # type: ignore[arg-type]
    assert trained.returncode == 0, trained.stderr
    bundles = json.loads(lookalike("bundle", "list", "--json", **place).stdout)  # type: ignore[arg-type]
    newest = max(one["version"] for one in bundles["bundles"])
    shown = json.loads(lookalike("bundle", "show", newest, "--json", **place).stdout)  # type: ignore[arg-type]
    assert shown["categories"] == [*GERMAN, NEW]
    promoted = lookalike("bundle", "promote", newest, **place)  # type: ignore[arg-type]
    assert promoted.returncode == 0, promoted.stderr
    reindexed = lookalike("reindex", "--wait", "--promote", "if_valid", **place)  # type: ignore[arg-type]
    assert reindexed.returncode == 0, reindexed.stdout + reindexed.stderr
    eventually(
        lambda: requests.get(german.url + "/v1/index", timeout=10).json()["categories"] == [*GERMAN, NEW],
        30,
        "the new model serves",
    )
    inside = result(ask(german, "search", photo(0, 7_004), k="20", category=NEW))["neighbours"]
    assert {one["category"] for one in inside} == {NEW}
