"""OpenVINO against the torch reference: the same answers in float32, close enough in int8, and gated where not."""

import dataclasses
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch

from pipeline.building.export import Verdict, runner, with_head
from pipeline.building.trunks import trunk_graph, trunk_shapes
from pipeline.training.head import Heads
from pipeline.training.network.split_network import Front, front_runner
from shared.errors import BundleDamaged, ModelNotCompiled, TorchMissing
from shared.model.backbones import EMBEDDING_DIM, INPUT_PX, LEVELS, NORMALISATION
from shared.model.bundle import GRAPH, ModelBundle, Precision, Runtime, bundle_store, open_bundle
from shared.model.embedder import Cores
from shared.model.network import Network, Projection
from shared.model.openvino_library import openvino_library
from shared.model.references import reference_pixels, verify_embeddings
from shared.model.runtimes import OpenVINOEmbedder, TorchEmbedder, open_embedder
from shared.photos.images import Pixels, PreprocessSpec, decode_photo
from shared.settings import Backbone
from tests.support.installation import Installation


@dataclasses.dataclass(frozen=True)
class Both:
    """Two bundles, and some photos; the home is that of int8."""

    home: Path
    int8: ModelBundle
    float32: ModelBundle
    photos: Pixels


@pytest.fixture(scope="module")
def both(built: Installation, built_int8: Installation) -> Both:
    files = sorted((built.catalogue / "images").iterdir())[:12]
    photos = np.stack([decode_photo(file.read_bytes(), PreprocessSpec()) for file in files])
    int8, float32 = (open_bundle(bundle_store(one.home)) for one in (built_int8, built))
    return Both(built_int8.home, int8, float32, photos)


def test_a_bundle_for_a_cpu_is_openvino_int8_made_without_torch_and_says_how_it_compares(both: Both) -> None:
    """Torch is hidden from the process that makes it: see `demo_home`."""
    manifest = both.int8.manifest
    assert (manifest.runtime, manifest.precision) == (Runtime.OPENVINO, Precision.INT8)
    assert isinstance(manifest.gate["mean_cosine"], float)
    assert manifest.gate["mean_cosine"] >= 0.99
    assert manifest.gate["verdict"] == "passed"
    assert both.float32.manifest.precision is Precision.FLOAT32
    assert both.float32.manifest.fingerprint != manifest.fingerprint


def test_openvino_float32_is_the_torch_reference(both: Both) -> None:
    ours = open_embedder(both.float32).embed(both.photos)
    reference = TorchEmbedder(both.float32).embed(both.photos)
    np.testing.assert_allclose(ours.vectors, reference.vectors, atol=1e-5)  # summation order
    np.testing.assert_allclose(ours.scores, reference.scores, atol=1e-3)


def test_int8_stays_close_to_float32_and_gives_unit_vectors(both: Both) -> None:
    int8 = open_embedder(both.int8).embed(both.photos)
    exact = both.int8.manifest.model_copy(update={"precision": Precision.FLOAT32})
    float32 = TorchEmbedder(dataclasses.replace(both.int8, manifest=exact)).embed(both.photos)
    assert (int8.vectors * float32.vectors).sum(axis=1).mean() >= 0.99
    np.testing.assert_allclose(np.linalg.norm(int8.vectors, axis=1), 1, atol=1e-5)


def test_feature_maps_are_those_of_the_torch_reference_and_of_int8_close_to_them(both: Both) -> None:
    embedders = TorchEmbedder(both.float32), open_embedder(both.float32), open_embedder(both.int8)
    reference, same, close = (embedder.feature_maps(both.photos[0]) for embedder in embedders)
    assert [len(one) for one in reference] == list(LEVELS[Backbone(both.float32.manifest.backbone)])
    for expected, exact, rounded in zip(reference, same, close, strict=True):
        np.testing.assert_allclose(exact, expected, atol=1e-3)
        assert np.vdot(rounded, expected) > 0.95 * np.linalg.norm(rounded) * np.linalg.norm(expected)


@pytest.mark.parametrize("which", ["int8", "float32"])
def test_a_photo_gets_the_same_embedding_alone_in_a_batch_and_beside_others(both: Both, which: str) -> None:
    embedder = OpenVINOEmbedder(getattr(both, which), streams=2)
    together = embedder.embed(both.photos, Cores.STREAM)
    for i, photo in enumerate(both.photos):
        np.testing.assert_allclose(embedder.embed(photo[None]).vectors[0], together.vectors[i], atol=1e-4)
    answers: dict[int, np.ndarray] = {}

    def ask(i: int) -> None:
        answers[i] = embedder.embed(both.photos[i][None], (Cores.STREAM, Cores.SPARE)[i % 2]).vectors[0]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(both.photos))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, vector in answers.items():
        np.testing.assert_allclose(vector, together.vectors[i], atol=1e-4)


