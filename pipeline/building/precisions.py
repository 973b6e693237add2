"""The arithmetic a bundle's trunk can run in: float32, int8 in OpenVINO, float16 or bfloat16 in torch."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from pipeline.building.export import Forward, Graph, graph_files, int8_graph, runner, with_head
from pipeline.building.instruction_sets import N_PHOTOS, compare_instruction_sets
from shared.array_types import FloatArray
from shared.model.bundle import Precision
from shared.model.network import GPU_PRECISION, Network, products_in
from shared.photos.images import Pixels
from shared.progress import ReportProgress
from shared.settings import PrecisionChoice


@dataclass(frozen=True)
class ReducedPrecision:
    """A precision below float32 that is worth trying.

    Attributes:
        precision: its name.
        forward: runs the trunk in it.
        files: makes the files that the runtime loads, from a network with head and projection fitted.
        portability: how it compares with itself on other processors; with a `verdict` if it must not be used.
    """

    precision: Precision
    forward: Forward
    files: Callable[[Network], dict[str, bytes]]
    portability: dict[str, float | str] = field(default_factory=dict)


def torch_features(network: Network, precision: Precision = Precision.FLOAT32) -> Forward:
    """The trunk in torch, on the GPU where there is one; products in the precision."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    features = network.features.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(pixels: Pixels) -> list[FloatArray]:
        with torch.inference_mode(), products_in(precision, device):
            return [features(torch.from_numpy(pixels).to(device)).float().cpu().numpy()]

    return forward


def reduced_precision(
    graph: Graph | None,
    network: Network,
    sample: list[Pixels],
    choice: PrecisionChoice,
    report_progress: ReportProgress,
) -> ReducedPrecision | None:
    """The precision to try against float32: int8 with OpenVINO, float16 on a GPU, what is asked for; or None.

    Args:
        graph: the trunk in OpenVINO; None: torch runs it.
        network: the same in torch.
        sample: (S, S, 3) uint8 each, of the catalogue, to calibrate int8 on.
        choice: what the settings ask for.
        report_progress: receives one line for each step.
    """
    if choice is PrecisionChoice.FLOAT32:
        return None
    if graph is not None:
        report_progress(f"quantising to int8 with {len(sample)} photos of the catalogue")
        quantised = int8_graph(graph, sample)
        some = sample[:: max(1, len(sample) // N_PHOTOS)]
        agreement = compare_instruction_sets(quantised, np.stack(some))
        return ReducedPrecision(
            Precision.INT8,
            runner(quantised),
            lambda fitted: graph_files(with_head(quantised, fitted)),
            agreement.facts() if agreement else {},
        )
    if choice is PrecisionChoice.AUTO:
        if not torch.cuda.is_available():
            return None
        half = GPU_PRECISION
    else:
        half = Precision(choice.value)
    return ReducedPrecision(half, torch_features(network, half), lambda _: {})
