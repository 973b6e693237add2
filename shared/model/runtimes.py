"""The runtimes that implement `Embedder`: torch, the reference and for GPUs, and OpenVINO, for CPUs.

Each imports its library when it is opened: a CPU worker runs without torch, a GPU worker without OpenVINO.
"""

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from shared.array_types import FloatArray
from shared.cores import give_way, n_cores
from shared.errors import BundleDamaged, ModelNotCompiled
from shared.exhaustion import raise_exhaustion
from shared.model.bundle import GRAPH, BundleManifest, ModelBundle, Runtime
from shared.model.embedder import Cores, Embedder, Embeddings, normalised
from shared.model.openvino_library import compile_for_cpu, openvino_library
from shared.model.torch_library import require_torch
from shared.photos.images import Pixels
from shared.settings import Backbone
from shared.telemetry import event

if TYPE_CHECKING:
    from torch import Tensor

_LOG = logging.getLogger(__name__)
# A graph compiled for a GPU is recompiled for every new batch size, so batches are padded to one of these.
_BUCKETS = (1, 8, 32, 64)
_LARGEST_BATCH = _BUCKETS[-1]
# Measured: a stream has one core, which is as fast with batches of 1, 2, 4 and 8; small passes end sooner for others.
_BEST_BATCH_OF_A_STREAM = 2
_FIRST_ARRAY = threading.Lock()


def open_embedder(bundle: ModelBundle, *, threads: int = 0, streams: int = 0) -> Embedder:
    """Load a bundle into the runtime that it was built and measured for.

        embedder = open_embedder(open_bundle(bundle_store(storage)))
        vectors, scores = embedder.embed(pixels)

    Args:
        bundle: to load.
        threads: CPU threads in total; 0: one per core.
        streams: forward passes at the same time, where the runtime supports it; 0: one per thread.

    Raises:
        BundleDamaged: the files do not fit what the manifest says.
        TorchMissing: it runs in torch, which is not installed.
    """
    if bundle.manifest.runtime is Runtime.OPENVINO:
        return OpenVINOEmbedder(bundle, threads=threads, streams=streams)
    require_torch(f"{bundle.version}, a model that runs in torch,")
    return TorchEmbedder(bundle, threads=threads)


