"""The runtimes side by side on the same photos: torch eager, OpenVINO float32, OpenVINO int8. Part of `make bench`.

They take turns in one run; the figures are medians of the turns and ratios to torch eager. ResNet50's weights are drawn
at random where it has none on disk: its speed is measured here, never its quality.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from pipeline.building.export import int8_graph, runner, with_head
from pipeline.building.trunks import trunk_graph
from pipeline.training.head import Heads
from pipeline.training.weights.loading import load_weights
from shared.model.backbones import INPUT_PX, NORMALISATION
from shared.model.network import Network
from shared.photos.images import Pixels
from shared.settings import Backbone
from tests.benchmarks.support.report import Report, Row

N_TURNS = 5
N_PHOTOS = 16
BATCH = 8
BACKBONES = (Backbone.EFFICIENTNET_LITE0, Backbone.EFFICIENTNET_LITE2, Backbone.RESNET50)


def main() -> None:
    """Print a table; write `var/bench/embed.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="EfficientNet-Lite0 alone, one turn of a few photos")
    quick = parser.parse_args().quick
    n_turns, n_photos = (1, BATCH) if quick else (N_TURNS, N_PHOTOS)
    report = Report("embed", turns=n_turns, batch=BATCH)
    for backbone in BACKBONES[: 1 if quick else None]:
        size_px = INPUT_PX[backbone]
        photos = np.random.default_rng(17).integers(0, 256, (n_photos, size_px, size_px, 3), dtype=np.uint8)
        for row in _compare(backbone, photos, n_turns):
            report.add("runtimes", **row)
    report.finish()


def _compare(backbone: Backbone, photos: Pixels, n_turns: int) -> list[Row]:
    if backbone is Backbone.RESNET50:
        network = Network(backbone, NORMALISATION[backbone])
    else:
        network = load_weights(backbone, None, download_timeout_s=1).network
    trunk = network.features.trunk
    graph = trunk_graph(backbone, NORMALISATION[backbone], trunk.tensors(), INPUT_PX[backbone])
    heads = Heads.of(network.tensors())
    eager = network.to(memory_format=torch.channels_last)

    def run_eager(pixels: Pixels) -> object:
        with torch.inference_mode():
            return eager(torch.from_numpy(pixels))

    runs: dict[str, Callable[[Pixels], object]] = {
        "torch eager": run_eager,
        "openvino float32": runner(with_head(graph, heads)),
        "openvino int8": runner(with_head(int8_graph(graph, list(photos)), heads)),
    }
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(n_turns + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            for start in range(0, len(photos), BATCH):
                run(photos[start : start + BATCH])
            if turn:  # the first turn warms up
                rates[name].append(len(photos) / (time.perf_counter() - began))
    medians = {name: statistics.median(rate) for name, rate in rates.items()}
    return [
        {"backbone": backbone, "runtime": name, "photos_per_s": rate, "of_torch_eager": rate / medians["torch eager"]}
        for name, rate in medians.items()
    ]


if __name__ == "__main__":
    main()
