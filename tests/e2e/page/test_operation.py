"""What people do with the page who look after the service: reindexes, versions, jobs."""

import re
from pathlib import Path

import numpy as np
import requests
from PIL import Image
from playwright.sync_api import expect

from shared.artifacts.snapshots import index_store
from shared.catalogue.categories import CATEGORIES
from shared.index.traffic import REFERENCE
from tests.e2e.page.conftest import Go
from tests.e2e.support.fleet import Fleet
from tests.support.copies import COPIES, jpeg
from tests.support.snapshots import write_reversed

# --- index ---


def test_how_good_answers_are_of_late_is_told(go: Go, served: Fleet, photos: list[Path]) -> None:
    for photo in photos[:3]:
        files = {"image": photo.read_bytes()}
        answer = requests.post(f"{served.url}/v1/jobs/search", files=files, headers={"Prefer": "wait=10"}, timeout=20)
        assert answer.json()["status"] == "succeeded"
    store = index_store(served.location)
    assert store.file(str(store.current()), REFERENCE).is_file()  # what queries are compared with
    visit = go("#/index")
    told = visit.page.locator("#live-quality")
    expect(told).to_contain_text("3 searches of the last seven days", timeout=20_000)
    for words in ("Ten nearest found", "100 %", "Damage", "fine", "Drift", "not known yet"):
        expect(told).to_contain_text(words)
    assert visit.violations() == []


def test_a_reindex_is_watched_and_its_report_read(go: Go, served: Fleet) -> None:
    visit = go("#/index")
    page = visit.page
    expect(page.locator("#live")).to_contain_text("104")
    page.get_by_label("All of them").check()
    page.get_by_role("button", name="Reindex").click()
    told = page.locator("#reindex-message")
    expect(told).to_contain_text(re.compile(r"embedding: \d+ of 104"))
    visit.keep("reindexing")
    expect(told).to_contain_text("went live", timeout=60_000)
    expect(page.locator("#versions li")).to_have_count(2)
    expect(page.locator("#versions li").first).to_contain_text("live")
    told.get_by_role("button", name="Report").click()
    expect(page.get_by_role("dialog")).to_contain_text("New beside live")
    assert visit.violations() == []
    visit.keep("report")


def test_a_reindex_is_followed_by_whoever_comes_and_cancelled(go: Go, served: Fleet) -> None:
    before = index_store(served.location).current()
    assert requests.post(f"{served.url}/v1/jobs/reindex", json={"mode": "all"}, timeout=10).status_code == 202
    page = go("#/index").page
    told = page.locator("#reindex-message")
    expect(told).to_contain_text(re.compile(r"embedding: \d+ of"))
    page.get_by_role("button", name="Reindex").click()  # there is one already, so that is what is shown
    expect(told).to_contain_text(re.compile(r"embedding: \d+ of"))
    told.get_by_role("button", name="Cancel").click()
    expect(told).to_contain_text("The reindex was cancelled")
    assert index_store(served.location).current() == before


def test_what_a_reindex_would_do_is_told_without_doing_it(go: Go, served: Fleet) -> None:
    page = go("#/index").page
    page.get_by_label("Only say what would be done").check()
    page.get_by_role("button", name="Reindex").click()
    expect(page.locator("#reindex-message")).to_contain_text("104 photos unchanged")


def test_a_version_is_made_live_and_left_again_after_a_question_each(go: Go, served: Fleet) -> None:
    served_before = requests.get(f"{served.url}/v1/index", timeout=10).json()["version"]
    version = write_reversed(served.location)
    visit = go("#/index")
    page, name = visit.page, version.rpartition("-")[2]
    promote = page.get_by_role("button", name=f"Make version {name} live")
    promote.click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert requests.get(f"{served.url}/v1/index", timeout=10).json()["version"] == served_before
    promote.click()
    visit.keep("question")
    page.get_by_role("dialog").get_by_role("button", name="Make it live").click()
    expect(page.locator("#index-message")).to_contain_text(f"Version {name} is live")
    assert requests.get(f"{served.url}/v1/index", timeout=10).json()["version"] == version
    page.get_by_role("button", name="Go back to the one before").click()
    page.get_by_role("dialog").get_by_role("button", name="Go back").click()
    expect(page.locator("#index-message")).to_contain_text(f"Version {served_before.rpartition('-')[2]} is live")
    assert requests.get(f"{served.url}/v1/index", timeout=10).json()["version"] == served_before


