"""The network: uint8 photos in, embeddings and 13 scores out, with normalisation inside the graph."""

from collections.abc import Mapping
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torchvision.models import resnet50

from shared.catalogue import CATEGORIES
from shared.settings import Backbone
from shared.vision.bundle import Normalisation

EMBEDDING_DIM = {Backbone.RESNET50: 2048, Backbone.EFFICIENTNET_LITE0: 1280}

NORMALISATION = {
    # The statistics both networks' authors trained with; Lite0's are (x - 127) / 128 on 0..255.
    Backbone.RESNET50: Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    Backbone.EFFICIENTNET_LITE0: Normalisation(mean=(127 / 255,) * 3, std=(128 / 255,) * 3),
}


class ResNet50Trunk(nn.Module):
    """torchvision's ResNet50 up to its pooled features."""

    def __init__(self) -> None:
        super().__init__()
        self.net = resnet50()
        self.net.fc = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.net(x))  # (n, 3, S, S) -> (n, 2048)


class Lite0Trunk(nn.Module):
    """EfficientNet-Lite0 (arXiv:1905.11946, without squeeze-excite and swish) up to its pooled features."""

    def __init__(self) -> None:
        super().__init__()
        self.net = EfficientNet.from_name("efficientnet-lite0")
        self.net._fc = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        features = cast(Tensor, self.net.extract_features(x))  # (n, 3, S, S) -> (n, 1280, S/32, S/32)
        return features.mean((2, 3))  # -> (n, 1280)


_TRUNKS: dict[Backbone, type[nn.Module]] = {
    Backbone.RESNET50: ResNet50Trunk,
    Backbone.EFFICIENTNET_LITE0: Lite0Trunk,
}


class Features(nn.Module):
    """Normalisation and trunk: photos in, pooled features out."""

    scale: Tensor
    shift: Tensor

    def __init__(self, backbone: Backbone, normalisation: Normalisation) -> None:
        super().__init__()
        self.trunk = _TRUNKS[backbone]()
        mean, std = torch.tensor(normalisation.mean), torch.tensor(normalisation.std)
        self.register_buffer("scale", 1 / (255 * std).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (mean / std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, S, S, 3) uint8 -> (n, dim) float32, not normalised."""
        x = pixels.permute(0, 3, 1, 2).float() * self.scale - self.shift
        return cast(Tensor, self.trunk(x.contiguous(memory_format=torch.channels_last)))


class Network(nn.Module):
    """Pooled features and a linear head."""

    def __init__(self, backbone: Backbone, normalisation: Normalisation) -> None:
        super().__init__()
        self.features = Features(backbone, normalisation)
        self.head = nn.Linear(EMBEDDING_DIM[backbone], len(CATEGORIES))
        self.eval()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(n, S, S, 3) uint8 -> pooled features (n, dim), not normalised, and scores (n, 13) before softmax."""
        pooled = self.features(pixels)
        return pooled, self.head(pooled)

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """Every weight as numpy, ready for a bundle."""
        return {name: value.detach().cpu().contiguous().numpy() for name, value in self.state_dict().items()}

    def load_tensors(self, tensors: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Take over the weights of a bundle.

        Raises:
            RuntimeError: names or shapes are not this network's.
        """
        self.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
