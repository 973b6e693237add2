"""The service against a bare loop over the same JPEGs, and against other servers of the same network: `make bench`.

    python -m tests.benchmarks.http [--backbone resnet50] [--clients 1 8 32 128] [--no-peers] [--quick]

Bare loops (the fastest we know, and the plainest: a photo after another), service and peers take turns on the same
cores in one run; figures are medians of the turns and ratios. The clients are a process of their own on the same cores,
and their share of the processor is told. Nothing is remembered: the embedding cache is off, and no two clients ask for
the same photo at the same time. Nothing here is asserted.
"""

import argparse
import os
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from shared.settings import Backbone
from tests.benchmarks.support.bare import BareLoop, Rate
from tests.benchmarks.support.clients import Asked, Load, ask
from tests.benchmarks.support.installation import UNCACHED, installed, serving
from tests.benchmarks.support.material import query_photos
from tests.benchmarks.support.peers import NO_NETWORK, PEERS, start
from tests.benchmarks.support.processes import cpu_by_part
from tests.benchmarks.support.report import Report
from tests.e2e.conftest import Stack
from tests.support.ports import free_port

_READY_WITHIN_S = 120
_FEWEST = 5  # answers of a turn
_OUTSIDE = "all but decode and model"
_LONGEST_S = 60.0  # a turn may get to have them


