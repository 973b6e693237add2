"""How many cores a process may use, within the limits of its container."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared import cores
from shared.cores import limit_threads, n_cores
from tests import ROOT


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_n_allowed", lambda: 8)


def machine(root: Path, groups: str, **files: str) -> Path:
    """A file system that tells of these control groups; `files` by path below sys/fs/cgroup, `__` for `/`."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, content in files.items():
        file = root / "sys/fs/cgroup" / name.replace("__", "/").replace("cpu_max", "cpu.max").replace("cfs", "cpu.cfs")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "n"),
    [
        ("0::/\n", {"cpu_max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu_max": "250000 100000\n"}, 2),
        ("0::/\n", {"cpu_max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu_max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu_max": "6400000 100000\n"}, 8),
        ("0::/\n", {"cpu_max": "not a limit\n"}, 8),
        ("0::/\n", {}, 8),
        # The limit of a service is that of the slice it is in, if that is less.
        ("0::/a/b\n", {"a__b__cpu_max": "400000 100000", "a__cpu_max": "300000 100000"}, 3),
        # A path of the host, seen from within a container.
        ("0::/kubepods/pod1\n", {"cpu_max": "400000 100000"}, 4),
        # The first version, where every controller has a directory of its own.
        (
            "4:memory:/x\n2:cpu,cpuacct:/d\n",
            {"cpu,cpuacct__d__cfs_quota_us": "150000", "cpu,cpuacct__d__cfs_period_us": "50000"},
            3,
        ),
        ("2:cpu:/d\n0::/\n", {"cpu__cfs_quota_us": "-1", "cpu__cfs_period_us": "100000"}, 8),
        ("4:cpuset:/x\n", {"cpuset__x__cfs_quota_us": "100000", "cpuset__x__cfs_period_us": "100000"}, 8),
    ],
)
def test_a_containers_limit_counts(tmp_path: Path, groups: str, files: dict[str, str], n: int) -> None:
    assert n_cores(machine(tmp_path, groups, **files)) == n


def test_without_control_groups_the_machines_cores_count(tmp_path: Path) -> None:
    assert n_cores(tmp_path) == 8


def test_libraries_are_limited_only_where_a_container_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "n_cores", lambda: 8)
    limit_threads()
    assert "OPENBLAS_NUM_THREADS" not in os.environ
    monkeypatch.setattr(cores, "n_cores", lambda: 2)
    limit_threads()
    assert (os.environ["OMP_NUM_THREADS"], os.environ["OPENBLAS_NUM_THREADS"]) == ("3", "2")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priorities of their own")
def test_a_thread_gives_way_to_its_process_also_where_that_was_started_with_nice() -> None:
    code = (
        "import os, threading; from shared.cores import give_way; os.nice(max(0, 15 - os.nice(0))); "
        "t = threading.Thread(target=lambda: (give_way(), print(os.nice(0)))); t.start(); t.join(); print(os.nice(0))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    of_thread, of_process = map(int, done.stdout.split())
    assert of_process >= 15
    assert of_thread == 19  # the least that there is
