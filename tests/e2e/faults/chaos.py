"""Chaos: mixed load while parts are killed, frozen and replaced at random, and an account of every promise at the end.

`make chaos` runs it for MINUTES; part of `make test` in a version of half a minute. Redis writes each change to disk
before it answers, so that what is lost is lost by us; on Sentinels each submit waits for the replica instead.
"""

import argparse
import itertools
import math
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import redis
import requests

from pipeline.demo.catalogue import generate
from shared.api_keys import KeyRing, Scope
from shared.artifacts.bucket import Bucket
from shared.artifacts.snapshots import index_store
from shared.catalogue.categories import CATEGORIES
from shared.progress import ReportProgress
from tests.e2e.conftest import eventually, lookalike
from tests.e2e.faults.monkey import Monkey, Supervisor
from tests.e2e.faults.report import Plan, Report, percentiles, told
from tests.e2e.support.clients import MIXED, SEARCHES, Clients
from tests.e2e.support.fleet import Fleet
from tests.e2e.support.ledger import MAX_ATTEMPTS, Ledger
from tests.e2e.support.librarian import Librarian, Shelves
from tests.e2e.support.memory import MemoryWatch
from tests.e2e.support.sentinels import Group
from tests.e2e.support.shop import Shelf, Shop
from tests.support.milvus import MilvusLite
from tests.support.object_store import ObjectStore, Proxy
from tests.support.places import kept_in, location_of, searched_in
from tests.support.ports import free_port
from tests.support.snapshots import write_reversed

WORKERS = ("worker", "worker-2")
SPARED = ("worker", "api-2")  # where memory is watched: frozen at most
_LEASE_S = 6
_REPORT_EVERY_S = 10
_KEPT_S = 300  # in long runs, so that what has ended does not pile up
_CACHED = 256  # likewise
_SWEEP_EVERY_S = 30
N_LISTINGS = 52  # of the catalogue at first
_ADDED, _GROWS = 8, 25  # listings before each reindex, and how often there are some
_DELETABLE = 20  # photos of the catalogue that may be taken out
_SHOP_SHARE = 0.25  # of the submits, where the catalogue changes
_WARMUP_S = 600.0  # of memory


