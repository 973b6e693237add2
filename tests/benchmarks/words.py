"""Searches by photo, by photo and words, and by words, in one run, with what the words cost in bytes and in recall.

The vectors are those of `tests.benchmarks.index`. Each photo is a listing of its own, with a title and a description of
drawn words that its kind has in common; the text encoder is fitted on the first listings. Nothing here is asserted.
`--keep DIR` uses an index built before.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load

from pipeline.training.text import fit_text
from shared.array_types import FloatArray
from shared.artifacts.snapshots import index_store, read_index_manifest
from shared.attributes.schema import Attribute, AttributeSchema, AttributeType, as_payload
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.index.ann import ExactIndex
from shared.index.hybrid import HybridIndex
from shared.index.listing_texts import TEXT_CODES, TEXTS, ListingTexts
from shared.index.postings import POSTINGS
from shared.index.query import WordsQuery
from shared.index.snapshot import IndexSnapshot, open_files
from shared.jobs.contract import SearchRequest
from shared.model.bundle import Split
from shared.model.embedder import Embeddings
from shared.text.encoder import TEXT, TextEncoder, TextFacts
from tests.benchmarks.filters import embeddings_in, kinds_of
from tests.benchmarks.index import DIMENSION, FINGERPRINT, K, synthetic
from tests.benchmarks.support.report import RESULTS, Report
from tests.support.snapshots import write_snapshot

N_QUERIES = 200
N_FITTED = 3_000
FACTS = "text.json"
WEIGHT = 0.5
SCHEMA = AttributeSchema(
    (Attribute(name="title", type=AttributeType.TEXT), Attribute(name="description", type=AttributeType.TEXT))
)
_SYLLABLES = [a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u")]
_WORDS_OF_A_KIND, _COMMON = 6, 2_000


def main() -> None:
    """Print tables; write `var/bench/words.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--keep", type=Path, help="directory of an index that is made there once")
    parser.add_argument("--quick", action="store_true", help="300 photos")
    options = parser.parse_args()
    n = 300 if options.quick else options.n
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RESULTS) as scratch:
        directory = options.keep or Path(scratch)
        directory.mkdir(exist_ok=True)
        report = Report("words", photos=n, dimension=DIMENSION, k=K, queries=N_QUERIES)
        snapshot, encoder, where = _opened(directory, n)
        _measure(snapshot, encoder, where, report)
        report.finish()


def _opened(directory: Path, n: int) -> tuple[IndexSnapshot, TextEncoder, Path]:
    store = index_store(directory)
    photos = list(_photos(min(n, N_FITTED)))
    if not store.versions():
        vectors = embeddings_in(directory, n)
        ids = [photo.listing_id for photo in photos]
        split = Split(train=frozenset(ids[: len(ids) * 9 // 10]), validation=frozenset(ids[len(ids) * 9 // 10 :]))
        fitted = fit_text(photos, vectors[: len(photos)], split, SCHEMA, len(CATEGORIES), {}, print)
        assert fitted is not None
        (directory / TEXT).write_bytes(fitted.content)
        (directory / FACTS).write_text(fitted.encoder.facts.model_dump_json())
        scores = np.broadcast_to(np.zeros((1, len(CATEGORIES)), dtype=np.float32), (n, len(CATEGORIES)))
        write_snapshot(
            store,
            _photos(n),
            Embeddings(vectors, scores),
            fingerprint=FINGERPRINT,
            catalogue="synthetic",
            catalogue_digest="0" * 64,
            attributes=SCHEMA,
            encoder=fitted.encoder,
        )
        (directory / "source.npy").unlink(missing_ok=True)
    facts = TextFacts.model_validate_json((directory / FACTS).read_text())
    version = store.newest()
    snapshot = open_files(store.path(version), version, read_index_manifest(store, version))
    return snapshot, TextEncoder(facts, load((directory / TEXT).read_bytes())), store.path(version)


def _photos(n: int) -> Iterator[CataloguePhoto]:
    for row, words in enumerate(_words(kinds_of(n).tolist(), seed=19)):
        payload = as_payload({"title": " ".join(words[:5]), "description": " ".join(words[5:])})
        yield CataloguePhoto(
            f"{row:012d}", f"l{row}", row % len(CATEGORIES), Path("/photos/x.jpg"), f"{row:064x}", payload
        )


def _words(kinds: list[int], seed: int) -> Iterator[list[str]]:
    """A title of five words and a description of thirty for each kind; three of the title are the kind's own."""
    random = np.random.default_rng(seed)
    for kind in kinds:
        own = random.integers(_WORDS_OF_A_KIND, size=13) + _COMMON + kind * _WORDS_OF_A_KIND
        common = random.integers(_COMMON, size=22)
        numbers = [*own[:3], *common[:2], *own[3:], *common[2:]]
        yield [_word(int(number)) for number in numbers]


def _word(number: int) -> str:
    """A word of two syllables and more, another for each number."""
    syllables = [_SYLLABLES[number % len(_SYLLABLES)]]
    while number := number // len(_SYLLABLES):
        syllables.append(_SYLLABLES[number % len(_SYLLABLES)])
    return "".join(syllables) + "n"


def _measure(snapshot: IndexSnapshot, encoder: TextEncoder, where: Path, report: Report) -> None:
    queries = next(synthetic(N_QUERIES, seed=1))
    texts = [" ".join(words[:5]) for words in _words(kinds_of(N_QUERIES, seed=1).tolist(), seed=20)]
    vectors = snapshot.vectors(slice(None))
    facts = snapshot.manifest.texts
    assert facts is not None
    thorough = ListingTexts(where, facts, snapshot._rows.listings)
    exact = replace(snapshot, _index=HybridIndex(ExactIndex(vectors), vectors, thorough))
    asked = SearchRequest(k=K)

    def words(text: str, *, alone: bool = False) -> WordsQuery | None:
        encoded = encoder.encode(text)
        return WordsQuery.of(encoded, WEIGHT, encoder.facts, alone=alone) if encoded else None

    def mapped(text: str) -> FloatArray:
        encoded = encoder.encode(text)
        assert encoded is not None  # drawn of words that listings have
        return encoded.photo

    kinds: dict[str, Callable[[IndexSnapshot, FloatArray, str], object]] = {
        "photo": lambda index, query, text: index.search(query, asked),
        "photo and words": lambda index, query, text: index.search(query, asked, words=words(text)),
        "words": lambda index, query, text: index.search(mapped(text), asked, words=words(text, alone=True)),
        "vote": lambda index, query, text: index.labelled(query, 40, asked),
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    recalls: dict[str, list[float]] = {kind: [] for kind in kinds if kind != "vote"}
    for number, (query, text) in enumerate(zip(queries, texts, strict=True)):
        for kind, search in kinds.items():
            began = time.perf_counter()
            found = search(snapshot, query, text)
            times[kind].append(1e3 * (time.perf_counter() - began))
            if kind in recalls and number < N_QUERIES // 4:
                truth = {hit.row for hit in search(exact, query, text)}  # type: ignore[attr-defined]
                recalls[kind].append(len(truth & {hit.row for hit in found}) / len(truth))  # type: ignore[attr-defined]
    plain = statistics.median(times["photo"])
    for kind, ms in times.items():
        p50, p95 = statistics.median(ms), float(np.quantile(ms, 0.95))
        recall = round(statistics.mean(recalls[kind]), 4) if kind in recalls else None
        report.add(
            "searches",
            by=kind,
            p50_ms=round(p50, 3),
            p95_ms=round(p95, 3),
            more_ms=round(p50 - plain, 3),
            recall=recall,
        )
    encode_ms = []
    for text in texts:
        began = time.perf_counter()
        encoder.encode(text)
        encode_ms.append(1e3 * (time.perf_counter() - began))
    sizes = {path.name: path.stat().st_size for path in where.iterdir()}
    of_words = sum(size for name, size in sizes.items() if name in (TEXTS, TEXT_CODES, POSTINGS))
    report.add(
        "bytes a photo", words=round(of_words / len(snapshot), 1), all=round(sum(sizes.values()) / len(snapshot), 1),
        encode_title_ms=round(statistics.median(encode_ms), 3),
    )  # fmt: skip


if __name__ == "__main__":
    main()
