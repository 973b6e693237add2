"""The runtimes side by side on the same photos: torch eager, OpenVINO float32, OpenVINO int8. Part of `make bench`.

They take turns in one run; the figures are medians of the turns and ratios to torch eager. ResNet50's weights are drawn
at random where it has none on disk: its speed is measured here, never its quality.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.export import features_graph, int8_graph, runner, with_head
from pipeline.weights import load_weights
from shared.images import Pixels
from shared.settings import Backbone
from shared.vision.network import NORMALISATION, Network

N_TURNS = 5
N_PHOTOS = 16
BATCH = 8
SIZE_PX = 224


def main() -> None:
    """Print a table and write `var/bench/embed.json`."""
    rng = np.random.default_rng(17)
    photos = rng.integers(0, 256, (N_PHOTOS, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    rows = [row for backbone in (Backbone.EFFICIENTNET_LITE0, Backbone.RESNET50) for row in _compare(backbone, photos)]
    target = Path("var/bench/embed.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(rows, indent=1))
    print("backbone            runtime           photos/s  against torch eager")
    for row in rows:
        print("{backbone:18}  {runtime:16}  {photos_per_s:8.1f}  {ratio:19.2f}".format(**row))


def _compare(backbone: Backbone, photos: Pixels) -> list[dict[str, Any]]:
    if backbone is Backbone.RESNET50:
        network = Network(backbone, NORMALISATION[backbone])
    else:
        network = load_weights(backbone, None, download_timeout_s=1).network
    graph = features_graph(network, SIZE_PX)
    eager = network.to(memory_format=torch.channels_last)

    def run_eager(pixels: Pixels) -> object:
        with torch.inference_mode():
            return eager(torch.from_numpy(pixels))

    runs: dict[str, Callable[[Pixels], object]] = {
        "torch eager": run_eager,
        "openvino float32": runner(with_head(graph, network)),
        "openvino int8": runner(with_head(int8_graph(graph, list(photos)), network)),
    }
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(N_TURNS + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            for start in range(0, N_PHOTOS, BATCH):
                run(photos[start : start + BATCH])
            if turn:  # the first turn warms up
                rates[name].append(N_PHOTOS / (time.perf_counter() - began))
    medians = {name: statistics.median(rate) for name, rate in rates.items()}
    return [
        {"backbone": backbone, "runtime": name, "photos_per_s": rate, "ratio": rate / medians["torch eager"]}
        for name, rate in medians.items()
    ]


if __name__ == "__main__":
    main()
