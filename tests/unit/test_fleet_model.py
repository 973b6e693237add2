"""The simulated fleet keeps account: nothing is done faster than costs allow, and nothing gets lost"""

import json
from pathlib import Path

import pytest

from tests.benchmarks.catalogue_costs import PhotoBytes, add_costs
from tests.benchmarks.store_costs import StoreCosts
from tests.benchmarks.support.fleet_model import Costs, Fleet, Load, Simulation
from tests.benchmarks.support.report import Report
from tests.benchmarks.unit_costs import Measured

COSTS = Costs(pass_s=0.1, photo_s=0.0, pass_photos=4, worker_s=0.001, redis_s=0.0005)


@pytest.mark.parametrize("workers", [1, 3, 20])
def test_workers_add_up_while_nothing_is_shared(workers: int) -> None:
    outcome = Simulation(COSTS, Fleet(workers), Load(waiting=400 * workers)).run()
    assert len(outcome.ended_at) == 400 * workers
    # The first and the last passes are not full.
    assert len(outcome.ended_at) / outcome.lasted_s == pytest.approx(workers * COSTS.photos_per_s, rel=0.05)


def test_redis_is_one_however_many_workers_there_are() -> None:
    costs = Costs(pass_s=0.001, photo_s=0.0, redis_s=0.01)
    outcome = Simulation(costs, Fleet(50), Load(waiting=2000)).run()
    assert len(outcome.ended_at) / outcome.lasted_s == pytest.approx(100, rel=0.05)
    assert outcome.redis_busy == pytest.approx(1, abs=0.05)


def test_a_reindex_takes_what_searches_leave() -> None:
    costs = Costs(pass_s=0.0, photo_s=0.025, pass_photos=4)  # half full passes waste nothing
    searches = Load(per_s=0.3 * 2 * costs.photos_per_s, shards=10_000)
    outcome = Simulation(costs, Fleet(2), searches).run(60)
    assert len(outcome.ended_at) / 60 == pytest.approx(searches.per_s, rel=0.1)
    assert (len(outcome.ended_at) + outcome.shard_photos) / 60 == pytest.approx(2 * costs.photos_per_s, rel=0.1)


def test_what_dying_workers_held_is_done_by_others_after_their_leases() -> None:
    fleet = Fleet(2, lease_s=5, kills=((1.0, 0),), away_s=1e6)
    outcome = Simulation(COSTS, fleet, Load(waiting=200, shards=3)).run()
    assert (len(outcome.ended_at), outcome.shard_photos, outcome.failed) == (200, 3 * 64, 0)
    assert outcome.deaths == 1
    assert outcome.retried >= fleet.threads
    assert outcome.lasted_s > 1 + fleet.lease_s - fleet.beat_s


def test_a_job_whose_workers_always_die_fails_after_three_attempts() -> None:
    slow = Costs(pass_s=100, photo_s=0.0)
    fleet = Fleet(1, lives_s=1, away_s=1, lease_s=2)
    outcome = Simulation(slow, fleet, Load(waiting=1)).run()
    assert (outcome.ended_at, outcome.failed, outcome.retried) == ([], 1, 2)


def test_what_catalogues_cost_follows_from_what_one_photo_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = StoreCosts(
        photo_reads=2, shard_reads=3, shard_writes=1, reindex_reads=3, reindex_writes=30, start_reads=8,
        start_bytes=118_000_000, watch_reads_per_s=1.0,
    )  # fmt: skip
    report = Report("made_up")
    add_costs(report, Measured(COSTS, 57, 64), store, PhotoBytes(planned=3000, codes=264, rows=300, scores=52), 2048)
    report.finish()
    tables = json.loads(Path("var/bench/made_up.json").read_text())["tables"]
    once = {row["what"]: row["10,000,000"] for row in tables["a catalogue embedded once"]}
    assert once["one worker"] == pytest.approx(10_000_000 / COSTS.photos_per_s / 3600, rel=0.01)
    assert (once["store: photos read"], once["Redis: commands"]) == (20, 10)
    assert all(row["1,000,000,000"] == pytest.approx(100 * row["10,000,000"], rel=0.02)
               for row in tables["a catalogue embedded once"])  # fmt: skip
    in_files, in_milvus = (
        next(row for row in tables["an index, GB"] if row["lies_in"] == name)
        for name in ("files, compressed", "Milvus")
    )
    assert (in_files["memory_of_a_worker"], in_milvus["memory_of_a_worker"]) == (2.64, 0)
    assert in_milvus["in_milvus"] == pytest.approx(10_000_000 * (2048 * 4 + 52) / 1e9, rel=0.01)
