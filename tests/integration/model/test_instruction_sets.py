"""int8 on processors without VNNI: the same embeddings, or refused where it is built and where it is served.

`ONEDNN_MAX_CPU_ISA=AVX2` in the environment of a fresh process stands in for such a processor.
"""

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline.building import precisions
from pipeline.building.instruction_sets import Agreement, Graph, compare_instruction_sets
from shared.model.bundle import ModelBundle, Precision, bundle_store, open_bundle
from shared.model.references import verify_embeddings
from shared.model.runtimes import open_embedder
from shared.photos.images import Pixels, PreprocessSpec, decode_photo
from tests.support.installation import Installation
from tests.support.once import small_catalogue

CPU_INFO = Path("/proc/cpuinfo")
ON_X86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="AVX2 is an instruction set of x86")
WITH_VNNI = pytest.mark.skipif(
    not CPU_INFO.exists() or "_vnni" not in CPU_INFO.read_text(), reason="this processor is one without VNNI"
)
REFRESHED = """
import json
from pathlib import Path
from worker.serving.engine import Engine
engine = Engine(Path({home!r}))
engine.refresh()
print(json.dumps([engine.ready, engine.problem_code, engine.problem]))
engine.close()
"""
EMBEDDED = """
from pathlib import Path
import numpy as np
from shared.model.bundle import bundle_store, open_bundle
from shared.model.runtimes import open_embedder
embedder = open_embedder(open_bundle(bundle_store(Path({home!r}))))
np.save({out!r}, embedder.embed(np.load({photos!r})).vectors)
"""


def on_avx2(script: str) -> str:
    """What a script prints in a process that uses no instructions newer than AVX2."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Catalogue:
    """A small drawn catalogue, and some of its photos."""

    directory: Path
    photos: Pixels

    def prepare(self, home: Path) -> ModelBundle:
        Installation(home, self.directory).prepare(precision="auto")
        return open_bundle(bundle_store(home))


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    directory = small_catalogue(tmp_path_factory, 13)
    files = sorted((directory / "images").iterdir())[:12]
    photos = np.stack([decode_photo(file.read_bytes(), PreprocessSpec()) for file in files])
    return Catalogue(directory, photos)


@ON_X86
def test_int8_gives_the_same_embeddings_on_a_processor_without_vnni(
    built_int8: Installation, catalogue: Catalogue, tmp_path: Path
) -> None:
    home = built_int8.home
    bundle = open_bundle(bundle_store(home))
    assert bundle.manifest.precision is Precision.INT8
    cosine = bundle.manifest.gate["avx2_mean_cosine"]
    assert isinstance(cosine, float)
    assert cosine >= 0.9999
    photos, there = tmp_path / "photos.npy", tmp_path / "there.npy"
    np.save(photos, catalogue.photos)
    on_avx2(EMBEDDED.format(home=str(home), photos=str(photos), out=str(there)))
    here = open_embedder(bundle).embed(catalogue.photos).vectors
    assert (here * np.load(there)).sum(axis=1).min() >= 0.9999
    assert json.loads(on_avx2(REFRESHED.format(home=str(home)))) == [True, None, None]


@ON_X86
@WITH_VNNI
def test_weights_of_eight_bits_fail_the_gate_and_a_worker_without_vnni_refuses_them(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nncf

    quantize, compared = nncf.quantize, list[Agreement | None]()

    def quantize_to_eight_bits(*args: object, advanced_parameters: object, **options: object) -> object:
        return quantize(*args, **{**options, "fast_bias_correction": True})  # as good with so many bits

    def compare_and_let_pass(graph: Graph, pixels: Pixels) -> None:
        compared.append(compare_instruction_sets(graph, pixels))

    monkeypatch.setattr(nncf, "quantize", quantize_to_eight_bits)
    monkeypatch.setattr(precisions, "compare_instruction_sets", compare_and_let_pass)
    bundle = catalogue.prepare(tmp_path)
    assert bundle.manifest.precision is Precision.INT8
    [agreement] = compared
    assert agreement is not None
    assert not agreement.passed
    verify_embeddings(bundle, open_embedder(bundle))
    ready, code, problem = json.loads(on_avx2(REFRESHED.format(home=str(tmp_path))))
    assert (ready, code) == (False, "embeddings_differ")
    assert f"{bundle.version} gives other embeddings on CPU" in problem


def test_a_graph_of_which_processors_disagree_is_not_served(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precisions, "int8_graph", lambda graph, photos: graph)
    monkeypatch.setattr(precisions, "compare_instruction_sets", lambda graph, pixels: Agreement(0.99, 0.97))
    manifest = catalogue.prepare(tmp_path).manifest
    assert manifest.precision is Precision.FLOAT32
    assert manifest.gate == {
        "avx2_mean_cosine": 0.99,
        "avx2_min_cosine": 0.97,
        "verdict": "failed: other embeddings on processors without VNNI; float32 is used",
    }


def test_nothing_is_compared_where_the_processor_has_no_such_instructions(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert compare_instruction_sets(None, catalogue.photos) is None


@pytest.mark.parametrize(
    ("mean", "least", "passed"), [(0.9995, 0.997, True), (0.9985, 0.997, False), (0.9995, 0.99, False)]
)
def test_instruction_sets_agree_if_the_mean_cosine_and_the_least_one_do(
    mean: float, least: float, passed: bool
) -> None:
    agreement = Agreement(mean, least)
    assert agreement.passed is passed
    assert ("verdict" in agreement.facts()) is not passed
