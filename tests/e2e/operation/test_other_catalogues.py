"""A catalogue of another marketplace, with categories, columns and a language of its own, by every call and verb."""

import csv
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests

from lookalike import Client
from lookalike.errors import InputError
from pipeline.cli.doctor import CHECKS
from tests.e2e.conftest import Stack, build_float32, eventually, verb
from tests.support.catalogues import GERMAN, GERMAN_NAMES, draw_german, drawn
from tests.support.once import made_once
from tests.support.places import copy_installation

NEW = "Zelte"


def build(home: Path) -> None:
    home.mkdir()
    catalogue = draw_german(home / "german")
    build_float32(home, catalogue)


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
    example = search["properties"]["filter"]["example"]
    assert [one["key"] for one in example["must"]] == ["price", "category"]
    assert result(ask(german, "search", photo(0, 7_004), filter=json.dumps(example)))["neighbours"]


def test_a_photo_is_put_into_one_of_them(german: Stack) -> None:
    said = {"listing_id": "live", "category": GERMAN[3]}
    put = {"files": {"image": photo(3, 7_003)}, "headers": {"Prefer": "wait=20"}, "timeout": 30}
    answer = requests.put(german.url + "/v1/images/neu", data=said, **put)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded"), answer.text
    first = result(ask(german, "search", photo(3, 7_003), k="1"))["neighbours"][0]
    assert (first["image_id"], first["category"]) == ("neu", GERMAN[3])


def matching(*conditions: dict[str, Any]) -> dict[str, Any]:
    return {"must": list(conditions)}


AT_MOST_50 = matching({"key": "price", "range": {"lte": 50}})


def test_the_index_names_its_attributes_with_types_and_what_was_found(german: Stack) -> None:
    found = {one["name"]: one for one in requests.get(german.url + "/v1/index", timeout=10).json()["attributes"]}
    assert {name: one["type"] for name, one in found.items()} == {
        "title": "text", "price": "price", "ort": "place", "farbe": "keyword", "neu": "boolean", "sku": "keyword",
        "eingestellt_am": "time",
    }  # fmt: skip
    price = found["price"]
    assert (price["currencies"], price["decimal"], price["n_listings"], price["quantiles"][0]) == (["EUR"], ",", 35, 0)
    assert [one["value"] for one in found["ort"]["values"]][-1] == "Kiel"


def test_filters_narrow_searches_and_answers_carry_what_is_asked_for(german: Stack) -> None:
    def listings(*conditions: dict[str, Any], **options: str) -> set[str]:
        text = json.dumps(matching(*conditions))
        hits = result(ask(german, "search", photo(0, 7_005), k="100", filter=text, **options))["neighbours"]
        return {one["listing_id"] for one in hits if one["listing_id"] != "live"}

    assert listings({"key": "price", "range": {"lte": 50}}) == {f"L000-{n:02}" for n in range(5)}
    assert listings({"key": "sku", "match": {"any": ["000003", "3"]}}) == {"L000-03"}
    assert listings({"key": "neu", "match": {"value": True}}, {"key": "ort", "match": {"value": "KIEL"}}) == {
        f"L00{position}-05" for position in range(5)
    }
    assert listings({"key": "eingestellt_am", "range": {"gt": "2026-11-07"}}, category="Uhren") == {"L004-07"}
    assert listings({"is_empty": {"key": "price"}}) == {f"L00{position}-07" for position in range(5)}
    carried = result(
        ask(german, "search", photo(0, 7_005), k="1", filter=json.dumps(AT_MOST_50), include="price,farbe")
    )
    assert set(carried["neighbours"][0]["attributes"]) == {"price", "farbe"}
    refused = ask(german, "search", photo(0, 7_005), filter=json.dumps(matching({"key": "ort", "range": {"lt": 5}})))
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert refused.json()["detail"].startswith("filter.must.0.range: ort is a place, which has no range")