def test_one_stream_is_compiled_once_for_both_kinds_of_pass_and_answers_several_threads(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = openvino_library().Core
    compile_model, compiled = core.compile_model, list[object]()

    def counted(*given: object) -> object:
        compiled.append(compile_model(*given))
        return compiled[-1]

    monkeypatch.setattr(core, "compile_model", counted)
    embedder = OpenVINOEmbedder(both.int8, threads=2, streams=1)
    assert len(compiled) == 1
    OpenVINOEmbedder(both.int8, threads=2, streams=2)
    assert len(compiled) == 3
    passes = [Cores.ALL, Cores.STREAM, Cores.SPARE] * 2
    with ThreadPoolExecutor(len(passes)) as pool:
        answers = list(pool.map(lambda cores: embedder.embed(both.photos[:2], cores).vectors, passes))
    for vectors in answers[1:]:
        np.testing.assert_array_equal(vectors, answers[0])


def _computed_by_niceness() -> dict[int, int]:
    """Processor time of this process's threads so far, in clock ticks, by their niceness."""
    spent: dict[int, int] = {}
    for thread in Path("/proc/self/task").iterdir():
        of_thread = (thread / "stat").read_text().rsplit(")", 1)[1].split()
        niceness = int(of_thread[16])
        spent[niceness] = spent.get(niceness, 0) + int(of_thread[11]) + int(of_thread[12])
    return spent


def test_passes_in_spare_cores_run_in_threads_of_a_lower_priority_where_each_stream_has_one(both: Both) -> None:
    embedder = OpenVINOEmbedder(both.float32, threads=2, streams=2)
    assert embedder.gives_way
    assert not OpenVINOEmbedder(both.float32, threads=2, streams=1).gives_way
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    low = min(19, usual + 10)
    for cores, at_work, idle in ((Cores.SPARE, low, usual), (Cores.STREAM, usual, low)):
        embedder.embed(both.photos[:4], cores)  # compiles
        before = _computed_by_niceness()
        for _ in range(10):
            embedder.embed(both.photos[:4], cores)
        spent = {niceness: ticks - before.get(niceness, 0) for niceness, ticks in _computed_by_niceness().items()}
        assert spent.get(at_work, 0) > 4 * spent.get(idle, 0)


def _cores_of_threads() -> set[str]:
    """The cores that the threads of this process may run on, as the kernel lists them."""
    found = set()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has ended
            found |= set(re.findall(r"Cpus_allowed_list:\s*(\S+)", (thread / "status").read_text()))
    return found


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core")
@pytest.mark.parametrize("cores", [Cores.ALL, Cores.STREAM, Cores.SPARE])
@pytest.mark.parametrize("threads", [1, 2])
def test_no_pass_is_bound_to_a_core_that_the_passes_of_other_workers_would_be_bound_to(
    both: Both, cores: Cores, threads: int
) -> None:
    embedder = OpenVINOEmbedder(both.int8, threads=threads)
    unbound = _cores_of_threads()
    seen = [embedder.embed(both.photos[:4], cores)]  # compiles
    while_running: list[set[str]] = []
    caller = threading.Thread(target=lambda: seen.extend(embedder.embed(both.photos[:4], cores) for _ in range(20)))
    caller.start()
    while caller.is_alive():
        while_running.append(_cores_of_threads())
    assert len(seen) == 21
    assert len(while_running) > 1
    assert set.union(*while_running) == unbound


@pytest.mark.parametrize("which", ["int8", "float32"])
def test_a_model_gives_its_reference_photos_the_embeddings_that_its_bundle_expects(both: Both, which: str) -> None:
    bundle: ModelBundle = getattr(both, which)
    assert bundle.manifest.references is not None
    verify_embeddings(bundle, open_embedder(bundle))
    if which == "float32":  # the other runtime is the same model
        verify_embeddings(bundle, TorchEmbedder(bundle))


def test_a_cpu_worker_needs_no_torch(both: Both) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from worker.serving.engine import Engine\n"
        f"engine = Engine(Path({str(both.home)!r})); engine.refresh()\n"
        "assert engine.ready, engine.problem\n"
        "from shared.jobs.contract import SearchRequest\n"
        "result = engine.run(SearchRequest(), bytes(224 * 224 * 3)); engine.close()\n"
        "print(len(result.neighbours))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "4"), done.stderr


def test_a_process_whose_first_inferences_come_from_several_threads_at_once_finishes(both: Both) -> None:
    """Left to itself, two times in three it would not: see `OpenVINOEmbedder.__init__`."""
    script = (
        "import threading\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from shared.model.bundle import bundle_store, open_bundle\n"
        "from shared.model.embedder import Cores\n"
        "from shared.model.runtimes import open_embedder\n"
        f"embedder = open_embedder(open_bundle(bundle_store(Path({str(both.home)!r}))), streams=2)\n"
        "together = threading.Barrier(4)\n"
        "def infer():\n"
        "    together.wait()\n"
        "    embedder.embed(np.zeros((1, 224, 224, 3), np.uint8), Cores.STREAM)\n"
        "threads = [threading.Thread(target=infer) for _ in range(4)]\n"
        "[thread.start() for thread in threads]\n"
        "[thread.join() for thread in threads]"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.parametrize(
    "follow_it",
    ["follow()", "thread = threading.Thread(target=follow); thread.start(); thread.join()"],
    ids=["in the thread that compiled it", "in another"],
)
def test_a_model_that_is_dropped_takes_no_signal_with_it(both: Both, follow_it: str) -> None:
    """Left to itself, the next signal would end the process with a segmentation fault: see `signal_stack`."""
    script = (
        "import gc, os, signal, sys, threading, time\n"
        "from pathlib import Path\n"
        "from shared.model.bundle import bundle_store, open_bundle\n"
        "from shared.model.runtimes import open_embedder\n"
        f"bundle = open_bundle(bundle_store(Path({str(both.home)!r})))\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "models = [open_embedder(bundle)]\n"
        "def follow():\n"
        "    models.append(open_embedder(bundle))\n"
        "    del models[0]\n"
        "    gc.collect()\n"
        f"{follow_it}\n"
        "models.clear(); gc.collect()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "time.sleep(10)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 7


@pytest.mark.parametrize(
    ("cosine", "precision", "passed"),
    [(0.995, 0.50, True), (0.995, 0.495, True), (0.989, 0.50, False), (0.999, 0.489, False)],
)
def test_the_gate_lets_pass_what_is_close_in_both_and_nothing_else(
    cosine: float, precision: float, passed: bool
) -> None:
    assert Verdict(cosine, precision, reference_precision_at_4=0.50).passed is passed


def test_a_graph_that_is_none_is_refused(both: Both, tmp_path: Path) -> None:
    (tmp_path / GRAPH).write_text("<net/>")
    with pytest.raises(BundleDamaged, match=rf"{GRAPH} cannot be read \(Unable to read the model.*\)$"):
        OpenVINOEmbedder(dataclasses.replace(both.int8, directory=tmp_path))


def test_a_graph_that_this_host_cannot_compile_is_told_apart_from_a_damaged_one(both: Both) -> None:
    with pytest.raises(ModelNotCompiled, match=rf"{GRAPH} cannot be compiled here \(.*INFERENCE_NUM_THREADS.*\)$"):
        OpenVINOEmbedder(both.int8, threads=-5, streams=1)


def test_a_projection_in_the_graph_gives_what_it_gives_in_torch(both: Both) -> None:
    network = Network(Backbone.EFFICIENTNET_LITE0, both.float32.manifest.normalisation)
    network.load_tensors(both.float32.tensors())
    network.projection = Projection(sum(network.features.trunk.levels), 20).eval()
    network.projection.evidence.fill_(0.7)
    with torch.inference_mode():
        vectors, scores = (part.numpy() for part in network(torch.from_numpy(both.photos)))
    assert vectors.shape == (12, 33)
    np.testing.assert_allclose(np.linalg.norm(vectors[:, :20], axis=1), 1, rtol=1e-5)
    heads, trunk = Heads.of(network.tensors()), network.features.trunk
    graph = trunk_graph(trunk.backbone, network.features.normalisation, trunk.tensors(), 224)
    for embeddings, same_scores in (
        runner(with_head(graph, heads))(both.photos),
        heads.answer(runner(graph)(both.photos)[0]),
    ):
        assert embeddings.shape[1] == heads.embedding_dim == network.embedding_dim
        np.testing.assert_allclose(embeddings, vectors, atol=1e-4)
        np.testing.assert_allclose(same_scores, scores, atol=1e-3)


def random_network(backbone: Backbone) -> Network:
    """Weights of a size that keeps every stage's output alive, and BatchNorms that do something."""
    torch.manual_seed(1)
    network = Network(backbone, NORMALISATION[backbone])
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, (low, high) in (
                (module.weight, (0.5, 1.5)), (module.bias, (-0.3, 0.3)),
                (module.running_mean, (-0.3, 0.3)), (module.running_var, (0.5, 2.0)),
            ):  # fmt: skip
                assert tensor is not None
                torch.nn.init.uniform_(tensor, low, high)
    return network


@pytest.mark.parametrize("backbone", list(NORMALISATION))
def test_a_trunk_written_as_a_graph_is_that_of_torch_at_every_size_and_stage(backbone: Backbone) -> None:
    network = random_network(backbone)
    tensors = network.features.trunk.tensors()
    assert trunk_shapes(backbone) == {name: value.shape for name, value in tensors.items()}
    for size_px in (INPUT_PX[backbone], 97):
        photos = reference_pixels(size_px)[:3]
        with torch.inference_mode():
            expected = network.features(torch.from_numpy(photos)).numpy()
        pooled = runner(trunk_graph(backbone, NORMALISATION[backbone], tensors, size_px))(photos)[0]
        assert pooled.shape == (3, sum(LEVELS[backbone]))
        cosines = (pooled * expected).sum(1) / np.linalg.norm(pooled, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosines.min() > 0.99999
        np.testing.assert_allclose(pooled, expected, atol=1e-5 * np.abs(expected).max())  # summation order
    for n_trained in (0, 1, 6):
        front = Front(network, n_trained)
        with torch.inference_mode():
            expected = front(torch.from_numpy(photos)).numpy()
        given = front_runner(front, size_px, torch.device("cpu"))(photos)[0]
        assert n_trained or given.shape == (3, EMBEDDING_DIM[backbone])
        np.testing.assert_allclose(given, expected, atol=1e-5 * np.abs(expected).max())


def test_without_torch_its_models_are_refused_with_what_to_type(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    manifest = both.float32.manifest.model_copy(update={"runtime": Runtime.TORCH})
    with pytest.raises(TorchMissing, match=r"runs in torch, needs torch, .* type `make torch` .*TORCH_INDEX"):
        open_embedder(dataclasses.replace(both.float32, manifest=manifest))


def test_a_bundle_in_bfloat16_passes_the_gate_and_is_run_so(built: Installation, both: Both, tmp_path: Path) -> None:
    installation = Installation(tmp_path / "new", built.copy(tmp_path).catalogue)
    installation.keep_photos(16)  # most CPUs have no instructions for it, and take seconds for a photo or two
    installation.prepare(runtime="torch", precision="bfloat16")
    bundle = open_bundle(bundle_store(installation.home))
    assert (bundle.manifest.runtime, bundle.manifest.precision) == (Runtime.TORCH, Precision.BFLOAT16)
    assert bundle.manifest.gate["verdict"] == "passed"
    verify_embeddings(bundle, open_embedder(bundle))
    half = open_embedder(bundle).embed(both.photos)
    exact = TorchEmbedder(
        dataclasses.replace(bundle, manifest=bundle.manifest.model_copy(update={"precision": "float32"}))
    )
    assert 0.99 <= (half.vectors * exact.embed(both.photos).vectors).sum(axis=1).mean() < 1 - 1e-7


def test_what_cannot_be_compiled_is_run_as_it_is(both: Both, caplog: pytest.LogCaptureFixture) -> None:
    def without_a_compiler(graph: object, inputs: object) -> NoReturn:
        raise RuntimeError("Failed to find C compiler")

    lame = TorchEmbedder(both.float32, compiler=without_a_compiler)
    expected = TorchEmbedder(both.float32).embed(both.photos[:3]).vectors
    for _ in range(2):
        np.testing.assert_allclose(lame.embed(both.photos[:3]).vectors, expected, atol=1e-5)
    (warning,) = (record.message for record in caplog.records if "event=not_compiled" in record.message)
    assert "Failed to find C compiler" in warning


def test_passes_filled_up_to_a_compiled_size_answer_for_their_own_photos_only(both: Both) -> None:
    compiled = TorchEmbedder(both.float32, compiler="eager")  # as on a GPU, but for the code it makes
    plain = TorchEmbedder(both.float32).embed(both.photos[:3])
    filled = compiled.embed(both.photos[:3])
    assert filled.vectors.shape == plain.vectors.shape
    np.testing.assert_allclose(filled.vectors, plain.vectors, atol=1e-5)  # summation order
    np.testing.assert_allclose(filled.scores, plain.scores, atol=1e-3)
