"""Tunes a model to the machine: measures the best number of streams and batch size once, in seconds, and stores them.

The objective is throughput under load; a photo alone takes all cores in any case.
"""

import hashlib
import logging
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from shared.atomic_files import write_atomically
from shared.cores import n_cores
from shared.model.embedder import Cores, Embedder
from shared.photos.images import Pixels
from shared.telemetry import event

_LOG = logging.getLogger(__name__)
# Without matrix units (AMX) a few photos keep a core busy; with them eight photos a pass are half as fast again as two.
_BATCHES_CPU = (1, 2, 4, 8, 16, 32)
_BATCHES_GPU = (1, 8, 32, 64)
_ROUNDS = 4  # of each candidate, alternating; the best counts, because other load can only make it slower
_HOPEFUL = 0.85  # of the best throughput: what is slower in the first round is not measured again
_FASTER = 1.02  # times as many photos per second are a gain
_NO_BETTER = 2  # so many larger batches one after the other gain nothing: yet larger ones are not tried
_ROUND_S = 0.12
# Of the best throughput counts as equal, since measurements vary on a shared machine: of numbers of streams, and of
# batches. Each pass also costs the service: with four photos a pass, 3 % faster than two, it served 6 % more.
_AS_GOOD, _BATCH_AS_GOOD = 0.95, 0.98
_N_ALONE = 5
_UNDISTURBED = 0.85  # of the cores were busy with the passes: else others computed beside them
_RULES = 2  # a tuning that was chosen by others is not used
_FASTEST_FIRST = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2")

Open = Callable[[int], Embedder]


@dataclass(frozen=True, order=True)
class _Round:
    """A round of passes: photos a second, and how many cores were busy with them."""

    photos_per_s: float
    cores: float


class Tuning(BaseModel):
    """The tuning of one model on one kind of machine.

    Attributes:
        streams: forward passes at the same time.
        batch: photos per pass.
        photos_per_s: throughput with these, all streams busy.
        alone_ms: latency of a pass of one photo when nothing else runs.
        machine: that it was measured on, for people.
    """

    model_config = ConfigDict(frozen=True)

    streams: int
    batch: int
    photos_per_s: float
    alone_ms: float
    machine: str


def open_tuned(
    open_with: Open, directory: Path, *, threads: int = 0, streams: int = 0, batch: int = 0
) -> tuple[Embedder, Tuning]:
    """Open a model with the stored tuning of this machine, or measure and store it first.

    What was measured while others used the cores is used, but not stored: the next start measures again.

    Args:
        open_with: opens the model with a number of streams; 0: the runtime's default.
        directory: of the tuning files, which may be shared by machines of several kinds.
        threads: of the model; 0: one a core.
        streams, batch: fixed by the operator; 0: to be tuned.

    Returns:
        the opened model, and its tuning.
    """
    embedder = open_with(streams)
    machine = ", ".join([_cpu(), *_instructions(), embedder.device])
    facts = (_RULES, embedder.manifest.fingerprint, machine, embedder.library, streams, batch)
    path = directory / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}.json"
    try:
        found = Tuning.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        began = time.monotonic()
        found, cores = tune(open_with, embedder, machine, streams=streams, batch=batch)
        disturbed = not embedder.on_gpu and cores < _UNDISTURBED * (threads or n_cores())
        event(_LOG, "tuned", seconds=time.monotonic() - began, disturbed=disturbed, **found.model_dump())
        if not disturbed:
            _remember(path, found)
        # What has run large batches keeps their memory for good, some 5 MB a photo in each stream.
        del embedder
        return open_with(found.streams), found
    return (embedder if embedder.n_streams == found.streams else open_with(found.streams)), found


