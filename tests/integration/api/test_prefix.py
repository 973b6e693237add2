"""Below a path prefix, page, links, Location headers, documents and client work as at the root of a site."""

import re

import httpx
import pytest
import redis
from flask.testing import FlaskClient

from api.app import create_app
from api.uploads.bodies import PhotoReader
from lookalike import Client
from shared.errors import CannotStart
from tests.integration.api.test_page import BROWSER
from tests.integration.conftest import PHOTO, application, photo_form, settings

PREFIX = "/shop/lookalike"


@pytest.fixture
def http(client: redis.Redis, valkey_url: str, reader: PhotoReader) -> FlaskClient:
    app = application(settings(valkey_url, url_prefix=PREFIX), reader)
    return app.test_client()


@pytest.mark.parametrize("removed_by_proxy", [False, True])
def test_every_address_in_page_and_documents_is_below_the_prefix_and_answers(
    http: FlaskClient, removed_by_proxy: bool
) -> None:
    before = "" if removed_by_proxy else PREFIX
    page = http.get(f"{before}/", headers=BROWSER)
    found = re.findall(r'(?:src|href)="(/[^"]*)"', page.text)
    assert len(found) > 6
    for path in found:
        assert path.startswith(f"{PREFIX}/")
        assert http.get(before + path.removeprefix(PREFIX)).status_code in (200, 503)  # 503: /readyz without a worker
    documents = http.get(f"{before}/docs").text
    linked = re.findall(r'(?:src|href)="([^"#]*)"', documents)
    assert len(linked) > 3
    for path in linked:
        assert path[0] not in "/."  # relative to /docs
        assert http.get(f"{before}/{path}").status_code == 200
    assert http.get(f"{before}/openapi.json").get_json()["servers"] == [{"url": PREFIX}]
    assert http.get(f"{before}/").get_json()["ready"] == f"{PREFIX}/readyz"


@pytest.mark.parametrize("before", ["", PREFIX])
def test_links_and_location_headers_are_below_the_prefix(http: FlaskClient, before: str) -> None:
    job = http.post(f"{before}/v1/jobs/embed", data=photo_form())
    assert job.status_code == 202
    assert job.headers["Location"] == job.get_json()["links"]["self"] == f"{PREFIX}/v1/jobs/{job.get_json()['id']}"
    assert http.get(job.headers["Location"]).get_json()["id"] == job.get_json()["id"]
    listed = http.get(f"{before}/v1/jobs").get_json()["jobs"]
    assert [each["links"]["self"] for each in listed] == [job.headers["Location"]]
    batch = http.post(f"{before}/v1/batches", data={**photo_form(), "kind": "embed"})
    assert (
        batch.headers["Location"]
        == batch.get_json()["links"]["self"]
        == f"{PREFIX}/v1/batches/{batch.get_json()['id']}"
    )
    assert batch.get_json()["items"][0]["links"]["job"].startswith(f"{PREFIX}/v1/jobs/")
    running = http.post(f"{before}/v1/jobs/reindex")
    refused = http.post(f"{before}/v1/jobs/reindex")
    assert refused.headers["Location"] == refused.get_json()["job"] == running.headers["Location"]
    assert refused.headers["Location"].startswith(PREFIX)


def test_probes_come_without_the_prefix_and_a_longer_word_is_not_it(http: FlaskClient) -> None:
    assert http.get("/livez").status_code == http.get(f"{PREFIX}/livez").status_code == 200
    assert http.get(PREFIX, headers=BROWSER).status_code == 200
    assert http.get(f"{PREFIX}er/livez").status_code == http.get("/shop/livez").status_code == 404


def test_the_client_takes_a_url_with_a_path(http: FlaskClient) -> None:
    transport = httpx.WSGITransport(app=http.application)
    with Client(f"http://127.0.0.1{PREFIX}/", transport=transport) as shop:
        job = shop.submit_embed(PHOTO)
        assert shop.job(job.id).status == "queued"
        assert shop.url == f"http://127.0.0.1{PREFIX}"


def test_a_header_moves_nothing(valkey_url: str) -> None:
    http = create_app(settings(valkey_url)).test_client()
    page = http.get("/", headers={**BROWSER, "X-Forwarded-Prefix": "/evil", "X-Script-Name": "/evil"})
    assert "evil" not in page.text


@pytest.mark.parametrize("prefix", ["/v1", "/docs/lookalike", "/static"])
def test_a_prefix_like_a_path_of_the_service_is_refused(valkey_url: str, prefix: str) -> None:
    with pytest.raises(CannotStart, match="LOOKALIKE_URL_PREFIX"):
        create_app(settings(valkey_url, url_prefix=prefix))
