"""Benchmarks still run, and leave a table, JSON and a picture behind. How fast anything is, is not asked here."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.benchmarks.http import peer
from tests.benchmarks.ledger.__main__ import run_under_kills, schedule
from tests.benchmarks.ledger.account import Account, Kill
from tests.benchmarks.ledger.journal import Line, Runs
from tests.benchmarks.ledger.parts import ThisHost
from tests.benchmarks.ledger.slow_network import SlowNetwork, why_not
from tests.benchmarks.ledger.systems import CELERY
from tests.benchmarks.support.peers import NO_NETWORK
from tests.benchmarks.support.report import Report, table
from tests.support.installation import Installation


def run(name: str, *arguments: str, cwd: Path, ends_with: int = 0) -> dict[str, Any]:
    """A benchmark from its command line, in a directory of its own; returns the tables it wrote."""
    ended = subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.{name}", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == ends_with, ended.stderr[-3000:]
    told: dict[str, Any] = json.loads((cwd / f"var/bench/{name}.json").read_text())
    for title in told["tables"]:
        assert title in ended.stdout
    return dict(told["tables"])


def test_http_benchmark_compares_service_and_bare_loop(built: Installation, tmp_path: Path) -> None:
    installed = tmp_path / "var/bench/installed"
    shutil.copytree(built.home, installed / "efficientnet_lite0")
    shutil.copytree(built.catalogue, installed / "catalogue-52")
    tables = run("http", "--backbone", "efficientnet_lite0", "--quick", cwd=tmp_path)
    assert {(row["served_by"], row["clients"]) for row in tables["throughput"]} == {
        (name, clients) for name in ("embed jobs", "search, old endpoint") for clients in (1, 4)
    }
    assert all(row["photos_per_s"] > 0 and row["refused"] == 0 for row in tables["throughput"])
    assert tables["one client, ms"][0]["latency"] > tables["one client, ms"][0]["compute_told"] > 0
    assert (tmp_path / "var/bench/http.png").stat().st_size > 0


def test_the_peer_without_a_network_answers_photos_in_a_form(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(bytes(1000))
    with peer(NO_NETWORK, tmp_path) as server:
        asked = server.ask(tmp_path, n_clients=2, seconds=0.5)
    assert (asked.refused, bool(asked.latencies_s)) == (0, True)


def test_gpu_benchmark_runs_on_a_cpu_and_a_section_that_fails_costs_no_other(tmp_path: Path) -> None:
    (tmp_path / "var/bench").mkdir(parents=True)
    (tmp_path / "var/bench/installed").touch()  # which is to be a directory
    tables = run("gpu", "--quick", "--only", "device", "service", "cosine", "batches", cwd=tmp_path, ends_with=1)
    outcomes = {row["section"]: row["outcome"] for row in tables["sections"]}
    assert outcomes.pop("service").startswith("failed: FileExistsError")
    assert outcomes == {"device": "done", "cosine": "done", "batches": "done"}
    (check,) = tables["checks"]
    assert (check["at_least"], check["passed"]) == (0.999, True)  # in float16, by the CPU's arithmetic
    assert [row["batch"] for row in tables["batches"]] == [1, 4]
    assert all(row["photos_per_s"] > 0 for row in tables["batches"])
    facts = json.loads((tmp_path / "var/bench/gpu.json").read_text())["facts"]
    assert {"commit", "torch", "cuda", "gpu"} <= set(facts)


def test_queue_benchmark_measures_every_transition_at_every_depth(tmp_path: Path) -> None:
    tables = run("queue", "--quick", cwd=tmp_path)
    steps = ("submit", "ask", "claim", "finish", "http submit")
    assert [(row["step"], row["queued"]) for row in tables["transitions"]] == [
        (step, depth) for step in steps for depth in (100, 1000)
    ]
    by_id, photo = (row["bytes"] for row in tables["memory of a queued job"])
    assert photo > by_id + 150_000  # the pixels of a photo


def test_index_benchmark_finds_what_exact_search_finds(tmp_path: Path) -> None:
    tables = run("index", "--quick", cwd=tmp_path)
    assert tables["index"][0]["recall_at_10"] == 1.0  # so few are searched exactly


def test_filters_benchmark_finds_what_brute_force_finds(tmp_path: Path) -> None:
    tables = run("filters", "--quick", cwd=tmp_path)
    assert [row["recall"] for row in tables["filters"]] == [1.0] * 10
    assert [row["set_differs"] for row in tables["filters"]] == [0] * 10


def test_words_benchmark_finds_what_comparing_with_all_finds(tmp_path: Path) -> None:
    tables = run("words", "--quick", cwd=tmp_path)
    assert [row["recall"] for row in tables["searches"]] == [1.0, 1.0, 1.0, None]


def test_a_report_says_what_was_run_and_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    report = Report("made_up", turns=3)
    report.add("speed", who="we", clients=1, per_s=12.345)
    report.add("speed", who="they", clients=32, per_s=None)
    report.plot("speed", x="clients", y="per_s", by="who")
    report.finish()
    told = json.loads((tmp_path / "var/bench/made_up.json").read_text())
    assert told["command"].startswith("python -m tests.benchmarks.made_up")
    assert told["machine"]["cores"] >= 1
    assert set(told["load_average"]) == {"before", "after"}
    assert told["facts"] == {"turns": 3}
    assert told["tables"]["speed"][0] == {"who": "we", "clients": 1, "per_s": 12.345}
    assert (tmp_path / "var/bench/made_up.png").stat().st_size > 0
    assert "they       32      -" in capsys.readouterr().out


def test_numbers_stand_on_the_right_and_words_on_the_left() -> None:
    assert table([{"name": "a", "n": 7}, {"name": "long", "n": 1234}]).splitlines() == [
        "name     n",
        "a        7",
        "long  1234",
    ]


def test_duplicates_benchmark_finds_copies(built: Installation, tmp_path: Path) -> None:
    tables = run("duplicates", "--quick", "--home", str(built.home), "--catalogue", str(built.catalogue), cwd=tmp_path)
    assert sum(row["copies"] for row in tables["copies"]) == 24
    assert tables["altogether"][0]["recall"] > 0.9
    assert tables["many photos, seconds of one core"][0]["photos"] == 1000


def test_ledger_kills_each_part_and_this_service_loses_nothing(built: Installation, tmp_path: Path) -> None:
    installed = tmp_path / "var/bench/installed"
    shutil.copytree(built.home, installed / "efficientnet_lite0")
    shutil.copytree(built.catalogue, installed / "catalogue-52")
    tables = run("ledger", "--quick", "--systems", "lookalike", cwd=tmp_path)  # ends with 1 if it does
    (row,) = tables["ledger"]
    assert row["accepted"] == 60
    assert row["lost"] == row["ended_twice"] == row["unanswered"] == row["failed"] == 0
    assert {each["killed"]: each["kills"] for each in tables["time to recover"]} == {"worker": 1, "api": 1, "valkey": 1}


def test_ledger_runs_stock_celery_which_loses_nothing_undisturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    account, runs = run_under_kills(
        CELERY[2], ThisHost(), tmp_path, [], 32, sleep_s=0.01, lost_after_s=4, patience_s=10
    )
    row = account.row(runs)
    assert row["accepted"] == 32
    assert row["lost"] == row["run_twice"] == row["ended_twice"] == row["unanswered"] == row["undelivered"] == 0


def test_ledger_kills_the_same_parts_at_the_same_jobs_of_every_run() -> None:
    kills = schedule(1000, 30, seed=17)
    assert kills == schedule(1000, 30, seed=17) != schedule(1000, 30, seed=18)
    assert [sum(name.startswith(part) for _, name in kills) for part in ("worker", "api", "valkey")] == [10, 10, 10]
    assert [at for at, _ in kills] == sorted(at for at, _ in kills)
    assert all(200 <= at < 1000 for at, _ in kills)


def test_ledger_counts_what_became_of_each_job() -> None:
    account = Account(keeps_outcomes=True, began_at=0, over_at=10)
    account.accepted = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6.5}
    account.sent = {number: at - 0.25 for number, at in account.accepted.items()}
    account.tries = [*account.sent.values(), 5.5]
    account.kills = [Kill("worker-2", 5.0)]
    account.seen = {1: "succeeded 1", 2: "succeeded 1", 5: "failed 1"}
    account.last = {1: "succeeded 1", 2: "succeeded 2", 3: None, 4: None, 5: "failed 1"}
    account.undelivered = {4}
    events = [("began", 1), ("ended", 1), ("began", 2), ("began", 2), ("ended", 2), ("ended", 2), ("began", 3)]
    lines = [Line(event, number, 0, at) for (event, number), at in zip(events, (1, 1.5, 2, 3, 7, 8, 4), strict=True)]
    runs = Runs.of([*lines, Line("began", 5, 0, 9), Line("ended", 5, 0, 9)])
    row = account.row(runs)
    told = ("lost", "undelivered", "run_twice", "to_its_end_twice", "ended_twice", "unanswered", "failed")
    assert [row[name] for name in told] == [1, 1, 1, 1, 1, 2, 1]
    assert row["jobs_per_s"] == 0.5
    assert row["undisturbed_per_s"] == 0.2
    (recovery,) = account.recoveries(runs)
    # Tried at 5.5 and at 6.25, accepted at 6.5; job 2 was accepted before the kill and ended first at 7.
    assert (recovery["killed"], recovery["accepts_s"], recovery["all_ended_s"]) == ("worker", 1.0, 2.0)


def test_hosts_of_the_slow_network_are_a_round_trip_apart() -> None:
    if reason := why_not():
        pytest.skip(reason)
    with SlowNetwork(("client", "server"), rtt_s=0.02) as network:
        address = network.address("server")
        with network.inside("server"):
            server = socket.create_server((address, 5000))
        with network.inside("client"), server:
            began = time.perf_counter()
            socket.create_connection((address, 5000), timeout=5).close()
            assert time.perf_counter() - began >= 0.02
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((address, 5001), timeout=5)
