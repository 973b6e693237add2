"""Writes the embeddings of a large snapshot and its compressed index, block by block, and goes on after a kill.

All that is in memory is a sample of the embeddings, a block of them, and in the end the codes (264 bytes a photo). What
is done is known from files in WORK, which are removed with the last step: whoever begins the same build in the same
directory again goes on there.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, Self

import faiss
import numpy as np
import numpy.typing as npt

from shared.array_types import FloatArray
from shared.artifacts.snapshots import IndexFacts, VectorKind
from shared.catalogue.decode import ahead
from shared.index.arrays import CHUNK_ROWS, RowFile, map_array
from shared.index.traffic import DIGESTS, row_digests
from shared.index.vectors.ann import Nearest, at_most
from shared.index.vectors.compression import KNOWN, Compression, Sample, Truth, tune
from shared.index.vectors.stored_vectors import VECTORS, Codebook, Codec, open_vectors
from shared.model.embedder import Embeddings

WORK = "work"
SCORES = "scores.npy"
CODES = "codes.faiss"
_BLOCKS_AT_RISK = 32  # are embedded into the index again after a kill: a minute of work
_LEAST_RECALL = 0.985  # at 10, of comparing candidates by what is stored
_TRAINED, _SAMPLE, _STATE, _NUMBERS, _ROW_CODES = "trained.faiss", "sample.npz", "state.npz", "numbers.npy", "codes.npy"
_SEED = 17

Progress = Callable[[int, int], None]  # rows done, of how many


class EmbeddingSource(Protocol):
    """Embeddings that need not be in memory together; asked for the same rows again, it gives the same.

    Attributes:
        shape: (n, dim).
        n_categories: of their scores.
    """

    shape: tuple[int, int]
    n_categories: int

    def read(self, start: int, stop: int) -> Embeddings:
        """Return the embeddings and scores of the rows from `start` to before `stop`, float32."""
        ...


class ArraySource:
    """Embeddings that are there as arrays, in memory or memory-mapped.

    Args:
        embeddings: (n, dim) and (n, n_categories).
    """

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings
        self.shape: tuple[int, int] = (len(embeddings.vectors), embeddings.vectors.shape[1])
        self.n_categories = embeddings.scores.shape[1]

    def read(self, start: int, stop: int) -> Embeddings:
        """Return some rows; see `EmbeddingSource.read`."""
        vectors, scores = (np.asarray(array[start:stop], dtype=np.float32) for array in self._embeddings)
        return Embeddings(np.ascontiguousarray(vectors), np.ascontiguousarray(scores))


class Work:
    """The directory that tells which steps of a build are done.

    Args:
        directory: of the snapshot.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory / WORK
        self.directory.mkdir(exist_ok=True)

    def told(self, step: str) -> Any:
        """What a step that is done has told; None: it is not done."""
        path = self.directory / f"{step}.json"
        return json.loads(path.read_bytes()) if path.exists() else None

    def tell(self, step: str, told: object) -> None:
        """Note that a step is done."""
        self._replace(f"{step}.json", lambda path: path.write_text(json.dumps(told)))

    def save(self, name: str, **arrays: npt.NDArray[Any]) -> None:
        """Write arrays, whole or not at all."""

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
                file.flush()
                os.fsync(file.fileno())

        self._replace(name, write)

    def load(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """Read what was saved; nothing where nothing was."""
        if not (self.directory / name).exists():
            return {}
        with np.load(self.directory / name, allow_pickle=False) as arrays:
            return dict(arrays)

    def _replace(self, name: str, write: Callable[[Path], object]) -> None:
        aside = self.directory / f"{name}.tmp"
        write(aside)
        aside.replace(self.directory / name)

    def remove(self) -> None:
        """Remove it: the snapshot is done."""
        shutil.rmtree(self.directory)


def write_exact(directory: Path, source: EmbeddingSource) -> None:
    """Write embeddings as they are, with their scores and digests.

    Raises:
        ValueError: a number is not finite.
        OSError: the disk is full or may not be written.
    """
    codec = Codec(VectorKind.FLOAT32, source.shape[1])
    with _Files(directory, codec, source) as files:
        for start in range(0, source.shape[0], CHUNK_ROWS):
            files.append(source.read(start, min(start + CHUNK_ROWS, source.shape[0])))


def write_compressed(
    directory: Path,
    source: EmbeddingSource,
    kinds: Sequence[VectorKind],
    *,
    codebook: Codebook | None = None,
    threads: int = 0,
    progress: Progress = lambda done, total: None,
) -> IndexFacts:
    """Write embeddings with their scores and digests, and a compressed index of them.

    Args:
        directory: of the snapshot.
        source: the embeddings.
        kinds: how they may be stored; the first that finds what the embeddings find is taken, or else the last.
        codebook: for int8, of the snapshot that most of the embeddings are from; None: one is made.
        threads: at most so many; 0: all cores.
        progress: called after each block; an exception it raises ends the work, which may be taken up again.

    Returns:
        the tuned settings with the recall that was measured.

    Raises:
        ValueError: a number is not finite.
        OSError: the disk is full or may not be written.
    """
    with at_most(threads):
        return _Build(directory, source, codebook, progress).run(kinds)


class _Build:
    def __init__(self, directory: Path, source: EmbeddingSource, codebook: Codebook | None, progress: Progress) -> None:
        self._directory = directory
        self._source = source
        self._progress = progress
        self._work = Work(directory)
        self._n = source.shape[0]
        self._sample, self._compression, self._codebook = self._trained(codebook)

    def run(self, kinds: Sequence[VectorKind]) -> IndexFacts:
        tried = self._work.told("tried") or []
        for kind in kinds:
            if kind not in tried:
                facts = self._stored(kind)
                if kind is kinds[-1] or facts.vectors_recall_at_10 >= _LEAST_RECALL:
                    break
                tried.append(kind)
                self._work.tell("tried", tried)
        for name in (_NUMBERS, _ROW_CODES):
            (self._work.directory / name).unlink()
        return facts

    def _stored(self, kind: VectorKind) -> IndexFacts:
        """Store every embedding in one way, and measure how it can be searched."""
        codec, at = self._codec(kind), self._work.directory
        self._write_rows(codec)
        if self._work.told(f"codes of {kind}") is None:
            self._compression.write(self._directory / CODES, map_array(at / _NUMBERS), map_array(at / _ROW_CODES))
            self._work.tell(f"codes of {kind}", True)
        if codec.codebook is not None:
            codec.codebook.write(self._directory)
        vectors = open_vectors(self._directory, kind, self._source.shape, scattered=True)
        state = self._work.load(_STATE)
        truth = Truth(self._sample, state["scores"], state["rows"])
        facts = tune(self._directory / CODES, vectors, truth)
        return facts.model_copy(update={"vectors": kind})

    def _trained(self, codebook: Codebook | None) -> tuple[Sample, Compression, Codebook]:
        if found := self._work.load(_SAMPLE):
            index: Any = faiss.read_index(str(self._work.directory / _TRAINED))
            sample = Sample([], found["queries"][:0], found["query_rows"], found["queries"])
            return sample, Compression(index), Codebook(found["mean"], found["signs"])

        def read(start: int, stop: int) -> FloatArray:
            return _finite(self._source.read(start, stop)).vectors

        sample = Sample.draw(self._n, read, _SEED)
        compression = Compression.train(sample, self._n, read)
        faiss.write_index(compression.index, str(self._work.directory / _TRAINED))
        codebook = codebook or Codebook.of(sample.vectors)
        self._work.save(
            _SAMPLE,
            query_rows=sample.query_rows,
            queries=sample.queries,
            mean=codebook.mean,
            signs=codebook.signs,
        )
        return sample._replace(vectors=sample.vectors[:0]), compression, codebook

    def _codec(self, kind: VectorKind) -> Codec:
        return Codec(kind, self._source.shape[1], self._codebook if kind is VectorKind.INT8 else None)

    def _write_rows(self, codec: Codec) -> None:
        """Write every row, from where an earlier call was."""
        kind = codec.kind
        state = self._work.load(_STATE)
        if str(state.get("kind", "")) != kind:
            state = {}
        done = int(state.get("done", 0))
        exact = Nearest(self._sample.queries, KNOWN)
        if done:
            exact.scores, exact.rows = state["scores"], state["rows"]

        def save(done: int) -> None:
            files.sync()
            self._work.save(
                _STATE, kind=np.array(kind.value), done=np.array(done), scores=exact.scores, rows=exact.rows
            )

        with _Files(self._directory, codec, self._source, self._compression, done=done) as files:
            starts = range(done, self._n, CHUNK_ROWS)
            blocks = zip(starts, _blocks(self._source, starts), strict=True)
            for start, embeddings in blocks:
                stop = start + len(embeddings.vectors)
                files.append(embeddings)
                exact.add(embeddings.vectors, start)
                if stop == self._n or (start // CHUNK_ROWS + 1) % _BLOCKS_AT_RISK == 0:
                    save(stop)
                self._progress(stop, self._n)


def _blocks(source: EmbeddingSource, starts: Iterable[int]) -> Iterator[Embeddings]:
    """Read the blocks that begin at some rows, each while the one before is worked on."""

    def read(start: int) -> Embeddings:
        return source.read(start, min(start + CHUNK_ROWS, source.shape[0]))

    with ThreadPoolExecutor(1, thread_name_prefix="embeddings") as pool:
        for _, block in ahead(pool, read, starts, n_ahead=1):
            yield block


class _Files:
    """The files of a snapshot that have one row a photo, which grow together.

    Args:
        directory: of the snapshot.
        codec: how embeddings are stored.
        source: of the embeddings, for their number and width.
        compression: what turns them into codes; None: there are none.
        done: rows that are there.
    """

    def __init__(
        self,
        directory: Path,
        codec: Codec,
        source: EmbeddingSource,
        compression: Compression | None = None,
        *,
        done: int = 0,
    ) -> None:
        n = source.shape[0]
        self._codec, self._compression = codec, compression
        self._vectors = RowFile(directory / VECTORS, codec.dtype, (n, *codec.width), done=done)
        self._scores = RowFile(directory / SCORES, np.dtype(np.float32), (n, source.n_categories), done=done)
        self._digests = RowFile(directory / DIGESTS, np.dtype(np.uint32), (n,), done=done)
        self._all = [self._vectors, self._scores, self._digests]
        if compression:
            at, width = directory / WORK, compression.width
            self._numbers = RowFile(at / _NUMBERS, np.dtype(np.uint16), (n,), done=done)
            self._codes = RowFile(at / _ROW_CODES, np.dtype(np.uint8), (n, width), done=done)
            self._all += [self._numbers, self._codes]

    def append(self, embeddings: Embeddings) -> None:
        """Write the next rows."""
        stored = self._codec.encode(_finite(embeddings).vectors)
        self._vectors.append(stored)
        self._scores.append(embeddings.scores)
        self._digests.append(row_digests(stored))
        if self._compression:
            # Of what will be read: an audit that encodes them again must get the same codes.
            numbers, codes = self._compression.encode(self._codec.decode(stored))
            self._numbers.append(numbers)
            self._codes.append(codes)

    def sync(self) -> None:
        """Return when all of it is on the disk."""
        for file in self._all:
            file.sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._all:
            file.close()


def _finite(embeddings: Embeddings) -> Embeddings:
    for name, array in zip((VECTORS, SCORES), embeddings, strict=True):
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: not every number is finite")
    return embeddings
