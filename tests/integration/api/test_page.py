"""What is at the root: a page for browsers, names for programs, files that browsers keep; and who works"""

import re
import time
from pathlib import Path

import redis
from flask.testing import FlaskClient

from tests import ROOT
from tests.integration.api.test_api import report
from tests.integration.conftest import post

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
STATIC = ROOT / "api" / "static"


def files(http: FlaskClient) -> list[str]:
    return re.findall(r'(?:src|href)="(/static/[^"]+)"', http.get("/", headers=BROWSER).text)


def test_browsers_get_the_page_and_programs_what_they_always_got(http: FlaskClient) -> None:
    page = http.get("/", headers=BROWSER)
    assert (page.status_code, page.mimetype) == (200, "text/html")
    assert "Which listings look like it?" in page.text
    for accept in (
        {},
        {"Accept": "*/*"},
        {"Accept": "application/json"},
        {"Accept": "application/json, text/html;q=0.5"},
    ):
        answer = http.get("/", headers=accept)
        assert answer.get_json()["submit"] == "POST /v1/jobs/search"
        assert "Accept" in answer.headers["Vary"]


def test_the_page_may_load_and_ask_nothing_but_this_service(http: FlaskClient) -> None:
    page = http.get("/", headers=BROWSER)
    policy = dict(rule.split(" ", 1) for rule in page.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert not re.search(r'<style|<script(?! type="module" src="/static/)| on[a-z]+=| style=', page.text)
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page.text)


def test_files_of_the_page_are_kept_for_good_under_an_address_that_changes_with_them(http: FlaskClient) -> None:
    found = files(http)
    assert {Path(path).name for path in found} >= {"main.js", "page.css", "pico.min.css", "icon.svg"}
    for path in found:
        answer = http.get(path)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"]
        assert http.get(path, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    older = re.sub("/static/[0-9a-f]+/", "/static/000000000000/", found[0])
    assert http.get(older).headers["Cache-Control"] == "no-cache"


def test_scripts_are_sent_as_scripts_and_nothing_outside_is_sent(http: FlaskClient) -> None:
    version = files(http)[0].split("/")[2]
    for script in STATIC.glob("*.js"):
        assert http.get(f"/static/{version}/{script.name}").mimetype == "text/javascript"
    for path in ("../page.py", "..%2fpage.py", "%2e%2e/page.py", "vendor", "none.js"):
        assert http.get(f"/static/{version}/{path}").status_code == 404


def test_workers_are_told_with_what_waits(http: FlaskClient, client: redis.Redis) -> None:
    assert http.get("/v1/workers").get_json()["workers"] == []
    post(http, "/v1/jobs/embed")
    report(client, name="b", state="unready", problem="index damaged", reported_at=time.time() - 1)
    report(client, name="a", state="ready", held=2)
    told = http.get("/v1/workers").get_json()
    assert [(one["name"], one["state"], one["held"], one["problem"]) for one in told["workers"]] == [
        ("a", "ready", 2, None),
        ("b", "unready", 0, "index damaged"),
    ]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT.*Z", told["workers"][0]["reported_at"])
    assert (told["queue"]["queued"]["interactive"], told["queue"]["running"]) == (1, 0)
    assert told["queue"]["oldest_wait_s"] >= 0