class TorchEmbedder:
    """An `Embedder` in torch, channels_last: eager on a CPU, compiled for a few batch sizes on a GPU where that can be.

    Args:
        bundle: to load.
        threads: of torch on a CPU; 0: torch's default.
        compiler: a backend of `torch.compile` or its name, "" for none; None: inductor on a GPU, none on a CPU.

    Raises:
        BundleDamaged: the weights do not fit the backbone.
    """

    def __init__(
        self, bundle: ModelBundle, *, threads: int = 0, compiler: str | Callable[..., Any] | None = None
    ) -> None:
        import torch

        from shared.model.network import Network, products_in

        if threads:
            torch.set_num_threads(threads)
        self._torch, self._products_in = torch, products_in
        self._manifest = bundle.manifest
        try:
            network = Network(
                Backbone(bundle.manifest.backbone), bundle.manifest.normalisation, len(bundle.manifest.categories)
            )
            network.load_tensors(bundle.tensors())
        except (RuntimeError, ValueError, KeyError) as exc:
            raise BundleDamaged(f"{bundle.version}: weights do not fit {bundle.manifest.backbone}") from exc
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if compiler is None:
            compiler = "inductor" if self.on_gpu else ""
        self._network = network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._forward: Callable[[Tensor], Any] = self._network
        self._buckets: tuple[int, ...] = ()
        if compiler:
            self._forward = torch.compile(self._network, backend=compiler, dynamic=False)
            self._buckets = _BUCKETS

    @property
    def manifest(self) -> BundleManifest:
        """Manifest of the bundle."""
        return self._manifest

    @property
    def on_gpu(self) -> bool:
        """Whether torch uses CUDA."""
        return bool(self._device.type == "cuda")

    @property
    def device(self) -> str:
        """Name of the GPU, or "CPU, n threads"."""
        if self.on_gpu:
            return str(self._torch.cuda.get_device_name(self._device))
        return f"CPU, {self._torch.get_num_threads()} threads"

    @property
    def library(self) -> str:
        """Version of torch."""
        return f"torch {self._torch.__version__}"

    @property
    def n_streams(self) -> int:
        """Always 1: one pass uses the whole device."""
        return 1

    @property
    def best_batch(self) -> int:
        """Always the largest batch."""
        return _LARGEST_BATCH  # the larger the faster, above all on a GPU

    @property
    def gives_way(self) -> bool:
        """Always false: a pass that has begun keeps the device to its end."""
        return False

    def embed(self, pixels: Pixels, cores: Cores = Cores.ALL) -> Embeddings:
        """Embed photos, in passes of at most 64; see `Embedder.embed`. `cores` makes no difference."""
        parts = [self._pass(pixels[start : start + _LARGEST_BATCH]) for start in range(0, len(pixels), _LARGEST_BATCH)]
        vectors, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Embeddings(normalised(vectors), scores)

    def feature_maps(self, photo: Pixels) -> list[FloatArray]:
        """Compute the maps of one photo; see `Embedder.feature_maps`."""
        torch, features = self._torch, self._network.features
        with torch.inference_mode(), self._products_in(self._manifest.precision, self._device):
            maps = features.trunk.maps(features.prepared(torch.from_numpy(photo[None]).to(self._device)))
        return [one[0].float().cpu().numpy() for one in maps]

    def _pass(self, pixels: Pixels) -> tuple[FloatArray, FloatArray]:
        torch, n = self._torch, len(pixels)
        size = next((bucket for bucket in self._buckets if bucket >= n), n)
        filled = pixels if size == n else np.concatenate([pixels, np.zeros((size - n, *pixels.shape[1:]), np.uint8)])
        with torch.inference_mode(), self._products_in(self._manifest.precision, self._device):
            vectors, scores = self._run(torch.from_numpy(filled).to(self._device))
        return vectors[:n].float().cpu().numpy(), scores[:n].float().cpu().numpy()

    def _run(self, pixels: "Tensor") -> "tuple[Tensor, Tensor]":
        """Run the network; where it cannot be compiled, as without a C compiler, as it is from then on."""
        if self._forward is not self._network:
            from torch._dynamo.exc import TorchDynamoException

            try:
                return cast("tuple[Tensor, Tensor]", self._forward(pixels))
            except TorchDynamoException as exc:
                event(_LOG, "not_compiled", level=logging.WARNING, reason=str(exc))
                self._forward, self._buckets = self._network, ()
        return cast("tuple[Tensor, Tensor]", self._network(pixels))


