"""Benchmarks still run, and leave a table, JSON and a picture behind. How fast anything is, is not asked here."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.benchmarks.support.report import Report, table
from tests.support.installation import Installation


def run(name: str, *arguments: str, cwd: Path) -> dict[str, Any]:
    """A benchmark from its command line, in a directory of its own; returns the tables it wrote."""
    ended = subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.{name}", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
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