class Soak:
    """The service of `home` under load and faults.

    Args:
        home: an installation of its own.
        directory: for Redis's log and that of the parts.
        photos: to send, by id; the catalogue has them from beginning to end.
        log: of the parts; None: in `directory`.
        sentinel: Redis is a primary with a replica and three Sentinels.
        store: before the object store, where artifacts are in one.
        milvus: with the vectors, if they are in one.
    """

    def __init__(
        self,
        home: Path,
        directory: Path,
        photos: Mapping[str, bytes],
        plan: Plan,
        *,
        log: Path | None = None,
        sentinel: bool = False,
        store: Proxy | None = None,
        milvus: MilvusLite | None = None,
    ) -> None:
        self._plan = plan
        self._ids, self._photos = list(photos), list(photos.values())
        self._rng = random.Random(plan.seed)
        self._store, self._milvus = store, milvus
        group = None
        if sentinel:
            (directory / "group").mkdir()
            group = Group(directory / "group", tls=False)
        settings: dict[str, object] = {"redis_replicas": 1} if sentinel else {}
        if plan.whole:
            settings |= {"catalogue": plan.served, "keep_snapshots": 3}
        if plan.memory:
            settings |= {"result_ttl_s": _KEPT_S, "cache_entries": _CACHED}
        else:
            settings["cache_entries"] = 0  # every photo costs a pass
        self._fleet = Fleet(
            home,
            directory / "valkey",
            log=log or directory / "log",
            group=group,
            variables={"AWS_ENDPOINT_URL": store.url} if store else {},
            lease_s=_LEASE_S,  # short, so that frozen workers lose theirs
            streams=2,
            **settings,
        )

    def run(self, report_progress: ReportProgress) -> Report:
        """Run it, let it finish, and settle accounts."""
        plan, fleet, rng = self._plan, self._fleet, self._rng
        try:
            ledgers, operator = self._start()
            per_s = plan.per_s or self._capacity(ledgers[0]) / 2
            report_progress(f"seed {plan.seed}, offering {per_s:.1f}/s for {plan.duration_s:.0f} s")
            fixed = [] if plan.whole else [*index_store(fleet.location).versions(), write_reversed(fleet.location)]
            clients = self._clients(ledgers, operator, per_s)
            supervisor = Supervisor(fleet, ("api", *WORKERS), rng)
            monkey = Monkey(
                fleet,
                self._promotable if plan.whole else lambda: fixed,
                rng,
                workers=WORKERS,
                spared=SPARED if plan.memory else (),
                lease_s=_LEASE_S,
                store=self._store,
                milvus=self._milvus,
            )
            watch = MemoryWatch(self._pids, plan.memory or Path(os.devnull))
            ended = threading.Event()
            sweeper = threading.Thread(target=self._sweep, args=(ledgers, ended), daemon=True)
            redis_mb: list[float] = []
            began = reported = time.monotonic()
            for thread in (supervisor, watch, sweeper):
                thread.start()
            with ExitStack() as going_on:
                for each in clients:
                    going_on.enter_context(each)
                while (elapsed_s := time.monotonic() - began) < plan.duration_s:
                    if self._plan.memory and elapsed_s >= _WARMUP_S * len(redis_mb):
                        redis_mb += self._redis_mb()
                    if time.monotonic() - reported >= _REPORT_EVERY_S:
                        reported = time.monotonic()
                        report_progress(_line(elapsed_s, ledgers, clients, monkey))
                    time.sleep(rng.uniform(1, 5))
                    with supervisor.mending:  # so that no fault meets a part that is being started
                        monkey.strike()
                report_progress("no more faults; letting clients and workers finish")
            watch.stop()
            for thaw in monkey.thaws:
                thaw.join()
            eventually(lambda: requests.get(fleet.url + "/readyz", timeout=5).ok, 60, "the service is ready again")
            ended.set()
            sweeper.join()
            report = self._account(ledgers, operator, clients, monkey)
            supervisor.stop()
            report.errors += supervisor.troubles
            if plan.memory:
                report.memory = watch.grown(min(_WARMUP_S, plan.duration_s / 3))
                report.redis_mb = redis_mb
            return report
        finally:
            fleet.close()

    def _start(self) -> tuple[list[Ledger], Ledger]:
        """Start all parts; returns a ledger for each tenant, and that of who may reindex."""
        plan, fleet = self._plan, self._fleet
        kept_s = _KEPT_S if plan.memory else math.inf
        tokens = [""]
        if plan.tenants:
            with fleet.client() as client:
                ring = KeyRing(client)
                scopes = [{Scope.SUBMIT, Scope.READ}] * plan.tenants + [{Scope.ADMIN}]
                tokens = [ring.create(f"key {n}", allowed)[1] for n, allowed in enumerate(scopes)]
        fleet.man(len(WORKERS))
        urls = [fleet.url]
        if plan.memory:
            port = free_port()
            fleet.start("api-2", port=port)
            urls.append(f"http://127.0.0.1:{port}")
            eventually(lambda: requests.get(urls[1] + "/readyz", timeout=5).ok, 60, "the second API")
        ledgers = [
            Ledger(url, token, kept_s=kept_s, max_attempts=math.inf if self._store else MAX_ATTEMPTS)
            for url, token in zip(itertools.cycle(urls), tokens[: max(1, plan.tenants)], strict=False)
        ]
        return ledgers, Ledger(urls[-1], tokens[-1]) if plan.tenants else ledgers[0]

    def _clients(self, ledgers: Sequence[Ledger], operator: Ledger, per_s: float) -> list[Clients]:
        """Those of every tenant, and who changes the catalogue, if it changes."""
        plan, shelf = self._plan, Shelf(self._plan.deletable)
        n_threads, seed, clients = 12 // len(ledgers), plan.seed, list[Clients]()
        each_per_s = per_s / len(ledgers) * (1 - _SHOP_SHARE if plan.whole else 1)

        def check(number: int, job: dict[str, object], sent_at: float) -> str | None:
            return shelf.complaint(job, sent_at, self._ids[number])

        for n, ledger in enumerate(ledgers):
            mixed = Clients(
                ledger,
                self._photos,
                per_s=each_per_s,
                n_threads=n_threads,
                mix=MIXED,
                follow=True,
                seed=seed + n,
                image_ids=self._ids,
                check=check,
            )
            clients.append(mixed)
            if plan.whole:
                shop_per_s = per_s / len(ledgers) * _SHOP_SHARE
                clients.append(Shop(ledger, shelf, CATEGORIES, per_s=shop_per_s, n_threads=2, seed=seed + 100 + n))
        if plan.whole and plan.write:
            shelves = Shelves(plan.whole, plan.write, n_listings=N_LISTINGS)
            every_s = plan.reindex_every_s
            clients.append(Librarian(operator, shelves, every_s=every_s, n_listings=_ADDED, seed=seed + 200))
        return clients

    def _capacity(self, ledger: Ledger) -> float:
        """Photos a second with nothing broken and more clients than it can serve."""
        began = time.monotonic()
        with Clients(ledger, self._photos, per_s=10_000, n_threads=12, mix=SEARCHES, follow=True) as clients:
            time.sleep(3)
        return len(clients.latencies_s) / (time.monotonic() - began)

    def _promotable(self) -> list[str]:
        """Versions that were live lately."""
        store = index_store(self._fleet.location)
        lately = {promotion.version for promotion in store.history()[-4:]}
        return [version for version in store.versions() if version in lately]

    def _pids(self) -> dict[str, int]:
        return {
            **{name: process.pid for name, process in self._fleet.processes.items() if process.poll() is None},
            **self._fleet.pids_of_redis(),
            **self._plan.bystanders,
        }

    def _redis_mb(self) -> list[float]:
        """What its data take; nothing while it is away."""
        with suppress(redis.RedisError), self._fleet.client() as client:
            return [client.info("memory")["used_memory"] / 1e6]
        return []

    def _sweep(self, ledgers: Sequence[Ledger], ended: threading.Event) -> None:
        """See the end of every job before the service forgets it."""
        while not ended.wait(_SWEEP_EVERY_S):
            for ledger in ledgers:
                with suppress(requests.RequestException, ValueError):  # while the API is away
                    ledger.open()

    def _account(
        self, ledgers: Sequence[Ledger], operator: Ledger, clients: Sequence[Clients], monkey: Monkey
    ) -> Report:
        report = Report(faults=monkey.faults)
        for ledger in ledgers:
            report.add(ledger)
        if operator not in ledgers:
            report.lost += [job_id for job_id in operator.accepted if not operator.saw_end(job_id)]
        for one, other in itertools.permutations(ledgers, 2):
            report.errors += [f"{job_id} is told to another key" for job_id in one.told_to(other.headers)]
        for each in clients:
            if isinstance(each, Shop):
                each.look_for_all()
                report.changes += each.changes
            if isinstance(each, Librarian):
                report.reindexes += each.outcomes
            report.errors += each.errors
            report.refused += each.refused
            report.latencies_s += each.latencies_s
        report.errors += [
            f"{name} ended by itself" for name in SPARED if self._plan.memory and not self._fleet.alive(name)
        ]
        return report


