"""Tuning: the fastest way to run a model is found, remembered, and measured again only where it may be another."""

import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from shared.model.embedder import Cores, Embeddings
from shared.photos.images import Pixels
from worker.serving import tuning
from worker.serving.tuning import Tuning, best_way, open_tuned


class Clock:
    """Stands still while nothing passes through the model, whatever else the machine does; two cores compute."""

    def __init__(self) -> None:
        self._now_s, self._lock = 0.0, threading.Lock()
        self._cpu_s = 0.0

    def wait(self, seconds: float, cores: float) -> None:
        with self._lock:
            self._now_s += seconds
            self._cpu_s += cores * seconds

    def read(self) -> float:
        return self._now_s

    def read_cpu(self) -> float:
        return self._cpu_s


CLOCK = Clock()


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        tuning, "time", SimpleNamespace(perf_counter=CLOCK.read, monotonic=CLOCK.read, process_time=CLOCK.read_cpu)
    )
    monkeypatch.setattr(tuning, "n_cores", lambda: 2)


class Machine:
    """A model whose passes take time by a clock; counts them, and how often it is opened.

    Args:
        cores: that a pass has, of two.
    """

    def __init__(self, *, overhead_s: float, photo_s: float, library: str = "made 1", cores: float = 2) -> None:
        self._cores = cores
        self.opened: list[int] = []
        self.n_passes = self.largest = 0
        self._overhead_s, self._photo_s, self._library = overhead_s, photo_s, library

    def open(self, streams: int) -> "Opened":
        self.opened.append(streams)
        return Opened(self, streams or 2, self._library)

    def run(self, n_photos: int) -> None:
        self.n_passes += 1
        self.largest = max(self.largest, n_photos)
        CLOCK.wait(self._overhead_s + n_photos * self._photo_s, self._cores)


class Opened:
    on_gpu = False
    device = "made of time"
    best_batch = 2

    def __init__(self, machine: Machine, n_streams: int, library: str) -> None:
        self.manifest = SimpleNamespace(fingerprint="f", preprocess=SimpleNamespace(size_px=2))
        self.n_streams, self.library, self._machine = n_streams, library, machine
        self.largest = 0

    def embed(self, pixels: Pixels, cores: Cores = Cores.ALL) -> Embeddings:
        self.largest = max(self.largest, len(pixels))
        self._machine.run(len(pixels))
        return Embeddings(np.zeros((len(pixels), 1), np.float32), np.zeros((len(pixels), 13), np.float32))


def tuned(machine: Machine, directory: Path, *, streams: int = 0, batch: int = 0) -> tuple[Opened, Tuning]:
    embedder, found = open_tuned(machine.open, directory, streams=streams, batch=batch)  # type: ignore[arg-type]
    assert isinstance(embedder, Opened)
    return embedder, found


@pytest.mark.parametrize(("overhead_s", "batch"), [(0.02, 32), (0.001, 16), (0.0001, 2)])
def test_a_pass_that_costs_much_whatever_its_size_is_filled(tmp_path: Path, overhead_s: float, batch: int) -> None:
    _, found = tuned(Machine(overhead_s=overhead_s, photo_s=0.002), tmp_path)
    assert (found.streams, found.batch) == (2, batch)
    assert found.photos_per_s == pytest.approx(batch / (overhead_s + batch * 0.002), rel=0.01)


def test_where_batches_gain_nothing_large_ones_are_not_tried(tmp_path: Path) -> None:
    machine = Machine(overhead_s=0, photo_s=0.005)
    _, found = tuned(machine, tmp_path)
    assert found.batch == 1
    assert machine.largest == 4


def test_the_model_that_serves_has_not_taken_memory_for_batches_that_were_only_tried(tmp_path: Path) -> None:
    machine = Machine(overhead_s=0.001, photo_s=0.002)
    embedder, found = tuned(machine, tmp_path)
    assert machine.largest > found.batch
    assert embedder.largest == 0


def test_processors_of_one_name_that_compute_otherwise_are_measured_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("", "AVX2", "AVX512_CORE"):
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
        machine = Machine(overhead_s=0, photo_s=0.005)
        _, found = tuned(machine, tmp_path)
        assert machine.n_passes
        assert limit in found.machine
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({(2, 1): 100.0, (2, 8): 102.0, (1, 8): 60.0}, (2, 1)),  # as good, and done earlier
        ({(2, 2): 97.0, (2, 4): 100.0, (2, 8): 101.0}, (2, 4)),  # a gain, small as it is
        ({(2, 1): 80.0, (2, 8): 102.0, (1, 8): 60.0}, (2, 8)),
        ({(1, 2): 100.0, (2, 2): 96.0}, (2, 2)),  # as good, and a core that is held up holds up no other
        ({(1, 2): 100.0, (2, 2): 80.0}, (1, 2)),
    ],
)
def test_of_ways_as_good_the_most_streams_are_taken_and_then_the_smallest_batch(
    rates: dict[tuple[int, int], float], best: tuple[int, int]
) -> None:
    assert best_way(rates) == best


def test_what_was_found_is_remembered_until_the_library_or_the_wish_is_another(tmp_path: Path) -> None:
    first = Machine(overhead_s=0, photo_s=0.005)
    _, found = tuned(first, tmp_path)
    again = Machine(overhead_s=0, photo_s=0.005)
    assert tuned(again, tmp_path)[1] == found
    assert (again.n_passes, len(again.opened)) == (0, 1)
    other = Machine(overhead_s=0, photo_s=0.005, library="made 2")
    tuned(other, tmp_path)
    assert other.n_passes
    wished = Machine(overhead_s=0, photo_s=0.005)
    embedder, asked = tuned(wished, tmp_path, streams=3, batch=4)
    assert (asked.streams, asked.batch, embedder.n_streams) == (3, 4, 3)


def test_what_was_measured_while_others_used_the_cores_is_used_and_measured_again_at_the_next_start(
    tmp_path: Path,
) -> None:
    busy = Machine(overhead_s=0, photo_s=0.005, cores=1.6)
    assert tuned(busy, tmp_path)[1].batch == 1
    assert not list(tmp_path.iterdir())
    quiet = Machine(overhead_s=0, photo_s=0.005, cores=1.8)
    tuned(quiet, tmp_path)
    assert quiet.n_passes
    assert list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "{}", '{"streams": "many"}'])
def test_a_damaged_memory_is_measured_again(tmp_path: Path, content: str) -> None:
    tuned(Machine(overhead_s=0, photo_s=0.005), tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    _, found = tuned(Machine(overhead_s=0, photo_s=0.005), tmp_path)
    assert Tuning.model_validate_json(file.read_text()) == found


def test_a_directory_that_cannot_be_written_only_means_measuring_each_time(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    _, found = tuned(Machine(overhead_s=0, photo_s=0.005), tmp_path / "file")
    assert found.photos_per_s > 0
