"""A network's OpenVINO graph in float32 or int8: completed, quantised, run, and compared for the quality gate."""

import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.evaluation.retrieval import retrieval_metrics
from pipeline.training.head import Heads
from shared.array_types import FloatArray
from shared.catalogue.categories import CataloguePhoto
from shared.model.bundle import GRAPH
from shared.model.openvino_library import compile_for_cpu, openvino_library
from shared.model.signal_stack import signal_stack_kept
from shared.photos.images import Pixels

# The gate: int8 may cost this much against float32 on the same photos, and no more.
MIN_MEAN_COSINE = 0.99
MAX_PRECISION_LOSS = 0.01

_N_CALIBRATION = 300

Graph = Any  # openvino.Model; the library ships no types
Forward = Callable[[Pixels], list[FloatArray]]  # (n, S, S, 3) uint8 -> what a graph gives


@dataclass(frozen=True)
class Verdict:
    """How a reduced precision compares with float32 on the same photos.

    Attributes:
        mean_cosine: mean cosine similarity between a photo's features in both.
        precision_at_4: share of the four nearest neighbours with the photo's category.
        reference_precision_at_4: the same in float32.
    """

    mean_cosine: float
    precision_at_4: float
    reference_precision_at_4: float

    @property
    def passed(self) -> bool:
        """Whether the loss is within MIN_MEAN_COSINE and MAX_PRECISION_LOSS."""
        loss = self.reference_precision_at_4 - self.precision_at_4
        return self.mean_cosine >= MIN_MEAN_COSINE and loss <= MAX_PRECISION_LOSS

    def facts(self) -> dict[str, float | str]:
        """The figures and the verdict, as the bundle's manifest keeps them."""
        return {
            "mean_cosine": self.mean_cosine,
            "precision_at_4": self.precision_at_4,
            "float32_precision_at_4": self.reference_precision_at_4,
            "verdict": "passed" if self.passed else "failed: float32 is used",
        }


def judge(candidate: FloatArray, reference: FloatArray, photos: Sequence[CataloguePhoto]) -> Verdict:
    """Compare the features of two precisions: by cosine similarity of each row, and by retrieval precision.

    Head and projection are fitted to each precision and know the photos they were fitted on, so neither is asked.

    Args:
        candidate: (n, dim) features of the last stage, L2 norm 1.
        reference: (n, dim), the same in float32.
        photos: one a row.
    """
    labels = np.array([photo.category for photo in photos])
    groups = np.array([photo.listing_id for photo in photos])

    def precision(vectors: FloatArray) -> float:
        return float(retrieval_metrics(vectors, labels, groups).get("precision_at_4", 0.0))

    cosines = (candidate * reference).sum(axis=1)
    return Verdict(float(cosines.mean()), precision(candidate), precision(reference))


def with_head(graph: Graph, heads: Heads) -> Graph:
    """Append head and projection to a trunk's graph, with the operations of `Heads.answer`.

    Returns:
        a graph with two outputs: embeddings (n, embedding_dim) and scores (n, n_categories).
    """
    openvino = openvino_library()
    ops = importlib.import_module("openvino.opset13")

    def linear(x: Any, weight: FloatArray, bias: FloatArray) -> Any:
        return ops.add(ops.matmul(x, weight, transpose_a=False, transpose_b=True), bias)

    pooled = graph.output(0).get_node().input_value(0)
    embedding = ops.slice(pooled, [0], [heads.head.weight.shape[1]], [1], [1])
    scores = linear(embedding, heads.head.weight, heads.head.bias)
    if (projection := heads.projection) is not None:
        mapped = linear(pooled, projection.weight, projection.bias)
        mapped = ops.normalize_l2(mapped, np.array([1]), 1e-24, "max")
        evidence = ops.multiply(ops.softmax(scores, axis=1), np.float32(projection.evidence))
        embedding = ops.concat([mapped, evidence], axis=1)
    return openvino.Model([ops.result(embedding), ops.result(scores)], graph.get_parameters())


def int8_graph(graph: Graph, photos: Sequence[Pixels]) -> Graph:
    """Quantise weights and activations to int8 after training, with ranges measured on the catalogue's photos.

    Args:
        graph: the trunk's; head and projection cost nothing, and their float32 is better kept.
        photos: (S, S, 3) uint8 each; a few hundred are enough.
    """
    nncf = _nncf()
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    # The first convolution sees raw pixels, and costs the most precision for the least time. Measured with Lite0 on
    # 1,264 real photos: mean cosine 0.9896 with it quantised, 0.9928 without.
    convolutions = (node for node in graph.get_ordered_ops() if node.get_type_name() == "Convolution")
    first = nncf.IgnoredScope(names=[next(convolutions).get_friendly_name()])
    batches = [photo[None] for photo in photos]
    # Weights of seven bits: without VNNI, a processor adds two products in 16 bits, where those of eight saturate. The
    # slow bias correction makes up for the bit. Measured as above, on 500 photos: mean cosine 0.9912 with the fast one,
    # 0.9939 with the slow one; weights of eight bits with the fast one 0.9938.
    portable = AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE)
    # Its progress bar is drawn on standard output, which is the result's.
    with _quiet(nncf), signal_stack_kept(), redirect_stdout(sys.stderr):
        return nncf.quantize(
            graph,
            nncf.Dataset(batches),
            subset_size=len(batches),
            ignored_scope=first,
            advanced_parameters=portable,
            fast_bias_correction=False,
        )


def int8_weights_graph(graph: Graph) -> Graph:
    """Quantise weights alone to int8; products stay float32, so that all processors give the same.

    Args:
        graph: any; it is left as it is.
    """
    nncf = _nncf()
    with _quiet(nncf), redirect_stdout(StringIO()):  # it draws a progress bar there, whatever it is asked for
        return nncf.compress_weights(graph.clone(), mode=nncf.CompressWeightsMode.INT8_ASYM)


def runner(graph: Graph, threads: int = 0) -> Forward:
    """Compile a graph for the CPU, to run on so many cores, 0: on all: (n, S, S, 3) uint8 -> its outputs, in order."""
    compiled = compile_for_cpu(graph, threads=threads)
    request = compiled.create_infer_request()

    def forward(pixels: Pixels) -> list[FloatArray]:
        outputs = request.infer({0: pixels}, share_inputs=True)
        return [np.array(outputs[output], dtype=np.float32) for output in compiled.outputs]

    return forward


def graph_files(graph: Graph, name: str = GRAPH) -> dict[str, bytes]:
    """Serialise a graph as `name` and the file with its weights: their content by name."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / name
        openvino_library().save_model(graph, path, compress_to_fp16=False)
        return {file.name: file.read_bytes() for file in Path(scratch).iterdir()}


def calibration_sample(n_photos: int) -> frozenset[int]:
    """Positions, evenly spread, of the photos that quantisation ranges are measured on."""
    return frozenset(np.linspace(0, n_photos - 1, min(n_photos, _N_CALIBRATION)).round().astype(int).tolist())


@contextmanager
def _quiet(nncf: Any) -> Iterator[None]:
    """Keep NNCF from logging every node that it does not quantise."""
    nncf.set_log_level(logging.WARNING)
    try:
        yield
    finally:
        nncf.set_log_level(logging.INFO)


def _nncf() -> Any:
    # It reports its use over the network unless it believes to be in CI; what runs here is nobody's business.
    os.environ["NNCF_CI"] = "1"
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it looks for CUDA and says so
    return importlib.import_module("nncf")
