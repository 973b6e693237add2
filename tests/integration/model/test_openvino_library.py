"""OpenVINO reports nothing of its use, whoever imports it."""

import os
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from tests import ROOT


@pytest.mark.parametrize(
    "code",
    [
        "from shared.model.openvino_library import openvino_library as get; print(get().__version__)",
        "from pipeline.doctor import wheels as w; w.MODULES = {'worker': ('openvino',)}; print(*w.check_wheels())",
    ],
)
def test_it_is_imported_and_leaves_no_id_of_its_reports_in_the_home_directory(code: str, tmp_path: Path) -> None:
    # In CI it reports nothing anyway.
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert "2026." in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_nothing_imports_it_another_way() -> None:
    graph = grimp.build_graph(
        "api", "worker", "pipeline", "shared", "lookalike", "tests", include_external_packages=True, cache_dir=None
    )
    assert "openvino" not in graph.modules, graph.find_modules_that_directly_import("openvino")
