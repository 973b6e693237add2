"""The arithmetic a bundle's trunk can run in: float32, int8 in OpenVINO, float16 or bfloat16 in torch."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pipeline.building.export import Forward, Graph, graph_files, int8_graph, runner, with_head
from pipeline.building.instruction_sets import N_PHOTOS, compare_instruction_sets
from pipeline.training.head import Heads
from pipeline.training.weights.loading import LoadedWeights
from shared.array_types import FloatArray
from shared.model.backbones import GPU_PRECISION
from shared.model.bundle import Precision
from shared.model.torch_library import has_gpu
from shared.photos.images import Pixels
from shared.progress import ReportProgress
from shared.settings import PrecisionChoice, Settings


@dataclass(frozen=True)
class ReducedPrecision:
    """A precision below float32 that is worth trying.

    Attributes:
        precision: its name.
        forward: runs the trunk in it.
        files: makes the files that the runtime loads, from the fitted head and projection.
        portability: how it compares with itself on other processors; with a `verdict` if it must not be used.
    """

    precision: Precision
    forward: Forward
    files: Callable[[Heads], dict[str, bytes]]
    portability: dict[str, float | str] = field(default_factory=dict)


def torch_features(loaded: LoadedWeights, precision: Precision = Precision.FLOAT32, *, threads: int = 0) -> Forward:
    """The trunk in torch, on the GPU where there is one; products in the precision."""
    import torch

    from shared.model.network import products_in

    if threads:
        torch.set_num_threads(threads)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    features = loaded.network.features.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(pixels: Pixels) -> list[FloatArray]:
        with torch.inference_mode(), products_in(precision, device):
            return [features(torch.from_numpy(pixels).to(device)).float().cpu().numpy()]

    return forward


def reduced_precision(
    graph: Graph | None,
    loaded: LoadedWeights,
    sample: list[Pixels],
    settings: Settings,
    report_progress: ReportProgress,
) -> ReducedPrecision | None:
    """The precision to try against float32: int8 with OpenVINO, float16 on a GPU, what is asked for; or None.

    Args:
        graph: the trunk in OpenVINO; None: torch runs it.
        loaded: the same, for torch.
        sample: (S, S, 3) uint8 each, of the catalogue, to calibrate int8 on.
        settings: which precision is asked for, and how many threads may run it.
        report_progress: receives one line for each step.
    """
    if settings.precision is PrecisionChoice.FLOAT32:
        return None
    if graph is not None:
        report_progress(f"quantising to int8 with {len(sample)} photos of the catalogue")
        quantised = int8_graph(graph, sample)
        some = sample[:: max(1, len(sample) // N_PHOTOS)]
        agreement = compare_instruction_sets(quantised, np.stack(some))
        return ReducedPrecision(
            Precision.INT8,
            runner(quantised, settings.threads),
            lambda fitted: graph_files(with_head(quantised, fitted)),
            agreement.facts() if agreement else {},
        )
    if settings.precision is PrecisionChoice.AUTO:
        if not has_gpu():
            return None
        half = GPU_PRECISION
    else:
        half = Precision(settings.precision.value)
    return ReducedPrecision(half, torch_features(loaded, half), lambda _: {})
