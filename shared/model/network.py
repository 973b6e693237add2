"""The network: uint8 photos in, embeddings and 13 scores out, with normalisation and projection inside the graph."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import ResNet, resnet50

from shared.catalogue.categories import CATEGORIES
from shared.model.bundle import Normalisation
from shared.settings import Backbone

EMBEDDING_DIM = {Backbone.RESNET50: 2048, Backbone.EFFICIENTNET_LITE0: 1280}

NORMALISATION = {
    # The statistics both networks' authors trained with; Lite0's are (x - 127) / 128 on 0..255.
    Backbone.RESNET50: Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    Backbone.EFFICIENTNET_LITE0: Normalisation(mean=(127 / 255,) * 3, std=(128 / 255,) * 3),
}


class Trunk(nn.Module):
    """A network up to its pooled features, as stages that can be run apart.

    Attributes:
        taps: stages whose feature maps are pooled too: they know textures and shapes that the last has forgotten.
        levels: how many values are pooled of the last stage, and of each tap.
    """

    net: nn.Module
    taps: tuple[int, ...]
    levels: tuple[int, ...]

    def stages(self) -> list[nn.Module]:
        """What a pass consists of, in order: each takes the feature maps of the one before."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, S, S) -> (n, width): the pooled features of the last stage, dim of them, then those of the taps."""
        pooled = []
        for number, stage in enumerate(self.stages()):
            x = stage(x)  # (n, 3, S, S) -> ... -> (n, dim, S/32, S/32)
            if number in self.taps:
                pooled.append(x.mean((2, 3)))
        return torch.cat([x.mean((2, 3)), *pooled], dim=1)


class ResNet50Trunk(Trunk):
    """torchvision's ResNet50: the stem, and the 3 + 4 + 6 + 3 blocks of its four layers."""

    taps = (7, 13)  # the ends of layer2 and layer3
    levels = (2048, 512, 1024)

    def __init__(self) -> None:
        super().__init__()
        self.net: ResNet = resnet50()
        self.net.fc = nn.Identity()

    def stages(self) -> list[nn.Module]:
        net = self.net
        stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        return [stem, *net.layer1, *net.layer2, *net.layer3, *net.layer4]


class Lite0Trunk(Trunk):
    """EfficientNet-Lite0 (arXiv:1905.11946, without squeeze-excite and swish): the stem, 16 blocks, the top."""

    taps = (8, 11, 15)  # the last blocks of 80, of 112 and of 192 channels
    levels = (1280, 80, 112, 192)

    def __init__(self) -> None:
        super().__init__()
        self.net = EfficientNet.from_name("efficientnet-lite0")
        self.net._fc = nn.Identity()

    def stages(self) -> list[nn.Module]:
        net: Any = self.net
        stem = nn.Sequential(net._conv_stem, net._bn0, net._swish)
        top = nn.Sequential(net._conv_head, net._bn1, net._swish)
        return [stem, *net._blocks, top]


_TRUNKS: dict[Backbone, type[Trunk]] = {
    Backbone.RESNET50: ResNet50Trunk,
    Backbone.EFFICIENTNET_LITE0: Lite0Trunk,
}


class Features(nn.Module):
    """Normalisation and trunk: photos in, pooled features out."""

    scale: Tensor
    shift: Tensor

    def __init__(self, backbone: Backbone, normalisation: Normalisation) -> None:
        super().__init__()
        self.trunk: Trunk = _TRUNKS[backbone]()
        mean, std = torch.tensor(normalisation.mean), torch.tensor(normalisation.std)
        self.register_buffer("scale", 1 / (255 * std).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (mean / std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, S, S, 3) uint8 -> what the trunk pools, (n, width) float32."""
        return cast(Tensor, self.trunk(self.prepared(pixels)))

    def prepared(self, pixels: Tensor) -> Tensor:
        """(n, S, S, 3) uint8 -> what the first stage takes: (n, 3, S, S) float32, mean 0, deviation 1."""
        x = pixels.permute(0, 3, 1, 2).float() * self.scale - self.shift
        return x.contiguous(memory_format=torch.channels_last)


class Projection(nn.Module):
    """What the trunk pools -> an embedding in which photos of one thing, and of one category, lie near each other.

    Two parts side by side: a linear map of all that is pooled, L2-normalised, and the probabilities of the head times
    `evidence`.
    """

    evidence: Tensor

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, dim)
        self.register_buffer("evidence", torch.zeros(()))

    def forward(self, pooled: Tensor, scores: Tensor) -> Tensor:
        """(n, width), (n, 13) -> (n, dim + 13)."""
        mapped = functional.normalize(self.linear(pooled), dim=1)
        return torch.cat([mapped, self.evidence * scores.softmax(1)], dim=1)


class Network(nn.Module):
    """Normalisation, trunk, a linear head on the last stage's features, and a projection if there is one."""

    def __init__(self, backbone: Backbone, normalisation: Normalisation) -> None:
        super().__init__()
        self.features = Features(backbone, normalisation)
        self.head = nn.Linear(EMBEDDING_DIM[backbone], len(CATEGORIES))
        self.projection: Projection | None = None
        self.eval()

    @property
    def embedding_dim(self) -> int:
        """Of what `forward` gives."""
        if self.projection is None:
            return self.head.in_features
        return self.projection.linear.out_features + self.head.out_features

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(n, S, S, 3) uint8 -> embeddings (n, embedding_dim), not normalised, and scores (n, 13) before softmax."""
        return self.answer(self.features(pixels))

    def answer(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """What the trunk pools (n, width) -> embeddings and scores; see `forward`."""
        last = pooled[:, : self.head.in_features]
        scores = self.head(last)
        return last if self.projection is None else self.projection(pooled, scores), scores

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """Every weight as numpy, ready for a bundle."""
        return {name: value.detach().cpu().contiguous().numpy() for name, value in self.state_dict().items()}

    def load_tensors(self, tensors: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Take over the weights of a bundle, with the projection if it has one.

        Raises:
            RuntimeError: names or shapes are not this network's.
        """
        if (linear := tensors.get("projection.linear.weight")) is not None:
            dim, width = linear.shape
            self.projection = Projection(width, dim).eval()
        self.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