def test_the_client_filters_includes_and_counts(german: Stack) -> None:
    with Client(german.url) as client:
        names = [attribute.name for attribute in client.index().attributes]
        assert names[:3] == ["title", "price", "ort"]
        asked: dict[str, Any] = {"filter": AT_MOST_50, "include": "*", "k": 3}
        found = client.search(photo(0, 7_006), facets=["category", "farbe", "price"], **asked)
        assert all((hit.attributes or {})["price"]["amount"] <= 50 for hit in found.neighbours)
        assert found.facets is not None
        assert [(one.value, one.count) for one in found.facets["category"].values] == [("Boote", 5)]
        assert [(one.value, one.count) for one in found.facets["farbe"].values] == [("rot", 5)]
        assert (found.facets["price"].minimum, found.facets["price"].maximum) == (0, 50)
        hits = client.search(image_id="L000-00-0", facets="farbe", facet_scope="hits", **asked)
        assert hits.facets is not None
        assert hits.facets["farbe"].count == len({one.listing_id for one in hits.neighbours})
        batch = client.batch([photo(position, 7_007) for position in range(3)], **asked)
        assert {hit.category for item in batch for hit in item.result.neighbours if item.result} == {"Boote"}  # type: ignore[union-attr]
        with pytest.raises(InputError, match=r"include: the catalogue has no attribute 'size'; it has title, price"):
            client.search(photo(0, 7_006), include=["size"])
        with pytest.raises(InputError, match=r"facets: title is a text"):
            client.search(photo(0, 7_006), facets=["title"])


def test_a_put_with_attributes_is_found_by_them_at_once_and_one_without_has_those_of_its_listing(german: Stack) -> None:
    with Client(german.url) as client:
        values = {"title": "Jolle", "price": "7.777,50 €", "farbe": "gelb", "eingestellt_am": "2026-12-24", "sku": "x1"}
        with pytest.raises(InputError, match=r"attributes.price: the attribute is a price"):
            client.put_image("jolle", photo(0, 7_008), listing_id="J", category="Boote", attributes=values)
        values["price"] = "7777.50 €"
        client.put_image("jolle", photo(0, 7_008), listing_id="J", category="Boote", attributes=values)
        client.put_image("mehr", photo(1, 7_009), listing_id="L001-02", category="Fahrräder")
        yellow = matching({"key": "farbe", "match": {"value": "gelb"}}, {"key": "price", "range": {"gt": 7777}})

        def found(conditions: dict[str, Any]) -> dict[str, Any]:
            hits = client.search(photo(0, 7_008), k=100, filter=conditions, include="*").neighbours
            return {hit.image_id: hit.attributes for hit in hits}

        eventually(lambda: "jolle" in found(yellow), 20, "the photo that was put is found")
        read = {**values, "price": {"amount": 7777.5, "currency": "EUR"}}
        assert found(yellow) == {"jolle": read}
        of_listing = found(matching({"key": "listing_id", "match": {"value": "L001-02"}}))
        assert set(of_listing) == {"L001-02-0", "L001-02-1", "mehr"}
        assert of_listing["mehr"] == of_listing["L001-02-0"]


def test_a_changed_price_and_a_said_type_are_there_after_a_reindex_that_embeds_nothing(german: Stack) -> None:
    catalogue = german.home / "german"
    table = (catalogue / "Products.csv").read_text(encoding="utf-8")
    assert table.count("25,00 €") > 0
    (catalogue / "Products.csv").write_text(table.replace('"25,00 €"', '"26,90 €"'), encoding="utf-8")
    (catalogue / "catalogue.toml").write_text(
        GERMAN_NAMES + "\n[attributes.artikel]\ncolumn = 'SKU'\ntype = 'number'\n"
    )
    with Client(german.url, timeout_s=60) as client:
        done = client.reindex(timeout_s=60)
        assert (done.promoted, done.counts.embedded) == (True, 0), done.decision
        eventually(lambda: client.index().version == done.index_version, 10, "the new index serves")
        eventually(lambda: "artikel" in [one.name for one in client.index().attributes], 10, "its attributes are known")

        def found(*conditions: dict[str, Any]) -> dict[str, Any]:
            hits = client.search(photo(0, 7_010), k=100, filter=matching(*conditions), include="*").neighbours
            return {hit.image_id: hit.attributes or {} for hit in hits}

        changed = found({"key": "artikel", "range": {"gte": 2, "lte": 2}})
        assert {image_id: values["price"]["amount"] for image_id, values in changed.items()} == {
            "L000-02-0": 26.9, "L000-02-1": 26.9,
        }  # fmt: skip
        [jolle] = found({"key": "farbe", "match": {"value": "gelb"}}).values()
        assert (jolle["price"]["amount"], jolle["title"], "artikel" in jolle, "sku" in jolle) == (
            7777.5, "Jolle", False, False,
        )  # fmt: skip
        assert "mehr" in found({"key": "listing_id", "match": {"value": "L001-02"}})


