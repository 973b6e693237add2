"""What catalogues of 10 million and of a billion photos cost, from unit costs; each unit says where it was measured."""

from tests.benchmarks.fleet_model import Costs, Fleet
from tests.benchmarks.report import Report

_PHOTOS = (10_000_000, 1_000_000_000)
_DAY_S = 86_400
# `make bench N=1000000`: memory of a process that searched a compressed index, without the vectors, which stay on disk.
_MEMORY_BYTES = 261
_DIMENSIONS = 2048
_BYTES_A_NUMBER = 4


def add_costs(report: Report, costs: Costs) -> None:
    """One table: everything embedded once, within a day."""
    fleet = Fleet(1)
    for n_photos in _PHOTOS:
        shards = n_photos / fleet.shard_photos
        worker_s = n_photos / costs.photos_per_s
        for what, amount, unit in (
            ("worker-hours", worker_s / 3600, "h"),
            ("workers to be done in a day", worker_s / _DAY_S, ""),
            ("store: photos read", n_photos, "requests"),
            ("store: shards written, and read once by who builds", 2 * shards, "requests"),
            ("store: embeddings written", n_photos * _DIMENSIONS * _BYTES_A_NUMBER / 1e9, "GB"),
            ("Redis: busy with shards for a day", shards * costs.shard_redis_s / _DAY_S, "of its thread"),
            ("index: memory of a worker", n_photos * _MEMORY_BYTES / 1e9, "GB"),
            ("index: vectors on a worker's disk", n_photos * _DIMENSIONS * _BYTES_A_NUMBER / 1e9, "GB"),
        ):
            report.add(f"a catalogue of {n_photos:,} photos", what=what, amount=float(f"{amount:.3g}"), unit=unit)
