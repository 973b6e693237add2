"""Searches by photo, by photo and words, and by words, in one run, with what the words cost in bytes and in recall.

The vectors are those of `tests.benchmarks.index`. Each photo is a listing of its own, with a title and a description of
drawn words that its kind has in common; the text encoder is fitted on the first listings. Nothing here is asserted.
`--keep DIR` uses an index built before. Of more than 200,000 photos words are drawn for eight listings of each kind;
others have the words of one of them and a vector near its. Recall is not told then: vectors are not all in memory.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from zlib import crc32

import numpy as np
from safetensors.numpy import load

from shared.array_types import FloatArray
from shared.artifacts.snapshots import PHOTOS, index_store, read_index_manifest
from shared.attributes.schema import Attribute, AttributeSchema, AttributeType, as_payload
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.index.query import WordsQuery
from shared.index.snapshot import IndexSnapshot, open_files
from shared.index.vectors.ann import ExactIndex
from shared.index.vectors.stored_vectors import VECTORS
from shared.index.words.hybrid import HybridIndex
from shared.index.words.listing_texts import TEXT_CODES, TEXTS, ListingTexts
from shared.index.words.word_lists import POSTINGS, WORD_LISTINGS, WORDS
from shared.jobs.contract import SearchRequest
from shared.model.bundle import Split
from shared.text.encoder import TEXT, EncodedListing, TextEncoder, TextFacts
from tests.benchmarks.filters import kinds_of
from tests.benchmarks.index import DIMENSION, FINGERPRINT, N_KINDS, K, Synthetic, resident_mb, synthetic
from tests.benchmarks.support.report import RESULTS, Report
from tests.support.snapshots import write_snapshot

N_QUERIES = 200
N_FITTED = 3_000
FACTS = "text.json"
OF_WORDS = (TEXTS, TEXT_CODES, WORDS, WORD_LISTINGS, POSTINGS)
WEIGHT = 0.5
SCHEMA = AttributeSchema(
    (Attribute(name="title", type=AttributeType.TEXT), Attribute(name="description", type=AttributeType.TEXT))
)
_SYLLABLES = [a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u")]
_WORDS_OF_A_KIND, _COMMON = 6, 2_000
_ALL_DRAWN = 200_000
_DRAWN_OF_A_KIND, _APART = 8, 0.1


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
        # In a process of its own, so that its memory is not taken for that of searches.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as building:
            building.submit(_build, directory, n).result()
        before_mb = resident_mb()
        _measure(*_opened(directory), before_mb, report)
        report.finish()


def _build(directory: Path, n: int) -> None:
    from pipeline.training.words.encoder import fit_text  # what it needs of memory is none of a search's

    store = index_store(directory)
    if store.versions():
        return
    photos, source = list(islice(_photos(n), N_FITTED)), Synthetic(n, seed=0)
    ids = [photo.listing_id for photo in photos]
    split = Split(train=frozenset(ids[: len(ids) * 9 // 10]), validation=frozenset(ids[len(ids) * 9 // 10 :]))
    fitted = fit_text(photos, source.vectors(0, len(photos)), split, SCHEMA, len(CATEGORIES), {}, print)
    assert fitted is not None
    encoder = fitted.encoder if n <= _ALL_DRAWN else _Near(fitted.encoder.facts, load(fitted.content))
    (directory / TEXT).write_bytes(fitted.content)
    (directory / FACTS).write_text(fitted.encoder.facts.model_dump_json())
    write_snapshot(
        store,
        _photos(n),
        source,
        fingerprint=FINGERPRINT,
        catalogue="synthetic",
        catalogue_digest="0" * 64,
        attributes=SCHEMA,
        encoder=encoder,
    )


def _opened(directory: Path) -> tuple[IndexSnapshot, TextEncoder, Path]:
    store = index_store(directory)
    facts = TextFacts.model_validate_json((directory / FACTS).read_text())
    version = store.newest()
    snapshot = open_files(store.path(version), version, read_index_manifest(store, version))
    return snapshot, TextEncoder(facts, load((directory / TEXT).read_bytes())), store.path(version)


def _photos(n: int) -> Iterator[CataloguePhoto]:
    kinds = kinds_of(n).tolist()
    drawn: list[str] = []
    if n > _ALL_DRAWN:
        drawn = [_payload(words) for words in _words([*range(N_KINDS)] * _DRAWN_OF_A_KIND, seed=19)]
    texts = (
        (drawn[kind + N_KINDS * (row % _DRAWN_OF_A_KIND)] for row, kind in enumerate(kinds))
        if drawn
        else map(_payload, _words(kinds, seed=19))
    )
    for row, payload in enumerate(texts):
        yield CataloguePhoto(
            f"{row:012d}", f"l{row}", row % len(CATEGORIES), Path("/photos/x.jpg"), f"{row:064x}", payload
        )


def _payload(words: list[str]) -> str:
    return as_payload({"title": " ".join(words[:5]), "description": " ".join(words[5:])})


class _Near(TextEncoder):
    """Encodes each text once; listings that have it in common get vectors near one another."""

    _random = np.random.default_rng(23)

    def of_listing(self, payload: str, category: int) -> EncodedListing | None:
        vector, words = self._encoded(payload)
        noise = self._random.standard_normal(len(vector), dtype=np.float32)
        near = vector + np.float32(_APART / len(vector) ** 0.5) * noise
        return EncodedListing(near / np.linalg.norm(near), words)

    @cache  # noqa: B019
    def _encoded(self, payload: str) -> EncodedListing:
        encoded = super().of_listing(payload, crc32(payload.encode()) % len(CATEGORIES))
        assert encoded is not None  # each has words
        return encoded


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


def _measure(snapshot: IndexSnapshot, encoder: TextEncoder, where: Path, before_mb: float, report: Report) -> None:
    queries = next(synthetic(N_QUERIES, seed=1))
    texts = [" ".join(words[:5]) for words in _words(kinds_of(N_QUERIES, seed=1).tolist(), seed=20)]
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
    for kind in ("photo", "photo and words", "words"):
        for query, text in zip(queries, texts, strict=True):
            kinds[kind](snapshot, query, text)
        mb, all_mb = resident_mb(VECTORS, TEXTS), resident_mb()
        report.add(
            "memory", after_searches_by=kind, before_mb=round(before_mb), mb=round(mb), all_mapped_mb=round(all_mb),
            of_float32=round(mb * 2**20 / (4 * DIMENSION * len(snapshot)), 4),
        )  # fmt: skip
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for query, text in zip(queries, texts, strict=True):
        for kind, search in kinds.items():
            began = time.perf_counter()
            search(snapshot, query, text)
            times[kind].append(1e3 * (time.perf_counter() - began))
    recalls = _recalls(snapshot, where, kinds, zip(queries, texts, strict=True)) if len(snapshot) <= _ALL_DRAWN else {}
    plain = statistics.median(times["photo"])
    for kind, ms in times.items():
        p50, p95 = statistics.median(ms), float(np.quantile(ms, 0.95))
        report.add(
            "searches",
            by=kind,
            p50_ms=round(p50, 3),
            p95_ms=round(p95, 3),
            more_ms=round(p50 - plain, 3),
            recall=recalls.get(kind),
        )
    encode_ms = []
    for text in texts:
        began = time.perf_counter()
        encoder.encode(text)
        encode_ms.append(1e3 * (time.perf_counter() - began))
    sizes = {path.name: path.stat().st_size for path in where.iterdir()}
    of_words = sum(size for name, size in sizes.items() if name in OF_WORDS)
    report.add(
        "bytes a photo", words=round(of_words / len(snapshot), 1), all=round(sum(sizes.values()) / len(snapshot), 1),
        **{name: round(sizes[name] / len(snapshot), 1) for name in (*OF_WORDS, PHOTOS) if name in sizes},
        encode_title_ms=round(statistics.median(encode_ms), 3),
    )  # fmt: skip


def _recalls(
    snapshot: IndexSnapshot,
    where: Path,
    kinds: Mapping[str, Callable[[IndexSnapshot, FloatArray, str], object]],
    queries: Iterable[tuple[FloatArray, str]],
) -> dict[str, float]:
    """Recall@10 of searches, beside comparing everything."""
    vectors = snapshot.vectors(slice(None))
    facts = snapshot.manifest.texts
    assert facts is not None
    thorough = ListingTexts(where, facts, snapshot._rows.listings)
    exact = replace(snapshot, _index=HybridIndex(ExactIndex(vectors), vectors, thorough))
    recalls: dict[str, list[float]] = {kind: [] for kind in kinds if kind != "vote"}
    for query, text in islice(queries, N_QUERIES // 4):
        for kind, of_kind in recalls.items():
            hits, best = (kinds[kind](one, query, text) for one in (snapshot, exact))
            found, truth = ({hit.row for hit in some} for some in (hits, best))  # type: ignore[attr-defined]
            of_kind.append(len(truth & found) / len(truth))
    return {kind: round(statistics.mean(some), 4) for kind, some in recalls.items()}


if __name__ == "__main__":
    main()
