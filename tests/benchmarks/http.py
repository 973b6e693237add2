"""The service against a bare loop over the same photo bytes: `make bench`.

Both run on the same cores in the same run, taking turns, each on a fifth of the photos at a time; the figures are
medians of the turns and their ratio. Nothing here is asserted: machines differ.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

from pipeline.demo import generate
from shared.images import decode_photo
from shared.jobs import SearchRequest
from shared.snapshots import index_store
from shared.vision.answers import search_result
from shared.vision.bundle import bundle_store, open_bundle
from shared.vision.index import open_snapshot
from shared.vision.runtimes import open_embedder

N_TURNS = 5
N_PHOTOS = 40
CLIENTS = (1, 8, 32)
PORT = 18099


def main() -> None:
    """Print a table and write `var/bench/http.json`."""
    with tempfile.TemporaryDirectory() as scratch:
        catalogue = Path(scratch) / "demo"
        generate(catalogue, n_listings=52)
        home = Path(scratch) / "home"
        # Without the cache: the same photos are asked again and again.
        environment = {**os.environ, "LOOKALIKE_HOME": str(home), "LOOKALIKE_CACHE_ENTRIES": "0"}
        command = [sys.executable, "-m", "pipeline.cli", "up", "--catalogue", str(catalogue), "--port", str(PORT)]
        service = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            _wait_ready(service)
            report = _measure(home, [path.read_bytes() for path in sorted((catalogue / "images").iterdir())[:N_PHOTOS]])
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait(60)
    target = Path("var/bench/http.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=1))
    print(f"bare loop: {report['bare_photos_per_s']:.1f} photos/s")
    print("clients  photos/s  share of bare  p50 ms  p95 ms")
    for row in report["http"]:
        print("{clients:7d}  {photos_per_s:8.1f}  {share:13.2f}  {p50_ms:6.0f}  {p95_ms:6.0f}".format(**row))


def _wait_ready(service: "subprocess.Popen[bytes]") -> None:
    while service.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("the service ended")


def _measure(home: Path, photos: list[bytes]) -> dict[str, Any]:
    bundle = open_bundle(bundle_store(home))
    snapshot = open_snapshot(index_store(home), fingerprint=bundle.manifest.fingerprint)
    embedder = open_embedder(bundle)

    def bare(photo: bytes) -> None:
        pixels = decode_photo(photo, bundle.manifest.preprocess)
        search_result(embedder.embed(pixels[None]), SearchRequest(), snapshot, bundle.manifest)

    def ask(photo: bytes) -> float:
        began = time.perf_counter()
        url = f"http://127.0.0.1:{PORT}/predict/similar_images"
        requests.post(url, files={"image": photo}, timeout=60).raise_for_status()
        return time.perf_counter() - began

    bare_rates: list[float] = []
    http_rates: dict[int, list[float]] = {n: [] for n in CLIENTS}
    latencies: dict[int, list[float]] = {n: [] for n in CLIENTS}
    for photo in photos[:4]:  # warm both
        bare(photo)
        ask(photo)
    for _ in range(N_TURNS):
        began = time.perf_counter()
        for photo in photos:
            bare(photo)
        bare_rates.append(len(photos) / (time.perf_counter() - began))
        for n_clients in CLIENTS:
            with ThreadPoolExecutor(n_clients) as pool:
                began = time.perf_counter()
                latencies[n_clients] += pool.map(ask, photos)
                http_rates[n_clients].append(len(photos) / (time.perf_counter() - began))
    bare_rate = statistics.median(bare_rates)
    rows = [
        {
            "clients": n,
            "photos_per_s": statistics.median(http_rates[n]),
            "share": statistics.median(http_rates[n]) / bare_rate,
            "p50_ms": 1e3 * statistics.median(latencies[n]),
            "p95_ms": 1e3 * statistics.quantiles(latencies[n], n=20)[-1],
        }
        for n in CLIENTS
    ]
    return {"backbone": bundle.manifest.backbone, "n_turns": N_TURNS, "bare_photos_per_s": bare_rate, "http": rows}


if __name__ == "__main__":
    main()
