"""Compare what a graph gives on this processor with what it gives where only older instructions are to be had.

oneDNN, which runs OpenVINO's graphs on x86, reads the newest instruction set it may use from the environment when it is
loaded. So the graph is run a second time in a process of its own, `python -m pipeline.building.instruction_sets`.
"""

import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.array_types import FloatArray
from shared.model.embedder import normalised
from shared.model.openvino_library import compile_for_cpu, openvino_library
from shared.photos.images import Pixels

# Measured with Lite0 on 500 real photos, last stage: with weights of seven bits all cosines are 1.0000; with weights of
# eight bits 0.990 in the mean and 0.976 at least, and another first neighbour for one photo in six.
MIN_MEAN_COSINE = 0.999
MIN_COSINE = 0.995

N_PHOTOS = 48
_OLDEST = "AVX2"  # of the processors that are still about; it has no VNNI
_TIMEOUT_S = 600
_BATCH = 8

Graph = Any  # openvino.Model; the library ships no types


@dataclass(frozen=True)
class Agreement:
    """Cosine similarities between the features of photos on this processor and those on an older one.

    Attributes:
        mean_cosine: of the photos.
        min_cosine: of the photo that differs most.
    """

    mean_cosine: float
    min_cosine: float

    @property
    def passed(self) -> bool:
        """Whether both are within MIN_MEAN_COSINE and MIN_COSINE."""
        return self.mean_cosine >= MIN_MEAN_COSINE and self.min_cosine >= MIN_COSINE

    def facts(self) -> dict[str, float | str]:
        """The figures, as the bundle's manifest keeps them; with a verdict where they refuse the graph."""
        figures: dict[str, float | str] = {
            "avx2_mean_cosine": self.mean_cosine,
            "avx2_min_cosine": self.min_cosine,
        }
        if not self.passed:
            figures["verdict"] = "failed: other embeddings on processors without VNNI; float32 is used"
        return figures


def compare_instruction_sets(graph: Graph, pixels: Pixels) -> Agreement | None:
    """Run a graph here and as a processor with AVX2 and nothing newer would.

    Args:
        graph: the trunk's, (n, S, S, 3) uint8 -> pooled features (n, width).
        pixels: (n, S, S, 3) uint8; a few dozen are enough.

    Returns:
        how alike the features are; None where the processor is not x86, and has no such instructions to leave out.

    Raises:
        subprocess.CalledProcessError: the other process failed.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    openvino = openvino_library()

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch)
        openvino.save_model(graph, path / "graph.xml", compress_to_fp16=False)
        np.save(path / "pixels.npy", pixels)
        here = _features(path)
        command = [sys.executable, "-P", "-m", "pipeline.building.instruction_sets", scratch]
        # PYTHONPATH: the process finds the same packages, wherever this one was started.
        environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": _OLDEST, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run(command, env=environment, check=True, timeout=_TIMEOUT_S, stdout=subprocess.DEVNULL)
        there: FloatArray = np.load(path / "features.npy")
    cosines = (normalised(here) * normalised(there)).sum(axis=1)
    return Agreement(float(cosines.mean()), float(cosines.min()))


def _features(directory: Path) -> FloatArray:
    """(n, width) features of the graph and the pixels in a directory."""
    pixels = np.load(directory / "pixels.npy")
    compiled = compile_for_cpu(directory / "graph.xml")
    request = compiled.create_infer_request()
    batches = [pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH)]
    return np.concatenate([np.array(request.infer({0: batch})[compiled.outputs[0]]) for batch in batches])


if __name__ == "__main__":
    np.save(Path(sys.argv[1]) / "features.npy", _features(Path(sys.argv[1])))