def test_every_verb_that_reads_the_catalogue_or_its_index_knows_them(
    german: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(CHECKS, "wheels")  # it loads every package, whatever the catalogue
    catalogue = german.home / "german"
    place = {"home": german.home, "catalogue": catalogue, "redis_url": german.redis_url, "precision": "float32"}

    def told(*arguments: str) -> dict[str, Any]:
        done = verb(*arguments, "--json", **place)  # type: ignore[arg-type]
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    picture = str(catalogue / "images" / "L000-01-0.jpg")
    found = told("search", picture, "-k", "2", "--filter", json.dumps(AT_MOST_50), "--facets", "farbe")
    assert found["neighbours"][0]["attributes"] == {
        "title": "Boote Nr. 1",
        "price": {"amount": 12.5, "currency": "EUR"},
    }
    assert found["facets"]["farbe"]["values"] == [{"value": "rot", "count": 5}]
    shown = {one["name"]: one for one in told("index", "show")["attributes"]}
    assert shown["farbe"]["values"][-1] == {"value": "gelb", "count": 1}
    cleaned = told("clean", "--out", str(tmp_path / "clean"))
    assert {one["name"]: one["listings"] for one in cleaned["attributes"]}["price"] == 35
    assert cleaned["odd"] == {}
    page = (tmp_path / "clean" / "overview.html").read_text()
    assert "<td>price<td>Preis<td>price EUR" in page
    assert "2026-11-01 to 2026-11-08" in page
    assert told("evaluate")["n_photos"] == 80
    assert told("plot", "--out", str(tmp_path / "pictures"))["pictures"]
    assert json.loads(verb("doctor", "--json", **place).stdout)  # type: ignore[arg-type]


def test_a_category_that_is_new_is_left_out_of_a_reindex_told_and_learnt_by_training(german: Stack) -> None:
    catalogue = german.home / "german"
    with (catalogue / "Products.csv").open("a", newline="") as table:
        csv.writer(table).writerows([[f"Z{n}", f"Zelt {n}", f"{NEW} > x", *[""] * 6] for n in range(12)])
    with (catalogue / "Images.csv").open("a", newline="") as table:
        csv.writer(table).writerows([[f"Z{n}-0", f"Z{n}"] for n in range(12)])
    for n in range(12):
        drawn(5, 6, 9_000 + n).save(catalogue / "images" / f"Z{n}-0.jpg", quality=90)
    place = {"home": german.home, "catalogue": catalogue, "redis_url": german.redis_url, "precision": "float32"}
    reindexed = verb("reindex", "--wait", "--json", **place)  # type: ignore[arg-type]
    assert json.loads(reindexed.stdout)["result"]["reasons"]["listing of unknown category"] == 12, reindexed.stdout
    trained = verb("train", "--recipe", "head", "--epochs", "1", **place)  # type: ignore[arg-type]
    assert trained.returncode == 0, trained.stderr
    bundles = json.loads(verb("bundle", "list", "--json", **place).stdout)  # type: ignore[arg-type]
    newest = max(one["version"] for one in bundles["bundles"])
    shown = json.loads(verb("bundle", "show", newest, "--json", **place).stdout)  # type: ignore[arg-type]
    assert shown["categories"] == [*GERMAN, NEW]
    promoted = verb("bundle", "promote", newest, **place)  # type: ignore[arg-type]
    assert promoted.returncode == 0, promoted.stderr
    reindexed = verb("reindex", "--wait", "--promote", "if_valid", **place)  # type: ignore[arg-type]
    assert reindexed.returncode == 0, reindexed.stdout + reindexed.stderr
    eventually(
        lambda: requests.get(german.url + "/v1/index", timeout=10).json()["categories"] == [*GERMAN, NEW],
        30,
        "the new model serves",
    )
    inside = result(ask(german, "search", photo(0, 7_004), k="20", category=NEW))["neighbours"]
    assert {one["category"] for one in inside} == {NEW}
