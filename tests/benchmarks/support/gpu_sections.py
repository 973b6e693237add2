"""The sections of the GPU's benchmark: `python -m tests.benchmarks.support.gpu_sections NAME INTO WANTED` runs one.

A section imports only what it needs, and writes each figure when it has it.
"""

import csv
import dataclasses
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.benchmarks.support.report import RESULTS, Value

if TYPE_CHECKING:
    from pipeline.training.weights.loading import LoadedWeights
    from shared.array_types import FloatArray
    from shared.model.bundle import ModelBundle, Precision
    from shared.model.runtimes import TorchEmbedder
    from shared.photos.images import Pixels

MIN_COSINE = 0.999
MIN_SHARE = 0.8  # of the bare loop
_BUSY = 0.1  # of the GPU's memory taken before anything has begun: others use it
_BATCHES = (1, 4, 8, 32, 64, 256)
_LARGEST_PASS = 64
_COPIES = 4  # of each drawn photo that a reindex embeds
_EPOCHS = 2  # the first one warms up


class Wanted(NamedTuple):
    """What is measured: `weights` is a file of ResNet50's, None: random ones; `quick`: whether it runs at all."""

    backbone: str
    weights: str | None
    quick: bool


class Told:
    """What a section tells, written at once: it may be killed in the next moment."""

    def __init__(self, into: Path) -> None:
        self._into = into

    def row(self, table: str, **row: Value) -> None:
        """One more row of a table; what is no number has no place in JSON."""
        self.facts(table=table, row={name: None if value != value else value for name, value in row.items()})

    def check(self, what: str, value: float, at_least: float | None) -> None:
        """A figure and the bound that it must reach; None: not on this machine."""
        passed = None if at_least is None else value >= at_least  # false for what is no number
        self.row("checks", check=what, value=value, at_least=at_least, passed=passed)

    def facts(self, **facts: object) -> None:
        """What is true of the whole run."""
        with self._into.open("a") as file:
            file.write(json.dumps(facts) + "\n")


def device(told: Told, _: Wanted) -> None:
    """Which GPU the others use, what it was doing before, and with which libraries."""
    import torch

    told.facts(torch=torch.__version__, cuda=torch.version.cuda, gpu=None)
    if not torch.cuda.is_available():
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
        except (RuntimeError, AssertionError) as exc:
            told.facts(no_gpu_because=str(exc).splitlines()[0])
        return
    told.facts(**_asked_of_driver())  # before this process takes memory of its own
    free, total = torch.cuda.mem_get_info()
    found = torch.cuda.get_device_properties(0)
    told.facts(
        gpu=found.name,  # with MIG that of a slice
        gpus=torch.cuda.device_count(),  # of which the first is used; CUDA_VISIBLE_DEVICES chooses another
        gpu_memory_gb=round(total / 1e9, 1),
        compute_capability=f"{found.major}.{found.minor}",
        cudnn=torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        c_compiler=next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None),  # compiling for a GPU needs one
        others_use_it=1 - free / total > _BUSY,
    )


