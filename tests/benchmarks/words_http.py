"""What words cost over HTTP: searches by one photo without words, with a title, and with all words, taking turns.

    python -m tests.benchmarks.words_http [--catalogue DIR] [--turns 20] [--quick]

Beside them stands the same search on an installation whose catalogue had no words. One client, which is alone; figures
are medians of the turns, and of ratios and differences within a turn. Nothing here is asserted.
"""

import argparse
import csv
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from shared.artifacts.snapshots import bundle_store, index_store
from shared.attributes.schema import AttributeType
from shared.index.snapshot import open_snapshot
from shared.model.bundle import open_bundle
from shared.text.encoder import texts_of
from tests.benchmarks.http import Server
from tests.benchmarks.support.installation import UNCACHED, serving
from tests.benchmarks.support.material import catalogue
from tests.benchmarks.support.report import RESULTS, Report
from tests.e2e.conftest import Stack, environment

_N_PHOTOS = 200
# What each worker would find best for itself may differ.
_SETTINGS = {**UNCACHED, "streams": 1, "max_batch": 2}
_WITHOUT = "photo, of a catalogue without words"


def main() -> None:
    """Print a table; write `var/bench/words_http.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--catalogue", type=Path, help="a raw dump with words; otherwise one is drawn")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.0, help="each of them")
    parser.add_argument("--quick", action="store_true", help="one turn of half a second")
    given = parser.parse_args()
    n_turns, seconds = (1, 0.5) if given.quick else (given.turns, given.seconds)
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RESULTS) as temporary, ExitStack() as running:
        scratch = Path(temporary).resolve()
        source = (given.catalogue or catalogue(RESULTS / "installed")).resolve()
        with_words = _prepared(scratch / "with", source)
        titles, words = _queries(with_words, source, scratch / "queries")
        without = _prepared(scratch / "without", _without_words(with_words, source, scratch / "wordless"))
        stacks = [
            running.enter_context(serving(home, scratch / home.name / "valkey", settings=_SETTINGS))
            for home in (with_words, without)
        ]
        servers = [
            _server(_WITHOUT, stacks[1], []),
            _server("photo", stacks[0], []),
            _server("photo and title", stacks[0], titles),
            _server("photo and all words", stacks[0], words),
        ]
        report = Report("words_http", turns=n_turns, seconds=seconds, photos=len(titles))
        for server in servers:  # the first requests are the slowest
            server.ask(scratch / "queries", 1, 1.0)
        for turn in range(n_turns):
            for place in range(len(servers)):  # each begins as often as any other
                servers[(place + turn) % len(servers)].take_turn(scratch / "queries", 1, seconds)
    plain = _figures(servers[0])
    for server in servers:
        found = _figures(server)
        row = {}
        for what, ms in found.items():
            row[f"{what}_ms"] = statistics.median(ms)
            row[f"{what}_ratio"] = statistics.median(a / b for a, b in zip(ms, plain[what], strict=True))
            row[f"{what}_more_ms"] = statistics.median(a - b for a, b in zip(ms, plain[what], strict=True))
        report.add("one client", search_by=server.name, n=sum(len(one.latencies_s) for one in server.turns[1]), **row)
    report.finish()


def _prepared(home: Path, source: Path) -> Path:
    """An installation with bundle and index of a catalogue."""
    home.mkdir()
    command = [sys.executable, "-m", "pipeline.cli", "prepare", "--catalogue", str(source)]
    subprocess.run(command, env=environment(home), check=True, stdout=sys.stderr)
    return home


def _without_words(home: Path, source: Path, made: Path) -> Path:
    """The catalogue with its photos, without the columns that hold words."""
    manifest = open_snapshot(index_store(home), fingerprint=_fingerprint(home)).manifest
    others = {attribute.name for attribute in manifest.attributes if attribute.type is not AttributeType.TEXT}
    made.mkdir()
    (made / "images").symlink_to(source / "images")
    shutil.copy(source / "Images.csv", made)
    with (source / "Products.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    kept = [name for name in rows[0] if name in {"id", "category", *others}]
    with (made / "Products.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, kept, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return made


def _queries(home: Path, source: Path, made: Path) -> tuple[list[str], list[str]]:
    """Copy some photos of listings that have words, and return the titles and all words, in the order of the photos."""
    bundle = open_bundle(bundle_store(home))
    text = bundle.manifest.text
    if text is None:
        raise SystemExit(f"{source}: there are too few words to learn any")
    made.mkdir()
    found: dict[str, Mapping[str, str]] = {}
    for photo in open_snapshot(index_store(home), fingerprint=bundle.manifest.fingerprint).photos():
        if len(found) < _N_PHOTOS and (texts := texts_of(photo.payload, text.attributes)):
            name = f"{len(found):06d}.jpg"
            shutil.copy(source / str(photo.path), made / name)
            found[name] = texts
    return [next(iter(one.values())) for one in found.values()], ["\n".join(one.values()) for one in found.values()]


def _fingerprint(home: Path) -> str:
    return open_bundle(bundle_store(home)).manifest.fingerprint


def _server(name: str, stack: Stack, texts: list[str]) -> Server:
    assert stack.valkey._process
    parts = {**{part: process.pid for part, process in stack.processes.items()}, "valkey": stack.valkey._process.pid}
    return Server(name, stack.port, "/v1/jobs/search", parts, headers={"Prefer": "wait=30"}, texts=texts)


def _figures(server: Server) -> dict[str, list[float]]:
    """Milliseconds of a search in each turn: what the client waits, and the service's processor time."""
    of_parts = [turns for (_, part), turns in server.cpu_ms.items() if part != "clients"]
    return {
        "latency": [1e3 * statistics.median(turn.latencies_s) for turn in server.turns[1]],
        "processor": [sum(parts) for parts in zip(*of_parts, strict=True)],
    }


if __name__ == "__main__":
    main()
