"""The runtimes behind `Embedder`: torch, the reference and the one for GPUs; OpenVINO, the one for CPUs.

Each imports its library when it is opened: a CPU worker runs without torch, a GPU worker without OpenVINO.
"""

import os
import queue

import numpy as np

from shared.errors import BundleDamaged
from shared.images import Pixels
from shared.settings import Backbone
from shared.vision.bundle import GRAPH, BundleManifest, ModelBundle, Runtime
from shared.vision.embedder import Embedder, Embeddings, normalised

_LARGEST_BATCH = 256
# Measured: a stream has one core, which batches of 1, 2, 4 and 8 fill alike. Others wait for a pass to end.
_BEST_BATCH_OF_A_STREAM = 2


def open_embedder(bundle: ModelBundle, *, threads: int = 0, streams: int = 0) -> Embedder:
    """Load the bundle into the runtime it was built and measured for.

    Args:
        threads: CPU threads in all; 0: one a core.
        streams: passes at the same time, where the runtime can; 0: one a thread.

    Raises:
        BundleDamaged: the files do not fit what the manifest says.
    """
    if bundle.manifest.runtime is Runtime.OPENVINO:
        return OpenVINOEmbedder(bundle, threads=threads, streams=streams)
    return TorchEmbedder(bundle, threads=threads)


class TorchEmbedder:
    """The network in eager torch, float32 and channels_last, on the GPU where there is one."""

    def __init__(self, bundle: ModelBundle, *, threads: int = 0) -> None:
        import torch

        from shared.vision.network import Network

        if threads:
            torch.set_num_threads(threads)
        self._torch = torch
        self._manifest = bundle.manifest
        try:
            network = Network(Backbone(bundle.manifest.backbone), bundle.manifest.normalisation)
            network.load_tensors(bundle.tensors())
        except (RuntimeError, ValueError, KeyError) as exc:
            raise BundleDamaged(f"{bundle.version}: weights do not fit {bundle.manifest.backbone}") from exc
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def manifest(self) -> BundleManifest:
        return self._manifest

    @property
    def n_streams(self) -> int:
        return 1

    @property
    def best_batch(self) -> int:
        return _LARGEST_BATCH  # the larger the better, on a GPU above all

    def embed(self, pixels: Pixels, *, alone: bool = True) -> Embeddings:
        """See `Embedder.embed`."""
        torch = self._torch
        with torch.inference_mode():
            pooled, scores = self._network(torch.from_numpy(pixels).to(self._device))
        return Embeddings(normalised(pooled.cpu().numpy()), scores.cpu().numpy())


class OpenVINOEmbedder:
    """The bundle's graph in OpenVINO, compiled twice: one pass over all cores for a photo that is alone, and one
    stream a core for passes side by side, which wastes nothing on threads waiting for one another."""

    def __init__(self, bundle: ModelBundle, *, threads: int = 0, streams: int = 0) -> None:
        import openvino

        threads = threads or _n_cores()
        self._manifest = bundle.manifest
        self._n_streams = streams or threads
        core = openvino.Core()
        # The same precision everywhere: a CPU with bfloat16 units would otherwise give other embeddings.
        common = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        try:
            graph = core.read_model(bundle.directory / GRAPH)
            alone = core.compile_model(graph, "CPU", {**common, "NUM_STREAMS": 1})
            streams_model = core.compile_model(graph, "CPU", {**common, "NUM_STREAMS": self._n_streams})
        except RuntimeError as exc:
            raise BundleDamaged(f"{bundle.version}: {GRAPH} cannot be loaded") from exc
        self._alone = _RequestPool(alone, 1)
        self._streams = _RequestPool(streams_model, self._n_streams)

    @property
    def manifest(self) -> BundleManifest:
        return self._manifest

    @property
    def n_streams(self) -> int:
        return self._n_streams

    @property
    def best_batch(self) -> int:
        return _BEST_BATCH_OF_A_STREAM

    def embed(self, pixels: Pixels, *, alone: bool = True) -> Embeddings:
        """See `Embedder.embed`."""
        return (self._alone if alone else self._streams).infer(pixels)


class _RequestPool:
    """Inference requests of one compiled model; one that is not free is waited for."""

    def __init__(self, compiled: "object", n_requests: int) -> None:
        self._free: queue.SimpleQueue[object] = queue.SimpleQueue()
        for _ in range(n_requests):
            self._free.put(compiled.create_infer_request())  # type: ignore[attr-defined]

    def infer(self, pixels: Pixels) -> Embeddings:
        request = self._free.get()
        try:
            outputs = request.infer({0: pixels}, share_inputs=True)  # type: ignore[attr-defined]
            pooled, scores = (np.array(outputs[i], dtype=np.float32) for i in range(2))
        finally:
            self._free.put(request)
        return Embeddings(normalised(pooled), scores)


def _n_cores() -> int:
    """Cores this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
