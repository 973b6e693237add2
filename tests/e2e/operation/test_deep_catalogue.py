"""A catalogue of 300 categories on two levels, in Greek and without a price: by HTTP, client and command line."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from lookalike import Client
from lookalike.errors import InputError
from pipeline.building.embed import EmbeddedPhotos
from pipeline.building.index import build_index
from shared.artifacts.snapshots import bundle_store
from shared.catalogue.choice import CategoryChoice
from shared.catalogue.tables import Catalogue, read_catalogue
from shared.model.bundle import open_bundle
from shared.model.embedder import Embeddings
from shared.photos.images import PreprocessSpec
from shared.settings import Settings
from tests.e2e.conftest import Stack, verb
from tests.support.bundles import make_bundle
from tests.support.catalogues import GREEK, draw_greek, drawn
from tests.support.places import needs_neither

pytestmark = needs_neither(reason="its index is built in this process, into files")

LEVELS: dict[str, Any] = {"category_level": 2}
BLUE = {"must": [{"key": "χρώμα", "match": {"value": "μπλε"}}]}


@pytest.fixture(scope="module")
def greek(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service on the Greek catalogue; model and embeddings are random, which takes seconds instead of minutes."""
    directory = tmp_path_factory.mktemp("greek")
    home = directory / "home"
    home.mkdir()
    catalogue = draw_greek(home / "greek")
    settings = Settings(home=home, catalogue=catalogue, **LEVELS)
    bundle_store(home).promote(make_bundle(home, PreprocessSpec(), categories=GREEK))
    read = read_catalogue(catalogue, CategoryChoice.by(settings, GREEK, grow=False))
    bundle = open_bundle(bundle_store(home))
    build_index(settings, bundle, read, lambda line: None, embedded=invented(read, bundle.manifest.embedding_dim))
    stack = Stack(home, directory / "valkey", directory / "log")
    stack.start("worker", catalogue=catalogue, streams=1, max_batch=4, **LEVELS)
    stack.start("api", catalogue=catalogue, probe_every_s=0, **LEVELS)
    stack.wait_ready()
    yield stack
    stack.close()


def invented(read: Catalogue, dimension: int) -> EmbeddedPhotos:
    """Random embeddings of all photos."""
    rng = np.random.default_rng(17)
    vectors = rng.standard_normal((len(read.photos), dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return EmbeddedPhotos(read.photos, Embeddings(vectors, rng.standard_normal((len(vectors), 300)).astype(np.float32)))


def photo(position: int) -> BytesIO:
    file = BytesIO()
    drawn(position, len(GREEK), 1000 * position).save(file, "JPEG", quality=90)
    return BytesIO(file.getvalue())


def test_filters_and_facets_know_every_category_and_no_price(greek: Stack) -> None:
    with Client(greek.url) as client:
        index = client.index()
        assert (len(index.categories), index.categories[17]) == (300, "Είδη 01 / Κλάδος 7")
        assert [(one.name, one.type) for one in index.attributes] == [("τίτλος", "text"), ("χρώμα", "keyword")]
        found = client.search(image_id="L017-00-0", k=100, filter=BLUE, include="*", facets="category,χρώμα")
        assert found.neighbours[0].image_id == "L017-00-0"
        assert found.neighbours[0].attributes == {"τίτλος": "Πράγμα 17", "χρώμα": "μπλε"}
        assert {(hit.attributes or {})["χρώμα"] for hit in found.neighbours} == {"μπλε"}
        assert found.facets is not None
        assert found.facets["category"].count == 150
        assert [(one.value, one.count) for one in found.facets["χρώμα"].values] == [("μπλε", 150)]
        inside = client.search(photo(17), k=5, category=GREEK[17], filter=BLUE)
        assert [hit.category for hit in inside.neighbours] == [GREEK[17]]
        both = {"must": [{"key": "category", "match": {"any": [GREEK[17], GREEK[18]]}}]}
        assert {hit.category for hit in client.search(photo(17), filter=both).neighbours} == {GREEK[17], GREEK[18]}
        with pytest.raises(InputError, match=r"has no attribute 'price'; it has τίτλος, χρώμα"):
            client.search(photo(17), filter={"must": [{"key": "price", "range": {"lt": 5}}]})


def test_a_put_has_the_attributes_of_the_catalogue_and_its_page_and_contract_are_served(greek: Stack) -> None:
    with Client(greek.url) as client:
        values = {"τίτλος": "Νέο", "χρώμα": "μωβ"}
        client.put_image("νέο", photo(5), listing_id="N", category=GREEK[5], attributes=values)
        [hit] = client.search(
            photo(5), filter={"must": [{"key": "χρώμα", "match": {"value": "μωβ"}}]}, include=list(values)
        ).neighbours
        assert (hit.image_id, hit.category, hit.attributes) == ("νέο", GREEK[5], values)
        client.put_image("δεύτερο", photo(6), listing_id="N", category=GREEK[5])
        [second] = client.search(
            photo(6), filter={"must": [{"key": "image_id", "match": {"value": "δεύτερο"}}]}, include="*"
        ).neighbours
        assert second.attributes == values  # those that another photo of its listing was put with
        client.delete_image("νέο")
        client.delete_image("δεύτερο")
    page = requests.get(greek.url + "/", headers={"Accept": "text/html"}, timeout=10)
    assert page.status_code == 200
    assert GREEK[299].partition(" / ")[0] in page.text
    assert requests.get(greek.url + "/openapi.json", timeout=10).status_code == 200


def test_the_command_line_reads_and_searches_it(greek: Stack, tmp_path: Path) -> None:
    catalogue = greek.home / "greek"

    def told(*arguments: str) -> dict[str, Any]:
        done = verb(*arguments, "--json", home=greek.home, catalogue=catalogue, **LEVELS)
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    (tmp_path / "filter.json").write_text(json.dumps(BLUE), encoding="utf-8")
    picture = str(catalogue / "images" / "L016-00-0.jpg")
    found = told("search", picture, "-k", "2", "--filter", f"@{tmp_path / 'filter.json'}", "--include", "τίτλος")
    assert all(int(hit["attributes"]["τίτλος"].split()[1]) % 2 for hit in found["neighbours"])
    cleaned = told("clean", "--out", str(tmp_path / "clean"))
    assert len(cleaned["photos_per_category"]) == 300
    assert [one["values"] for one in cleaned["attributes"]][1] == {"κόκκινο": 150, "μπλε": 150}
    remote = told("search", picture, "--url", greek.url)
    assert "attributes" not in remote["neighbours"][0]  # it has neither title nor price
