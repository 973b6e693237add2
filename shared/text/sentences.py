"""SentenceEncoder: a small pretrained network that turns a whole text into a vector, beside the catalogue's own words.

It knows words that no listing had, such as synonyms. Its graph and its tokenizer are files of the model bundle
(`pipeline/training/words/sentences.py` puts them there); running it takes OpenVINO and the library `tokenizers`.
"""

import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from shared.array_types import FloatArray, IntArray
from shared.errors import BundleDamaged
from shared.model.openvino_library import compile_for_cpu, openvino_library
from shared.text.features import MAX_CHARS

GRAPH = "sentences.xml"
WEIGHTS = "sentences.bin"
TOKENIZER = "tokenizer.json"
SENTENCE_FILES = (GRAPH, WEIGHTS, TOKENIZER)
_REMEMBERED = 256  # texts, whose vectors a query and its neighbours may ask for again


class SentenceFacts(BaseModel):
    """What the manifest of a bundle says of its sentence encoder; part of the fingerprint.

    Attributes:
        source: its package and version, or the name of the directory that it was in, with a digest of the weights.
        dimension: of its vectors.
        weight: of a vector, beside 1 for the words and 1 for the runs of letters.
        max_tokens: how many pieces of words of a text count.
        sha256: of the files, by name.
    """

    model_config = ConfigDict(frozen=True)

    source: str
    dimension: int
    weight: float
    max_tokens: int
    sha256: dict[str, str]


def load_tokenizer(content: bytes, max_tokens: int) -> Any:
    """Make a tokenizer of a file tokenizer.json.

    Raises:
        ImportError: the library is not installed.
        ValueError: the file is something else.
    """
    try:
        from tokenizers import Tokenizer  # of an extra of its own
    except ImportError as exc:
        raise ImportError(
            "a sentence encoder needs the package tokenizers: pip install 'lookalike[sentences]'"
        ) from exc
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as exc:  # the library raises nothing narrower
        raise ValueError(f"{TOKENIZER}: {exc}") from exc
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


class SentenceEncoder:
    """Turns texts into vectors, one at a time; safe to share between threads.

    Args:
        facts: from the bundle's manifest.
        files: GRAPH, WEIGHTS and TOKENIZER by name. The graph takes the pieces of a text, (1, n) int64, and gives its
            vector, (1, dimension) float32, L2 norm 1.
        remembered: for how many texts the vectors are kept.

    Raises:
        BundleDamaged: a file is missing or is something else, or the library `tokenizers` is not installed.
    """

    def __init__(self, facts: SentenceFacts, files: Mapping[str, bytes], *, remembered: int = _REMEMBERED) -> None:
        openvino = openvino_library()

        self.facts = facts
        try:
            self._tokenizer = load_tokenizer(files[TOKENIZER], facts.max_tokens)
            core = openvino.Core()
            graph = core.read_model(files[GRAPH], openvino.Tensor(np.frombuffer(files[WEIGHTS], dtype=np.uint8)))
            # Titles are short: a second thread costs more than it helps. Activations stay float32 beside weights of
            # eight bits, so that every processor gives the same vectors.
            self._request = compile_for_cpu(
                graph, threads=1, core=core, DYNAMIC_QUANTIZATION_GROUP_SIZE=0
            ).create_infer_request()
        except (ImportError, KeyError, RuntimeError, ValueError) as exc:
            raise BundleDamaged(f"the sentence encoder cannot be loaded: {exc}") from exc
        self._running = threading.Lock()
        self._vector_of: Callable[[str], FloatArray] = lru_cache(maxsize=remembered)(self._run)

    def encode(self, text: str) -> FloatArray:
        """Return the vector of a text, (dimension,) float32, L2 norm 1, not to be written into.

        Args:
            text: any; its first MAX_CHARS characters count, or fewer if these are many pieces.
        """
        return self._vector_of(text[:MAX_CHARS].encode("utf-8", "replace").decode())

    def join(self, text: str, rows: IntArray, weights: FloatArray, n_features: int) -> tuple[IntArray, FloatArray]:
        """Put the vector of a text behind its weighted features, as if its numbers were features, too.

        Args:
            text: as it was cleaned.
            rows, weights: (m,) of the features that it has.
            n_features: how many there are.

        Returns:
            rows and weights, both (m + dimension,).
        """
        vector = self.facts.weight * self.encode(text)
        own = np.arange(n_features, n_features + self.facts.dimension)
        return np.concatenate([rows, own]), np.concatenate([weights, vector]).astype(np.float32)

    def _run(self, text: str) -> FloatArray:
        pieces = np.array([self._tokenizer.encode(text).ids], dtype=np.int64)
        with self._running:
            vector: FloatArray = np.array(self._request.infer({0: pieces})[0], dtype=np.float32)[0]
        vector.setflags(write=False)
        return vector
