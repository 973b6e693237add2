"""`make containers`: builds the images, runs the compose file, kills, restores and upgrades it, under searches.

Prints what it measured, as docs/deployment.md has it. Fails where a search is lost or answered wrongly, where the
Python client does not get over what is refused, and where something documented does not hold.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import requests

from pipeline.demo.catalogue import generate
from tests.containers.installation import Installation, installation, missing, until
from tests.containers.traffic import Traffic

_LISTINGS = 120
_LONG_RUNNING = ("worker-interactive", "worker-bulk", "api", "redis", "prepared", "flower", "prometheus", "grafana")
_AFTERWARDS_S = 5
# With these and any further ones, docs/deployment.md promises every verb but `up`.
_VERBS = (
    ("--version",), ("doctor",), ("status",), ("workers",), ("clean",), ("prepare",), ("index", "list"),
    ("index", "show"), ("index", "verify"), ("index", "prune"), ("bundle", "list"), ("schedule", "show"),
    ("keys", "list"), ("audit",), ("jobs", "list"), ("reindex", "--wait"), ("evaluate",),
    ("plot", "--out", "/data/plots"), ("completion", "bash"),
)  # fmt: skip


class Trial:
    """The steps of one run, in their order."""

    def __init__(self, made: Installation, dump: Path) -> None:
        self._made, self._dump = made, dump
        self._photos = sorted((dump / "images").iterdir())
        self.failed: list[str] = []

    def build(self) -> None:
        with self._timed("build of all images"):
            self._made.build("tried-1")
        print("  " + ", ".join(f"{name} {size}" for name, size in self._made.sizes().items()))

    def start(self) -> None:
        self._made.use(CATALOGUE=str(self._dump))
        with self._timed("first `up -d --wait`, with model and index"):
            self._made.compose("up", "-d", "--wait")
        self._check("all containers are healthy", self._made.healthy() and self._made.ready())

    def verbs(self) -> None:
        photo = f"/catalogue{self._dump}/images/{self._photos[0].name}"
        for verb in (*_VERBS, ("search", photo), ("search", photo, "--url", "http://api:8080")):
            try:
                self._made.verb(*verb)
            except AssertionError as exc:
                self._check(f"lookalike {' '.join(verb)}: {exc}", False)

    def flower(self) -> None:
        password = self._made.compose("exec", "-T", "redis", "cat", "/run/secrets/flower_password").strip()
        login, url = ("lookalike", password), "http://127.0.0.1:5555"
        workers = [each["hostname"] for each in requests.get(f"{url}/?json=1", auth=login, timeout=20).json()["data"]]
        pages = [requests.get(f"{url}/worker/{name}", auth=login, timeout=20) for name in workers]
        shown = [page.ok and "lookalike.search" in page.text for page in pages]
        self._check(f"Flower has a page for each worker: {workers}", shown == [True, True])

    def nothing_changed(self) -> None:
        before = self._made.containers()
        self._under_traffic("`up -d` with nothing changed", self._up, most_refused=0)
        self._check("no container was replaced", self._made.containers() == before)

    def kills(self) -> None:
        for service in _LONG_RUNNING:
            self._under_traffic(f"{service} killed", partial(self._kill, service), most_refused=15)

    def changed_catalogue(self) -> None:
        version = self._made.index_version()
        images = self._dump / "Images.csv"
        *kept, gone = images.read_text().splitlines(keepends=True)
        images.write_text("".join(kept))
        self._photos = [photo for photo in self._photos if photo.stem != gone.split(",")[0]]
        before = self._made.containers()

        def reindex() -> None:
            self._up()
            until(lambda: self._made.index_version() != version, 120, "a new index")

        self._under_traffic("changed catalogue, `up -d`", reindex, most_refused=0)
        self._check("no container was replaced", self._made.containers() == before)
        self._check("the service reindexed", "reindex" in self._made.verb("jobs", "list", "--kind", "reindex"))

    def backup(self) -> None:
        searched = requests.post(
            f"{self._made.url}/v1/jobs/search",
            files={"image": self._photos[0].read_bytes()},
            headers={"Prefer": "wait=25"},
            timeout=30,
        ).json()
        version = self._made.index_version()
        self._under_traffic("backup", partial(self._made.documented, "Backup"), most_refused=0)
        with self._timed("everything lost, and restored"):
            self._made.documented("Restore")
            until(self._made.ready, 120, "the service as it was")
        self._check("the index is the same", self._made.index_version() == version)
        kept = requests.get(f"{self._made.url}{searched['links']['self']}", timeout=5).json()
        self._check(f"so are the jobs: {kept}", kept.get("result") == searched["result"])

    def wrong_catalogues(self) -> None:
        before = self._made.containers()
        mistyped = self._dump.with_name("shpo")
        self._made.use(CATALOGUE=str(mistyped))
        printed = self._made.compose("up", "-d", fails=True)
        self._check("a mistyped path is named", f"source path does not exist: {mistyped}" in printed)
        self._check("and not made", not mistyped.exists())
        self._check("and what ran runs on", self._made.containers() == before and self._made.ready())
        locked = self._dump.with_name("locked")
        locked.mkdir(mode=0o700)
        for catalogue, reason in ((locked, "may not be read by user 10001"), (None, "the catalogue used last")):
            self._made.use(CATALOGUE=str(catalogue) if catalogue else None)
            self._made.compose("up", "-d", fails=True)
            printed = self._made.compose("logs", "--no-log-prefix", "prepare")
            self._check(f"prepare says: {reason}", reason in printed and "Traceback" not in printed)
            until(self._made.ready, 60, "a service that serves what is live")
        self._made.use(CATALOGUE=str(self._dump))
        self._up()
        until(self._made.ready, 60, "the service with its catalogue again")

    def upgrade(self) -> None:
        for package in ("shared", "api", "worker"):
            with (self._made.checkout / package / "__init__.py").open("a") as file:
                file.write("# a newer one\n")
        with self._timed("build after an edit in shared/"):
            printed = self._made.build("tried-2")
        done = [line.split()[0] for line in printed.splitlines() if "pip --python" in line]
        self._check("no package was installed again", bool(done) and all(f"{step} CACHED" in printed for step in done))
        self._under_traffic("upgrade as documented", self._upgrade, most_refused=10)
        self._made.build("tried-3")
        self._under_traffic("upgrade by `up -d` alone", self._up, most_refused=30)

    def end(self) -> None:
        self._made.compose("--profile", "*", "down", "--volumes")
        self._check("nothing is left", self._made.leftovers() == [])

    def _upgrade(self) -> None:
        scaled = ("--no-deps", "--no-recreate", "--scale", "worker-interactive=2", "--wait", "worker-interactive")
        self._made.compose("up", "-d", *scaled)
        self._made.compose("up", "-d", "--no-deps", "--wait", "api")
        self._up()

    def _up(self) -> None:
        self._made.compose("up", "-d", "--wait")

    def _kill(self, service: str) -> None:
        self._made.kill(service)
        until(lambda: self._made.healthy() and self._made.ready(), 120, f"{service} again")

    def _under_traffic(self, what: str, change: Callable[[], None], *, most_refused: int) -> None:
        with Traffic(self._made.url, self._photos) as traffic:
            time.sleep(_AFTERWARDS_S)
            began = time.monotonic()
            change()
            took = time.monotonic() - began
            time.sleep(_AFTERWARDS_S)
        account = traffic.account
        print(f"{what}: {took:.0f} s; {account}", flush=True)
        self._check(f"{what}: {account.lost[:1]} {account.wrong[:1]} {account.client[:1]}", account.passed)
        self._check(f"{what}: at most {most_refused} refused", account.refused <= most_refused)

    def _check(self, what: str, holds: bool) -> None:
        if not holds:
            self.failed.append(what)
            print(f"FAILED  {what}", flush=True)

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        print(f"{what}: {time.monotonic() - began:.0f} s", flush=True)


def main() -> int:
    if reason := missing():
        print(f"skipped: the compose file needs Docker with compose and buildx, and {reason}")
        return 0
    with installation() as made:
        dump = made.checkout.with_name("shop")
        generate(dump, n_listings=_LISTINGS)
        trial = Trial(made, dump)
        steps = (
            *(trial.build, trial.start, trial.verbs, trial.flower, trial.nothing_changed, trial.kills),
            *(trial.changed_catalogue, trial.backup, trial.wrong_catalogues, trial.upgrade, trial.end),
        )
        for step in steps:
            step()
    print(f"{len(trial.failed)} failed")
    return int(bool(trial.failed))


if __name__ == "__main__":
    sys.exit(main())