def _asked_of_driver() -> dict[str, str | None]:
    """The driver's version, and what the first GPU was doing, as far as it can be asked."""
    asked = {
        "driver": "driver_version",
        "load_before": "utilization.gpu",
        "memory_before": "memory.used",
        "power_limit": "power.limit",
        "mig": "mig.mode.current",
    }
    command = ["nvidia-smi", f"--query-gpu={','.join(asked.values())}", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        return dict(zip(asked, answer.splitlines()[0].split(", "), strict=False))
    with suppress(OSError):  # in a container without that program
        return {"driver": Path("/proc/driver/nvidia/version").read_text().splitlines()[0]}
    return {"driver": None}


def cosine(told: Told, wanted: Wanted) -> None:
    """Embeddings against float32 on the CPU: Lite0's trained weights, and those of the backbone that is measured."""
    from shared.model.backbones import GPU_PRECISION
    from shared.model.bundle import Precision
    from shared.model.references import reference_pixels
    from shared.model.runtimes import TorchEmbedder

    ways: dict[str, tuple[Precision, str | None]] = {"as served": (GPU_PRECISION, None)}
    if not wanted.quick:
        others = (Precision.FLOAT32, Precision.BFLOAT16, Precision.FLOAT16)
        ways |= {f"{precision}, not compiled": (precision, "") for precision in others}
    for backbone in dict.fromkeys(["efficientnet_lite0", wanted.backbone]):
        with _bundle(backbone, wanted) as bundle:
            size_px = bundle.manifest.preprocess.size_px
            photos = {"hard": reference_pixels(size_px)[: 1 if wanted.quick else None]}
            if not wanted.quick:
                photos["drawn"] = _drawn(bundle)
            for kind, pixels in photos.items():
                expected = _by_cpu(bundle, pixels)
                for way, (precision, compiler) in ways.items():
                    embedder = TorchEmbedder(_in(bundle, precision), compiler=compiler)
                    cosines = (embedder.embed(pixels).vectors * expected).sum(axis=1)
                    facts: dict[str, Value] = {"backbone": backbone, "photos": kind, "way": way}
                    told.row("cosine", **facts, n=len(pixels), mean=float(cosines.mean()), least=float(cosines.min()))
                    if way == "as served":
                        told.check(f"cosine, {backbone}, {kind} photos", float(cosines.min()), MIN_COSINE)


def batches(told: Told, wanted: Wanted) -> None:
    """Photos a second by batch size. `embed` returns when embeddings are in memory: nothing is left to wait for."""
    import numpy as np
    import torch

    from shared.model.backbones import GPU_PRECISION
    from shared.model.bundle import Precision
    from shared.model.runtimes import TorchEmbedder

    on_gpu, at_least_s = torch.cuda.is_available(), 0.1 if wanted.quick else 1.0
    ways: dict[str, tuple[Precision, str | None]] = {"float32, not compiled": (Precision.FLOAT32, "")}
    if on_gpu:
        ways = {"as served": (GPU_PRECISION, None), f"{GPU_PRECISION}, not compiled": (GPU_PRECISION, ""), **ways}
    with _bundle(wanted.backbone, wanted) as bundle:
        size_px = bundle.manifest.preprocess.size_px
        pixels = np.random.default_rng(17).integers(0, 256, (_BATCHES[-1], size_px, size_px, 3), dtype=np.uint8)
        for way, (precision, compiler) in ways.items():
            embedder = TorchEmbedder(_in(bundle, precision), compiler=compiler)
            for size in _BATCHES[: 2 if wanted.quick else None]:
                some = pixels[:size]
                first_s = _median_s(lambda: embedder.embed(some), n=1)  # noqa: B023 - called at once; compiles
                took_s = _median_s(lambda: embedder.embed(some), at_least_s)  # noqa: B023
                told.row("batches", way=way, batch=size, photos_per_s=size / took_s, ms=1e3 * took_s, first_s=first_s)
            size = min(size, _LARGEST_PASS)
            took_s = _on_device_s(embedder, pixels[:size], at_least_s)
            told.row("pixels there already", way=way, batch=size, photos_per_s=size / took_s, ms=1e3 * took_s)
        if on_gpu:
            told.facts(peak_gpu_memory_mb=round(torch.cuda.max_memory_allocated() / 1e6))
            pageable = torch.from_numpy(pixels[:_LARGEST_PASS])
            for kind, source in (("pageable", pageable), ("pinned", pageable.pin_memory())):
                took_s = _median_s(lambda: source.to("cuda").sum().item(), 0.2)  # noqa: B023
                told.row(f"copying {_LARGEST_PASS} photos to the GPU", memory=kind, ms=1e3 * took_s)


def service(told: Told, wanted: Wanted) -> None:
    """Embed jobs against the strongest bare loop, taking turns, and a reindex of everything."""
    import torch

    from shared.model.bundle import Runtime, bundle_store, open_bundle
    from shared.model.runtimes import open_embedder
    from shared.settings import Backbone
    from tests.benchmarks.http import Server
    from tests.benchmarks.support.bare import BareLoop
    from tests.benchmarks.support.installation import UNCACHED, installed, serving
    from tests.benchmarks.support.material import catalogue, query_photos

    n_turns, seconds, n_clients = (1, 0.5, 4) if wanted.quick else (3, 4.0, 128)
    on_gpu, directory = torch.cuda.is_available(), _directory()
    home = installed(Backbone(wanted.backbone), directory, Path(wanted.weights) if wanted.weights else None)
    bundle = open_bundle(bundle_store(home))
    told.facts(runtime=bundle.manifest.runtime, precision=bundle.manifest.precision, gate=str(bundle.manifest.gate))
    if on_gpu and bundle.manifest.runtime is not Runtime.TORCH:
        raise SystemExit(f"{home} was built without this GPU: remove it")
    if not wanted.quick:  # with head and projection, as it is served
        pixels = _drawn(bundle)
        cosines = (open_embedder(bundle).embed(pixels).vectors * _by_cpu(bundle, pixels)).sum(axis=1)
        told.check("cosine, the bundle that is served", float(cosines.min()), MIN_COSINE if on_gpu else None)
    photos = query_photos(directory)
    bare = BareLoop(home, [path.read_bytes() for path in photos], tried_for_s=1.0, quick=wanted.quick)
    told.facts(bare_loop=str(bare), decode_ms=bare.decode_ms(), model_ms=bare.model_ms())
    many = _copied(catalogue(directory, 52 if wanted.quick else 403), 1 if wanted.quick else _COPIES)
    # Streams and batches as a worker finds them best, unless there is no time for it.
    fixed = {"streams": 2, "max_batch": 2} if wanted.quick else {}
    settings = {**UNCACHED, "catalogue": many, **fixed}
    with tempfile.TemporaryDirectory() as scratch, serving(home, Path(scratch), settings=settings) as stack:
        path, headers = "/v1/jobs/embed?encoding=base64", {"Prefer": "wait=30"}
        server = Server("embed jobs", stack.port, path, {}, headers=headers)
        server.ask(photos[0].parent, n_clients, seconds)  # the first requests are the slowest
        bares = []
        for _ in range(n_turns):
            bares.append(bare.run(seconds).per_s)
            server.take_turn(photos[0].parent, n_clients, seconds)
        turns = server.turns[n_clients]
        bare_per_s, per_s = statistics.median(bares), statistics.median(asked.per_s for asked in turns)
        told.row(
            "service", clients=n_clients, photos_per_s=per_s, bare_per_s=bare_per_s, of_bare=per_s / bare_per_s,
            p50_ms=1e3 * statistics.median(each for asked in turns for each in asked.latencies_s),
            refused=sum(asked.refused for asked in turns),
            clients_cpu=statistics.median(asked.cpu_s / asked.elapsed_s for asked in turns),
        )  # fmt: skip
        told.check(f"share of the bare loop, {n_clients} clients", per_s / bare_per_s, MIN_SHARE if on_gpu else None)
        _reindex(told, stack.url)


def _reindex(told: Told, url: str) -> None:
    """Embed the catalogue with nothing else to do; the first reindex reads the tables too."""
    from tests.benchmarks.support.installation import reindexed

    for run in ("first", "second"):
        began = time.perf_counter()
        result = reindexed(url, mode="all", promote="never")["result"]
        n, took_s = result["counts"]["embedded"], time.perf_counter() - began
        embedding_s = result["timings_s"]["embedding"]
        told.row("reindex", run=run, photos=n, photos_per_s=n / embedding_s, whole_s=took_s, embedding_s=embedding_s)


def training(told: Told, wanted: Wanted) -> None:
    """An epoch of each recipe: on activations kept from one pass, and decoding every photo anew."""
    import torch

    from pipeline.cleaning.clean import clean
    from pipeline.training.recipes import RECIPES
    from pipeline.training.train import train
    from shared.model.backbones import INPUT_PX
    from shared.photos.images import PreprocessSpec
    from shared.settings import Backbone
    from tests.benchmarks.support.material import catalogue

    backbone, n_epochs = Backbone(wanted.backbone), 1 if wanted.quick else _EPOCHS
    with tempfile.TemporaryDirectory() as scratch:
        cleaned = clean(
            catalogue(_directory(), 52 if wanted.quick else 403), Path(scratch) / "clean", report_progress=_say
        )
        for name in ("finetune",) if wanted.quick else ("finetune", "head"):
            for cached in (False,) if wanted.quick else (True, False):
                began = time.perf_counter()
                trained = train(
                    _weights(backbone, wanted),
                    cleaned,
                    dataclasses.replace(RECIPES[name], cached=cached, epochs=n_epochs),
                    directory=Path(scratch) / f"{name}-{cached}",
                    activations=Path(scratch) / "activations",
                    spec=PreprocessSpec(size_px=INPUT_PX[backbone]),
                    resume=False,
                    seed=17,
                    report_progress=_say,
                )
                epoch_s, whole_s = trained.history[-1]["seconds"], time.perf_counter() - began
                n = sum(photo.listing_id in trained.split.train for photo in cleaned.catalogue.photos)
                facts: dict[str, Value] = {"recipe": name, "activations_kept": cached, "photos": n}
                told.row("training", **facts, epoch_s=epoch_s, photos_per_s=n / epoch_s, whole_s=whole_s)
    if torch.cuda.is_available():
        told.facts(peak_training_memory_mb=round(torch.cuda.max_memory_allocated() / 1e6))


SECTIONS: dict[str, Callable[[Told, Wanted], None]] = {
    section.__name__: section for section in (device, cosine, batches, service, training)
}


# --- what several of them need ---


def _directory() -> Path:
    """Of what is kept for the next run; bundles differ by the device they are built on."""
    import torch

    directory = RESULTS / ("installed-gpu" if torch.cuda.is_available() else "installed")
    directory.mkdir(parents=True, exist_ok=True)
    return directory.resolve()


def _weights(backbone: str, wanted: Wanted) -> "LoadedWeights":
    from pipeline.training.weights.loading import load_weights
    from shared.settings import Backbone
    from tests.benchmarks.support.material import random_resnet50

    file = None
    if backbone == Backbone.RESNET50:
        file = Path(wanted.weights) if wanted.weights else random_resnet50(_directory() / "resnet50-random.pth")
    return load_weights(Backbone(backbone), file, download_timeout_s=1)


@contextmanager
def _bundle(backbone: str, wanted: Wanted) -> "Iterator[ModelBundle]":
    """A bundle of the weights as they come, in float32."""
    from shared.model.backbones import INPUT_PX, NORMALISATION
    from shared.model.bundle import BundleManifest, Split, open_bundle_directory, write_bundle_directory
    from shared.photos.images import PreprocessSpec

    loaded = _weights(backbone, wanted)
    manifest = BundleManifest(
        backbone=loaded.backbone,
        weights=loaded.source,
        weights_sha256="",
        embedding_dim=loaded.network.embedding_dim,
        preprocess=PreprocessSpec(size_px=INPUT_PX[loaded.backbone]),
        normalisation=NORMALISATION[loaded.backbone],
        catalogue="none",
        built_at="2026-01-01T00:00:00+00:00",
    )
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "bundle"
        write_bundle_directory(directory, manifest, loaded.network.tensors(), split=Split())
        yield open_bundle_directory(directory)


def _in(bundle: "ModelBundle", precision: "Precision") -> "ModelBundle":
    return dataclasses.replace(bundle, manifest=bundle.manifest.model_copy(update={"precision": precision}))


def _by_cpu(bundle: "ModelBundle", pixels: "Pixels") -> "FloatArray":
    """(n, dim) by the network as it is, float32 on the CPU."""
    import torch

    from shared.model.embedder import normalised
    from shared.model.network import Network
    from shared.settings import Backbone

    manifest = bundle.manifest
    network = Network(Backbone(manifest.backbone), manifest.normalisation, len(manifest.categories))
    network.load_tensors(bundle.tensors())
    with torch.inference_mode():
        return normalised(network(torch.from_numpy(pixels))[0].numpy())


def _drawn(bundle: "ModelBundle") -> "Pixels":
    """(64, S, S, 3) photos of the demo catalogue."""
    import numpy as np

    from shared.photos.images import decode_photo
    from tests.benchmarks.support.material import catalogue

    files = sorted((catalogue(_directory()) / "images").iterdir())[:_LARGEST_PASS]
    return np.stack([decode_photo(file.read_bytes(), bundle.manifest.preprocess) for file in files])


def _copied(source: Path, copies: int) -> Path:
    """The same catalogue with several copies of each photo, of different bytes: each of them is embedded."""
    made = source.with_name(f"{source.name}-x{copies}")
    if copies == 1 or made.exists():
        return made if made.exists() else source
    with tempfile.TemporaryDirectory(dir=source.parent) as scratch:
        draft = Path(scratch) / "draft"
        (draft / "images").mkdir(parents=True)
        shutil.copy(source / "Products.csv", draft)
        with (source / "Images.csv").open(newline="") as table, (draft / "Images.csv").open("w", newline="") as target:
            rows = csv.writer(target)
            rows.writerow(["id", "product_id"])
            for row in csv.DictReader(table):
                content = (source / "images" / f"{row['id']}.jpg").read_bytes()
                for copy in range(copies):
                    rows.writerow([f"{row['id']}-{copy}", row["product_id"]])
                    (draft / "images" / f"{row['id']}-{copy}.jpg").write_bytes(content + bytes(copy))  # after its end
        draft.rename(made)
    return made


def _on_device_s(embedder: "TorchEmbedder", pixels: "Pixels", at_least_s: float) -> float:
    """Seconds of a pass whose pixels and embeddings stay on the device; a GPU is waited for, as it works on its own."""
    import torch

    from shared.model.network import products_in

    on = torch.device("cuda" if embedder.on_gpu else "cpu")
    there = torch.from_numpy(pixels).to(on)

    def run() -> None:
        with torch.inference_mode(), products_in(embedder.manifest.precision, on):
            embedder._run(there)
        if embedder.on_gpu:
            torch.cuda.synchronize()

    run()
    return _median_s(run, at_least_s)


def _median_s(call: Callable[[], Any], at_least_s: float = 0.0, n: int = 5) -> float:
    """Median of n calls or more, for so long."""
    took: list[float] = []
    until = time.perf_counter() + at_least_s
    while len(took) < n or time.perf_counter() < until:
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    SECTIONS[sys.argv[1]](Told(Path(sys.argv[2])), Wanted(*json.loads(sys.argv[3])))