def tune(
    open_with: Open, embedder: Embedder, machine: str, *, streams: int = 0, batch: int = 0
) -> tuple[Tuning, float]:
    """Measure the throughput of several numbers of streams and batch sizes, and choose with `best_way`.

    What is far from the best after one round is not measured again, so that slow passes of many photos cost little.

    Args:
        open_with: opens the model with a number of streams.
        embedder: the model, opened with the default number of streams, or the fixed one.
        machine: description of the machine.
        streams, batch: fixed by the operator; 0: to be tuned.

    Returns:
        the tuning, and how many cores were busy with most streams: fewer than there are where others computed, too.
    """
    batches = [batch] if batch else _BATCHES_GPU if embedder.on_gpu else _BATCHES_CPU
    ways = {embedder.n_streams: embedder}
    if not streams:
        ways |= {n: open_with(n) for n in sorted({1, embedder.n_streams // 4, embedder.n_streams // 2} - {0, *ways})}
    rounds: dict[tuple[int, int], _Round] = {}
    for way in ways.values():
        rounds |= {(way.n_streams, size): one for size, one in _as_long_as_faster(way, batches)}
    enough = _HOPEFUL * max(one.photos_per_s for one in rounds.values())
    hopeful = [tried for tried, one in rounds.items() if one.photos_per_s >= enough]
    for n_streams, size in hopeful * (_ROUNDS - 1):
        rounds[n_streams, size] = max(_round(ways[n_streams], size), rounds[n_streams, size])
    n_streams, size = best_way({tried: one.photos_per_s for tried, one in rounds.items()})
    alone = [_seconds(lambda: embedder.embed(_noise(embedder, 1))) for _ in range(_N_ALONE)]
    found = Tuning(
        streams=n_streams,
        batch=size,
        photos_per_s=round(rounds[n_streams, size].photos_per_s, 1),
        alone_ms=round(1e3 * statistics.median(alone), 1),
        machine=machine,
    )
    return found, max(one.cores for (n, _), one in rounds.items() if n == max(ways))


def best_way(rates: Mapping[tuple[int, int], float]) -> tuple[int, int]:
    """Choose, among the ways within 5 % of the fastest, the most streams; of their batches within 2 %, the smallest.

    With fewer streams, a pass uses several cores and waits for the slowest: in service, where other work runs on the
    same cores, that costs a fifth of the throughput of an idle machine. A smaller batch is done earlier.

    Args:
        rates: photos per second by (streams, batch).

    Returns:
        (streams, batch).
    """
    enough = _AS_GOOD * max(rates.values())
    n_streams = max(n for (n, _), rate in rates.items() if rate >= enough)
    batches = {batch: rate for (n, batch), rate in rates.items() if n == n_streams}
    enough = _BATCH_AS_GOOD * max(batches.values())
    return n_streams, min(batch for batch, rate in batches.items() if rate >= enough)


def _as_long_as_faster(embedder: Embedder, batches: Sequence[int]) -> Iterator[tuple[int, _Round]]:
    """Measure larger and larger batches, until they are no faster: batches with their rounds."""
    best, n_no_better = 0.0, 0
    for size in batches:
        _round(embedder, size, at_least_s=0)  # the first pass of each size prepares it
        one = _round(embedder, size)
        yield size, one
        n_no_better = n_no_better + 1 if one.photos_per_s < _FASTER * best else 0
        best = max(best, one.photos_per_s)
        if n_no_better == _NO_BETTER:
            return


def _round(embedder: Embedder, batch: int, at_least_s: float = _ROUND_S) -> _Round:
    photos = _noise(embedder, batch)
    began, began_cpu = time.perf_counter(), time.process_time()

    def passes() -> Iterator[int]:
        while True:
            embedder.embed(photos, Cores.STREAM)
            yield batch
            if time.perf_counter() - began > at_least_s:
                return

    with ThreadPoolExecutor(embedder.n_streams) as pool:
        n_photos = sum(pool.map(lambda _: sum(passes()), range(embedder.n_streams)))
    elapsed_s = time.perf_counter() - began
    return _Round(n_photos / elapsed_s, (time.process_time() - began_cpu) / elapsed_s)


def _noise(embedder: Embedder, n: int) -> Pixels:
    size_px = embedder.manifest.preprocess.size_px
    return np.random.default_rng(17).integers(0, 256, (n, size_px, size_px, 3), dtype=np.uint8)


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _remember(path: Path, found: Tuning) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path, many_writers=True) as temporary:
            temporary.write_text(found.model_dump_json(indent=1), encoding="utf-8")
    except OSError as exc:  # a full or read-only disk only means measuring again next time
        event(_LOG, "tuning_not_remembered", level=logging.WARNING, reason=str(exc))


def _instructions() -> list[str]:
    """What tells processors of one name apart: the best instructions for products, and whether some are not used."""
    flags = set(_of_cpu("flags").split())
    best = [next((name for name in _FASTEST_FIRST if name in flags), "")]
    limited = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
    return [one for one in (*best, limited and f"at most {limited}") if one]


def _cpu() -> str:
    return _of_cpu("model name") or platform.processor() or platform.machine()


def _of_cpu(field: str) -> str:
    """A field of the first processor in /proc/cpuinfo; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{field}\t")), "")
