"""Several hosts for real: one is cut off, Redis's goes dark, one dies in the middle of a shard, and all comes back.

Searches and a reindex go on all the while. What it costs is printed (`pytest -s`).
"""

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from shared.artifacts.snapshots import bundle_store
from tests.e2e.support.clients import Clients
from tests.e2e.support.ledger import TERMINAL, Ledger
from tests.e2e.support.netns import Network, why_not
from tests.e2e.support.site import WORKERS, Site, until
from tests.support.places import location_of

TAKEN_OVER_WITHIN_S = 30  # P3
REDIS_BACK_WITHIN_S = 40
SLOWLY_S = 60  # on a machine with much else to do


@pytest.fixture
def network() -> Iterator[Network]:
    if reason := why_not():
        if os.environ.get("CI") and os.geteuid() == 0 and shutil.which("ip"):
            pytest.fail(reason)
        pytest.skip(reason)
    with Network() as network:
        yield network


@pytest.fixture
def bundle(home: Path) -> Path:
    """The model; asked for first, because from the hosts there is no way to where it lies."""
    store = bundle_store(location_of(home))
    return store.path(store.newest())


@pytest.fixture
def site(network: Network, tmp_path: Path) -> Iterator[Site]:
    site = Site(network, tmp_path)
    with site.hosts["client"].inside():
        yield site


class Reindex:
    """A reindex by the operator."""

    def __init__(self, site: Site, api_key: str) -> None:
        self._site = site
        self._accounts = Ledger(site.url, api_key)
        answer = requests.post(
            f"{site.url}/v1/jobs/reindex", json={"mode": "all"}, headers=self._accounts.headers, timeout=10
        )
        assert answer.status_code == 202, answer.text
        self.job_id: str = answer.json()["id"]

    def read(self) -> dict[str, Any]:
        return self._accounts.read(self.job_id)

    def host(self) -> str:
        """Where it is run, with a shard in hand too; empty while that is so nowhere."""
        for name in WORKERS:
            in_hand = self._site.in_hand(name)
            if self.job_id in in_hand and "shard" in in_hand.values():
                return name
        return ""

    def ended(self) -> bool:
        return self.read()["status"] in TERMINAL

    def done(self) -> int:
        progress = self.read()["progress"]
        return progress["done"] if progress and progress["stage"] == "embedding" else 0

    def get_on(self) -> None:
        """Let the shards go on for a while."""
        before = self.done()
        for name in WORKERS:
            self._site.release("shards", name)
        until(lambda: self.done() > before, SLOWLY_S, "the reindex gets on")
        for name in WORKERS:
            self._site.hold("shards", name)