@dataclass(frozen=True)
class Server:
    """Something that is asked.

    Attributes:
        parts: process ids by name.
        computes: decodes photos and runs the network.
        cpu_ms: what its turns have cost, processor time a photo, by number of clients and part.
    """

    name: str
    port: int
    path: str
    parts: dict[str, int]
    multipart: bool = True
    computes: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    turns: dict[int, list[Asked]] = field(default_factory=lambda: defaultdict(list))
    cpu_ms: dict[tuple[int, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def ask(self, photos: Path, n_clients: int, seconds: float) -> Asked:
        warm_s = max(min(0.5, seconds), seconds / 4)
        return ask(
            Load(
                self.port, self.path, str(photos), n_clients, seconds, warm_s, self.multipart, self.headers, self.texts
            )
        )

    def take_turn(self, photos: Path, n_clients: int, seconds: float) -> None:
        """Ask for so long, or for longer if hardly anything was answered: a median wants more than that."""
        before = cpu_by_part(self.parts)
        while len((asked := self.ask(photos, n_clients, seconds)).latencies_s) < _FEWEST:
            if seconds > _LONGEST_S:
                raise SystemExit(f"{self.name}: {len(asked.latencies_s)} answers in {seconds:g} s")
            before, seconds = cpu_by_part(self.parts), 2 * seconds
        self.turns[n_clients].append(asked)
        spent_s = {part: used - before.get(part, 0.0) for part, used in cpu_by_part(self.parts).items()}
        for part, used_s in {**spent_s, "clients": asked.whole_cpu_s}.items():
            self.cpu_ms[n_clients, part].append(1e3 * used_s / max(1, asked.n_answers))


def main() -> None:
    """Print tables; write `var/bench/http.json` and `var/bench/http.png`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", choices=[Backbone.RESNET50, Backbone.EFFICIENTNET_LITE0], default="resnet50")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="each of them")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one short turn, with few clients and without peers")
    given = parser.parse_args()
    if given.quick:
        given.clients, given.turns, given.seconds, given.no_peers = [1, 4], 1, 0.2, True
    home = installed(Backbone(given.backbone))
    photos = query_photos()
    bare = BareLoop(home, [path.read_bytes() for path in photos], quick=given.quick)
    report = Report(
        "http",
        backbone=given.backbone,
        runtime=bare.manifest.runtime,
        precision=bare.manifest.precision,
        turns=given.turns,
        seconds=given.seconds,
        decode_ms=bare.decode_ms(),
        model_ms=bare.model_ms(),
        bare_loop=str(bare),
    )
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as running:
        # Streams and batches as a worker finds them best, unless there is no time for it.
        settings = {**UNCACHED, **({"streams": 2, "max_batch": 2} if given.quick else {})}
        servers = _ours(running.enter_context(serving(home, Path(scratch), settings=settings)))
        if not given.no_peers:
            servers += [running.enter_context(peer(name, home)) for name in PEERS if _available(name)]
        for server in servers:  # the first requests are the slowest
            server.ask(photos[0].parent, 4, min(0.5, given.seconds))
        bares, plains = [], []
        for _ in range(given.turns):
            bares.append(bare.run(given.seconds))
            plains.append(bare.run_plain(given.seconds))
            for n_clients in given.clients:
                for server in servers:
                    server.take_turn(photos[0].parent, n_clients, given.seconds)
    _tell(report, bares, plains, servers)
    if 1 in given.clients:
        _tell_added(report, servers[0].turns[1])
    report.finish()


def _ours(stack: Stack) -> list[Server]:
    assert stack.valkey._process
    parts = {**{name: process.pid for name, process in stack.processes.items()}, "valkey": stack.valkey._process.pid}
    return [
        Server("embed jobs", stack.port, "/v1/jobs/embed?encoding=base64", parts, headers={"Prefer": "wait=30"}),
        Server("search, old endpoint", stack.port, "/predict/similar_images", parts),
    ]


def _tell(report: Report, bares: list[Rate], plains: list[Rate], servers: list[Server]) -> None:
    bare_per_s = statistics.median(bare.per_s for bare in bares)
    plain_per_s = statistics.median(plain.per_s for plain in plains)
    report.facts.update(bare_per_s=bare_per_s, plain_per_s=plain_per_s)
    for n_clients in servers[0].turns:
        for server in servers:
            row = _row(server.name, n_clients, server.turns[n_clients], bare_per_s, plain_per_s)
            report.add("throughput", **row)
    cost = "processor time of a photo, ms"
    bare_ms = statistics.median(bare.cpu_ms for bare in bares)
    report.add(cost, served_by="bare loop", clients=0, part="decode and model", ms=bare_ms, of_bare=1.0)
    for server in servers:
        for (n_clients, part), turns in server.cpu_ms.items():
            ms = statistics.median(turns)
            report.add(cost, served_by=server.name, clients=n_clients, part=part, ms=ms, of_bare=ms / bare_ms)
        for n_clients in server.turns:
            parts = [turns for (n, part), turns in server.cpu_ms.items() if n == n_clients and part != "clients"]
            ms = sum(map(statistics.median, parts)) - (bare_ms if server.computes else 0.0)
            report.add(cost, served_by=server.name, clients=n_clients, part=_OUTSIDE, ms=ms, of_bare=ms / bare_ms)
    report.plot("throughput", x="clients", y="photos_per_s", by="served_by")
    report.plot("throughput", x="clients", y="p95_ms", by="served_by")


def _row(
    name: str, n_clients: int, turns: list[Asked], bare_per_s: float, plain_per_s: float
) -> dict[str, str | float | int]:
    latencies_ms = sorted(1e3 * latency for turn in turns for latency in turn.latencies_s)
    per_s = statistics.median(turn.per_s for turn in turns)
    centiles = statistics.quantiles(latencies_ms, n=100, method="inclusive")
    return {
        "served_by": name,
        "clients": n_clients,
        "photos_per_s": per_s,
        "of_bare": per_s / bare_per_s,
        "of_plain": per_s / plain_per_s,
        "p50_ms": centiles[49],
        "p95_ms": centiles[94],
        "p99_ms": centiles[98],
        "refused": sum(turn.refused for turn in turns),
        "clients_cpu": statistics.median(turn.cpu_s / turn.elapsed_s for turn in turns),
    }


def _tell_added(report: Report, turns: list[Asked]) -> None:
    """What the service adds to the latency of a client that is alone: by what its answers tell, by the bare loop."""
    latency_ms = 1e3 * statistics.median(latency for turn in turns for latency in turn.latencies_s)
    compute_ms = statistics.median(told for turn in turns for told in turn.compute_ms)
    decode_ms, model_ms = report.facts["decode_ms"], report.facts["model_ms"]
    assert isinstance(decode_ms, float)
    assert isinstance(model_ms, float)
    report.add(
        "one client, ms",
        latency=latency_ms,
        decode_alone=decode_ms,
        model_alone=model_ms,
        compute_told=compute_ms,
        queued_told=statistics.median(told for turn in turns for told in turn.queued_ms),
        added=latency_ms - decode_ms - compute_ms,
        added_to_model_alone=latency_ms - decode_ms - model_ms,
    )


def _available(peer: str) -> bool:
    if peer.startswith("mosec") and find_spec("mosec") is None:
        print(f"{peer} is left out: pip install mosec")
        return False
    return True


@contextmanager
def peer(name: str, home: Path) -> Iterator[Server]:
    """A peer, once it answers, and ended afterwards."""
    port = free_port()
    process = start(name, home, port)
    try:
        deadline = time.monotonic() + _READY_WITHIN_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{name} did not start")
            time.sleep(0.2)
        empty = name == NO_NETWORK
        yield Server(name, port, "/inference", {name: process.pid}, multipart=empty, computes=not empty)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2):
            return True
    except urllib.error.HTTPError:
        return True  # 404 or 405: it listens
    except OSError:
        return False


if __name__ == "__main__":
    main()