class OpenVINOEmbedder:
    """An `Embedder` in OpenVINO on a CPU.

    The graph is compiled twice: for a pass over all cores, which a photo alone takes, and for one stream per core, so
    that concurrent passes spend no time on threads waiting for one another; once where there is one stream. At the
    first pass in spare cores it is compiled once more, with threads that give way.

    Args:
        bundle: to load.
        threads: CPU threads in total; 0: one per core.
        streams: forward passes at the same time; 0: one per thread.

    Raises:
        BundleDamaged: the graph cannot be read.
        ModelNotCompiled: it cannot be compiled, now or ever.
    """

    def __init__(self, bundle: ModelBundle, *, threads: int = 0, streams: int = 0) -> None:
        openvino = openvino_library()

        # At the first array it receives, OpenVINO's binding imports numpy. Threads that trigger this at the same moment
        # deadlock, one of them holding the GIL: so only one thread does it.
        with _FIRST_ARRAY:
            openvino.Tensor(np.zeros(1, dtype=np.uint8))
        threads = threads or n_cores()
        self._manifest = bundle.manifest
        self._device = f"CPU, {threads} threads"
        self._library = f"OpenVINO {openvino.get_version()}"
        self._n_streams = streams or threads
        core = openvino.Core()
        try:
            graph = core.read_model(bundle.directory / GRAPH)
        except RuntimeError as exc:
            raise_exhaustion(exc)
            raise BundleDamaged(f"{bundle.version}: {GRAPH} cannot be read ({_reason(exc)})") from exc

        def compiled(n_streams: int) -> _RequestPool:
            return _RequestPool(compile_for_cpu(graph, threads=threads, streams=n_streams, core=core), n_streams)

        try:
            self._all = compiled(1)
            # A pass of the only stream is over all cores, too.
            self._streams = self._all if self._n_streams == 1 else compiled(self._n_streams)
        except RuntimeError as exc:
            raise ModelNotCompiled(f"{bundle.version}: {GRAPH} cannot be compiled here ({_reason(exc)})") from exc
        # A stream of several threads shares them with all others. With one thread each it has the one that is started
        # for it, with the priority of the thread that starts it.
        self._gives_way = self._n_streams == threads
        self._compiled = partial(compiled, self._n_streams)
        self._compiling = threading.Lock()
        self._spare: _RequestPool | None = None
        self._bundle, self._core, self._threads = bundle, core, threads
        self._maps: _RequestPool | None = None

    @property
    def manifest(self) -> BundleManifest:
        """Manifest of the bundle."""
        return self._manifest

    @property
    def on_gpu(self) -> bool:
        """Always false."""
        return False

    @property
    def device(self) -> str:
        """The text "CPU, n threads"."""
        return self._device

    @property
    def library(self) -> str:
        """Version of OpenVINO."""
        return self._library

    @property
    def n_streams(self) -> int:
        """Number of OpenVINO streams."""
        return self._n_streams

    @property
    def best_batch(self) -> int:
        """Photos per forward pass of one stream, as a default."""
        return _BEST_BATCH_OF_A_STREAM

    @property
    def gives_way(self) -> bool:
        """Whether every stream has one thread."""
        return self._gives_way

    def embed(self, pixels: Pixels, cores: Cores = Cores.ALL) -> Embeddings:
        """Embed photos over all cores or in one stream; see `Embedder.embed`."""
        if cores is Cores.SPARE and self._gives_way:
            pool = self._spare_streams()
        else:
            pool = self._all if cores is Cores.ALL else self._streams
        vectors, scores = pool.infer(pixels)[:2]
        return Embeddings(normalised(vectors), scores)

    def feature_maps(self, photo: Pixels) -> list[FloatArray]:
        """Compute the maps of one photo; see `Embedder.feature_maps`. The first call compiles the graph once more."""
        with self._compiling:
            self._maps = self._maps or self._compile_maps()
        return [one[0] for one in self._maps.infer(photo[None])]

    def _spare_streams(self) -> "_RequestPool":
        with self._compiling:
            if self._spare is None:
                with ThreadPoolExecutor(1, initializer=give_way) as low:
                    self._spare = low.submit(self._compiled).result()
            return self._spare

    def _compile_maps(self) -> "_RequestPool":
        """The part of the graph that ends with what embeddings are pooled from."""
        graph = self._core.read_model(self._bundle.directory / GRAPH)
        pooling = [op for op in graph.get_ordered_ops() if op.get_type_name() == "ReduceMean"]
        maps = [op.input_value(0) for op in pooling if op.input_value(0).get_partial_shape().rank.get_length() == 4]
        model = openvino_library().Model(maps, graph.get_parameters())
        return _RequestPool(compile_for_cpu(model, threads=self._threads, core=self._core), 1)


class _RequestPool:
    """The inference requests of one compiled model, lent to one thread each."""

    def __init__(self, compiled: "object", n_requests: int) -> None:
        self._n_outputs = len(compiled.outputs)  # type: ignore[attr-defined]
        self._free: queue.SimpleQueue[object] = queue.SimpleQueue()
        for _ in range(n_requests):
            self._free.put(compiled.create_infer_request())  # type: ignore[attr-defined]

    def infer(self, pixels: Pixels) -> list[FloatArray]:
        """Run the model with a free request, and return its outputs; blocks until one is free."""
        request = self._free.get()
        try:
            outputs = request.infer({0: pixels}, share_inputs=True)  # type: ignore[attr-defined]
            return [np.array(outputs[i], dtype=np.float32) for i in range(self._n_outputs)]
        finally:
            self._free.put(request)


def _reason(error: RuntimeError) -> str:
    """The last line of an error of OpenVINO's; those before it say where in its source it happened."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