class Told:
    """What happened when, for whoever reads along."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._began = time.monotonic()

    def tell(self, what: str, took_s: float) -> None:
        self.lines.append(f"{time.monotonic() - self._began:6.1f} s  {what}: {took_s:.1f} s")


def test_promises_hold_while_hosts_are_cut_off_go_dark_and_die(
    bundle: Path, site: Site, photos: list[Path], catalogue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = Told()
    keys = site.start(bundle, catalogue)
    told.tell("everything is started", time.monotonic() - told._began)
    ledger = Ledger(site.url, keys["shop"])
    contents = [photo.read_bytes() for photo in photos]
    try:
        first = Reindex(site, keys["operator"])
        until(first.ended, SLOWLY_S, "there is an index")
        site.wait_ready(n_workers=len(WORKERS))
        told.tell("the workers have made an index and fetched it", time.monotonic() - told._began)
        before = first.read()["result"]["index_version"]
        for name in WORKERS:
            site.hold("shards", name)
        reindex = Reindex(site, keys["operator"])
        until(reindex.host, SLOWLY_S, "the reindex has begun")
        reindex.get_on()

        cut_off = until_host(reindex)
        a_worker_host_is_cut_off(site, ledger, contents, cut_off, told)
        assert reindex.host() != cut_off
        reindex.get_on()

        old = the_primary_goes_dark(site, ledger, contents, told)
        reindex.get_on()

        a_worker_host_dies(site, ledger, contents, until_host(reindex), told)
        for name in WORKERS:
            site.release("shards", name)
        began = time.monotonic()
        until(reindex.ended, SLOWLY_S, "the reindex ends")
        told.tell("the reindex ends, nothing being in its way any more", time.monotonic() - began)

        too_much_is_refused(site, ledger, contents)
        ledger.settle(SLOWLY_S)
        every_answer_names_one_version(site, ledger, contents[0], before, reindex)
        # It was started as the primary it once was; its Sentinels have told it otherwise.
        until(lambda: site.replication(old)["role"] == "slave", SLOWLY_S, "the old primary is a replica")
        nobody_reads_anothers_job(ledger, Ledger(site.url, keys["other"]))
    finally:
        with capsys.disabled():
            print("", *told.lines, sep="\n")


def until_host(reindex: Reindex) -> str:
    until(reindex.host, SLOWLY_S, "some host runs the reindex and has a shard in hand")
    return reindex.host()


def a_worker_host_is_cut_off(site: Site, ledger: Ledger, photos: list[bytes], name: str, told: Told) -> None:
    """Its jobs are done elsewhere, and what it writes when it is back comes too late."""
    site.hold("photos", name)
    with Clients(ledger, photos, per_s=5, n_threads=3) as clients:
        until(lambda: site.holds("photos", name), SLOWLY_S, f"{name} has a search in hand")
        site.hosts[name].unplug()
        stranded = site.in_hand(name)
        took_s = until(lambda: not site.in_hand(name), TAKEN_OVER_WITHIN_S, "others have taken over its jobs")
        told.tell(f"{name} is cut off, and its {len(stranded)} jobs are taken over", took_s)
        site.release("photos", name)
        searches = [job_id for job_id, kind in stranded.items() if kind == "search"]
        until(lambda: ended(ledger, searches), TAKEN_OVER_WITHIN_S, "its searches are done")
        site.hosts[name].plug_in()
        told.tell(f"{name} is plugged in and reports itself", site.wait_reported(name))
    assert clients.errors == []
    # Not of every one: it never had those that were on their way to it just then.
    until(lambda: set(searches) & site.logged(name, "late_write_dropped"), SLOWLY_S, "its late writes are dropped")
    ledger.settle(SLOWLY_S)
    assert not set(searches) & site.logged(name, "job_finished")


def the_primary_goes_dark(site: Site, ledger: Ledger, photos: list[bytes], told: Told) -> str:
    """The replica is elected, and every accepted job is there and ends; returns the old primary, which is booted."""
    for name in WORKERS:
        site.hold("photos", name)
    for photo in photos[:24]:
        ledger.submit(photo)
    until(lambda: all(site.holds("photos", name) for name in WORKERS), SLOWLY_S, "both have some in hand")
    old = site.primary()
    with site.open_redis() as client:
        assert client.wait(1, 10_000) == 1  # what it has not yet would be lost
    site.hosts[old].lose_power()
    began = time.monotonic()
    for name in WORKERS:
        site.release("photos", name)
    took_s = until(lambda: site.primary() != old, REDIS_BACK_WITHIN_S, "the replica is elected")
    told.tell(f"{old} goes dark, the other is elected", took_s)
    with Clients(ledger, photos, per_s=5, n_threads=3) as clients:
        until(lambda: accepted(ledger, photos[0]), REDIS_BACK_WITHIN_S, "jobs are accepted")
        told.tell("jobs are accepted again after", time.monotonic() - began)
        newest = list(ledger.accepted)[-1:]
        until(lambda: ended(ledger, newest), REDIS_BACK_WITHIN_S, "jobs are done")
        told.tell("jobs are done again after", time.monotonic() - began)
        site.hosts[old].boot()
        site.start_redis(old)
    assert clients.errors == []
    ledger.settle(SLOWLY_S)
    return old


def a_worker_host_dies(site: Site, ledger: Ledger, photos: list[bytes], name: str, told: Told) -> None:
    """In the middle of a shard, with searches in hand: others do its work, and it comes back."""
    site.hold("photos", name)
    with Clients(ledger, photos, per_s=5, n_threads=3) as clients:
        until(lambda: site.holds("photos", name), SLOWLY_S, f"{name} has a search in hand")
        stranded = site.in_hand(name)
        assert {"search", "shard"} <= {*stranded.values()}
        site.hosts[name].lose_power()
        searches = [job_id for job_id, kind in stranded.items() if kind == "search"]
        took_s = until(lambda: ended(ledger, searches), TAKEN_OVER_WITHIN_S, "its searches are done elsewhere")
        told.tell(f"{name} dies, and its searches are done elsewhere", took_s)
        site.release("photos", name)
        site.hosts[name].boot()
        site.start_worker(name)
        told.tell(f"{name} is booted and ready", site.wait_reported(name))
    assert clients.errors == []
    ledger.settle(SLOWLY_S)


def too_much_is_refused(site: Site, ledger: Ledger, photos: list[bytes]) -> None:
    """P6: while nothing is done, more and more jobs are refused with the time to come back, and the others are done."""
    for name in WORKERS:
        site.hold("photos", name)

    def submit(photo: bytes) -> int:
        files = {"image": photo}
        answer = requests.post(f"{ledger.url}/v1/jobs/search", files=files, headers=ledger.headers, timeout=30)
        if answer.status_code == 202:
            ledger.accept(answer.json()["id"])
        else:
            assert answer.status_code == 429
            assert int(answer.headers["Retry-After"]) > 0
        return answer.status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(submit, photos))
    assert {202, 429} == set(statuses)
    for name in WORKERS:
        site.release("photos", name)


def every_answer_names_one_version(
    site: Site, ledger: Ledger, photo: bytes, before: str | None, reindex: Reindex
) -> None:
    """P4: the version before or the one after, each of them whole; and once every worker has that, only that one."""
    result = reindex.read()["result"]
    assert result["promoted"]
    after = result["index_version"]
    until(lambda: site.versions() == {after}, SLOWLY_S, "every worker has the new version")
    last = ledger.submit(photo)
    ledger.settle(SLOWLY_S)
    answers: list[Any] = [ledger.read(job_id)["result"] for job_id in [*list(ledger.accepted)[::3], last]]
    assert {answer["index_version"] for answer in answers} <= {before, after}
    assert answers[-1]["index_version"] == after
    assert {answer["neighbours"][0]["score"] > 0.99 for answer in answers} == {True}


def nobody_reads_anothers_job(ledger: Ledger, other: Ledger) -> None:
    """P5, on the Redis that took over."""
    said = []
    for job_id in (next(iter(ledger.accepted)), "0" * 32):
        answer = requests.get(f"{other.url}/v1/jobs/{job_id}", headers=other.headers, timeout=10)
        said.append({name: value for name, value in answer.json().items() if name not in ("request_id", "instance")})
        assert answer.status_code == 404
    assert said[0] == said[1]
    assert other.listed() == []


def ended(ledger: Ledger, job_ids: list[str]) -> bool:
    return all(ledger.read(job_id)["status"] in TERMINAL for job_id in job_ids)


def accepted(ledger: Ledger, photo: bytes) -> bool:
    """Whether a job is accepted now; if not, it is refused as promised (P6)."""
    files = {"image": photo}
    answer = requests.post(f"{ledger.url}/v1/jobs/search", files=files, headers=ledger.headers, timeout=30)
    if answer.status_code == 202:
        ledger.accept(answer.json()["id"])
        return True
    assert answer.status_code in (429, 503)
    assert int(answer.headers["Retry-After"]) > 0
    return False