def _line(elapsed_s: float, ledgers: Sequence[Ledger], clients: Sequence[Clients], monkey: Monkey) -> str:
    by_status = sum((ledger.by_status() for ledger in ledgers), Counter[str]())
    latencies_s = [latency for each in clients for latency in each.latencies_s[-200:]]
    errors = [error for each in clients for error in each.errors]
    return (
        f"{elapsed_s:5.0f} s  accepted {sum(len(ledger.accepted) for ledger in ledgers)}, "
        f"open {sum(ledger.n_open for ledger in ledgers)}, ended {told(by_status)}; "
        f"{percentiles(latencies_s)}; faults {monkey.faults.total()}" + "".join(f"\n  {one}" for one in errors[-3:])
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Soak the service under load and random faults.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--per-s", type=float, default=0, help="submits a second; 0: half of what it can do")
    parser.add_argument("--tenants", type=int, default=0, help="API keys, each with clients of its own")
    parser.add_argument("--artifacts", choices=("files", "s3"), default="files")
    parser.add_argument("--index", choices=("faiss", "milvus"), default="faiss")
    parser.add_argument("--sentinel", action="store_true", help="Redis is a primary with a replica and Sentinels")
    parser.add_argument("--changes", action="store_true", help="the catalogue grows; photos are put and deleted")
    parser.add_argument("--reindex-every", type=float, default=4, metavar="MINUTES", help="with --changes")
    parser.add_argument(
        "--memory",
        type=Path,
        metavar="CSV",
        help="write there what processes take; a worker and an API are never killed",
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="of all parts")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lookalike-chaos-") as name, ExitStack() as places:
        directory = Path(name)
        store = milvus = proxy = None
        if asked.artifacts == "s3":
            store = places.enter_context(ObjectStore(directory / "s3.log"))
            proxy = Proxy(store.port)
            places.callback(proxy.close)
            places.enter_context(kept_in(store, directory / "own-host"))
        if asked.index == "milvus":
            milvus = MilvusLite(directory)
            places.callback(milvus.kill)
            places.enter_context(searched_in(milvus))
        home, demo = directory / "home", directory / "demo"
        generate(demo, n_listings=N_LISTINGS + (_ADDED * _GROWS if asked.changes else 0))
        served, write = _served(home, directory) if asked.changes else (str(demo), None)
        if write:
            Shelves(demo, write).grow(N_LISTINGS)
        built = lookalike("index", "build", "--catalogue", served, home=home)
        if built.returncode:
            print(built.stderr, file=sys.stderr)
            return 1
        photos = first_photos(demo, N_LISTINGS)
        deletable = dict(itertools.islice(photos.items(), _DELETABLE)) if asked.changes else {}
        plan = Plan(
            duration_s=60 * asked.minutes,
            seed=asked.seed,
            per_s=asked.per_s,
            tenants=asked.tenants,
            whole=demo if asked.changes else None,
            served=served,
            write=write,
            deletable=deletable,
            reindex_every_s=60 * asked.reindex_every,
            memory=asked.memory,
            bystanders={
                **({"milvus (milvus-lite)": milvus.pid} if milvus else {}),
                **({"s3 (moto)": store.pid} if store else {}),
            },
        )
        kept = {image_id: photo for image_id, photo in photos.items() if image_id not in deletable}
        log = asked.log or directory / "log"
        soak = Soak(home, directory, kept, plan, log=log, sentinel=asked.sentinel, store=proxy, milvus=milvus)
        report = soak.run(lambda line: print(line, flush=True))
    print(report)
    return 0 if report.passed else 1


def first_photos(catalogue: Path, n_listings: int) -> dict[str, bytes]:
    """Photos by id of the first listings of a catalogue."""
    shelves = Shelves(catalogue, lambda name, content: None, n_listings=n_listings)
    return {row["id"]: (catalogue / "images" / f"{row['id']}.jpg").read_bytes() for row in shelves.images()}


def _served(home: Path, directory: Path) -> tuple[str, Callable[[str, bytes], object]]:
    """Where a catalogue lies that changes, and what writes a file of it."""
    location = location_of(home)
    if isinstance(location, Bucket):
        return f"{location.url}/catalogue", lambda name, content: location.write(f"catalogue/{name}", content)

    def write(name: str, content: bytes) -> None:
        file = directory / "catalogue" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    return str(directory / "catalogue"), write


if __name__ == "__main__":
    sys.exit(main())