# --- duplicates ---


def test_duplicates_are_found_and_a_person_says_which_are_none(go: Go, served: Fleet, photos: list[Path]) -> None:
    copy = jpeg(COPIES["mirrored"](Image.open(photos[0]).convert("RGB"), np.random.default_rng(17)), 40)
    put = requests.put(
        f"{served.url}/v1/images/relisted",
        data={"listing_id": "another seller", "category": CATEGORIES[0]},
        files={"image": copy},
        headers={"Prefer": "wait=20"},
        timeout=30,
    ).json()
    [original] = [one for one in put["result"]["duplicates"] if one["label"] == "same_picture"]
    assert (original["image_id"], original["mirrored"]) == (photos[0].stem, True)
    visit = go("#/duplicates")
    page = visit.page
    page.get_by_role("button", name="Find duplicates").click()
    group = page.locator("#groups > li", has_text="relisted").filter(has_text="Same picture")
    expect(group).to_contain_text("mirrored", timeout=30_000)
    expect(group).to_contain_text("2 photos of 2 listings")
    assert visit.violations() == []
    visit.keep("duplicates")
    group.get_by_role("button", name="Not a duplicate").click()
    expect(page.locator("#spoken")).to_have_text("Remembered: these are no duplicates.")
    page.get_by_role("button", name="Find duplicates").click()
    expect(page.locator("#duplicates-message")).to_contain_text("1 pair left out")
    expect(group).to_have_count(0)
    verdicts = requests.get(f"{served.url}/v1/duplicates/verdicts", timeout=10).json()["verdicts"]
    assert verdicts == [{"image_ids": sorted(["relisted", photos[0].stem]), "verdict": "not_duplicate"}]
    requests.delete(f"{served.url}/v1/images/relisted", headers={"Prefer": "wait=20"}, timeout=30)


# --- jobs ---


def test_jobs_are_filtered_paged_and_failed_ones_submitted_again(go: Go, served: Fleet, photos: list[Path]) -> None:
    wanted = {"image_id": "gone", "k": 3}
    job = requests.post(f"{served.url}/v1/jobs/search", json=wanted, headers={"Prefer": "wait=20"}, timeout=30).json()
    assert job["status"] == "failed", job
    for number in range(26):
        body = {"image_id": photos[number].stem}
        assert requests.post(f"{served.url}/v1/jobs/embed", json=body, headers={"Prefer": "wait=20"}, timeout=30).ok
    page = go("#/jobs").page
    expect(page.locator("#workers")).to_contain_text("ready")
    expect(page.locator("#list li")).to_have_count(25)
    page.get_by_role("button", name="Older").click()
    expect(page.locator("#list")).to_contain_text(job["id"][:8])
    page.get_by_role("button", name="Newest").click()
    page.get_by_label("Status").select_option("failed")
    row = page.locator(f'#list li[data-key="{job["id"]}"]')
    expect(row).to_contain_text("not in the index any more")
    failed = requests.get(f"{served.url}/v1/jobs", params={"status": "failed"}, timeout=30).json()["jobs"]
    expect(page.locator("#list li")).to_have_count(len(failed))
    row.get_by_role("button", name="Retry").click()
    expect(page.locator("#spoken")).to_have_text("Submitted again.")
    expect(page.locator("#list li")).to_have_count(len(failed) + 1)
