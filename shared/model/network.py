"""The network in torch: uint8 photos in, embeddings and category scores out; it normalises and projects, too."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn import functional

from shared.catalogue.categories import OLDER_CATEGORIES
from shared.model.backbones import EMBEDDING_DIM, LEVELS, TAPS
from shared.model.bundle import Normalisation, Precision
from shared.settings import Backbone


def products_in(precision: Precision, device: torch.device) -> torch.autocast:
    """Make a context in which convolutions and matrix products are computed in a precision, the rest in float32."""
    half = precision in (Precision.FLOAT16, Precision.BFLOAT16)
    return torch.autocast(device.type, getattr(torch, precision) if half else torch.bfloat16, enabled=half)


class Trunk(nn.Module):
    """A backbone up to its pooled features, as stages that can be run one by one.

    Attributes:
        backbone: which.
        net: the backbone as its library defines it.
    """

    backbone: Backbone
    net: nn.Module

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of features pooled from the last stage, and from each tap."""
        return LEVELS[self.backbone]

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return every weight by its name in the backbone's library, as numpy arrays."""
        return _arrays(self.net)

    def stages(self) -> list[nn.Module]:
        """Return the stages of a forward pass in order; each takes the feature maps of the one before."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Pool the features of the last stage and then of the taps: (n, 3, S, S) -> (n, width), width = sum(levels)."""
        return torch.cat([features.mean((2, 3)) for features in self.maps(x)], dim=1)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Compute the feature maps of the last stage and then of the taps: (n, 3, S, S) -> (n, c, h, w) each."""
        taps = []
        for number, stage in enumerate(self.stages()):
            x = stage(x)  # (n, 3, S, S) -> ... -> (n, dim, S/32, S/32)
            if number in TAPS[self.backbone]:
                taps.append(x)
        return [x, *taps]


class ResNet50Trunk(Trunk):
    """torchvision's ResNet50: the stem, and the 3 + 4 + 6 + 3 blocks of its four layers."""

    backbone = Backbone.RESNET50

    def __init__(self) -> None:
        # Here, because it brings along torch's compiler, which takes two seconds: the other trunks need neither.
        from torchvision.models import ResNet, resnet50

        super().__init__()
        self.net: ResNet = resnet50()
        self.net.fc = nn.Identity()

    def stages(self) -> list[nn.Module]:
        """Return the stem and the 16 blocks."""
        net = self.net
        stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        return [stem, *net.layer1, *net.layer2, *net.layer3, *net.layer4]


class LiteTrunk(Trunk):
    """EfficientNet-Lite (arXiv:1905.11946, without squeeze-excite and swish): the stem, blocks, the top."""

    def __init__(self) -> None:
        super().__init__()
        self.net = EfficientNet.from_name(self.backbone.replace("_", "-"))
        self.net._fc = nn.Identity()

    def stages(self) -> list[nn.Module]:
        """Return the stem, the blocks and the top."""
        net: Any = self.net
        stem = nn.Sequential(net._conv_stem, net._bn0, net._swish)
        top = nn.Sequential(net._conv_head, net._bn1, net._swish)
        return [stem, *net._blocks, top]


class Lite0Trunk(LiteTrunk):
    """EfficientNet-Lite0, of 16 blocks."""

    backbone = Backbone.EFFICIENTNET_LITE0


class Lite2Trunk(LiteTrunk):
    """EfficientNet-Lite2, of 21 blocks: wider and deeper by a tenth and a fifth."""

    backbone = Backbone.EFFICIENTNET_LITE2


_TRUNKS: dict[Backbone, type[Trunk]] = {trunk.backbone: trunk for trunk in (ResNet50Trunk, Lite0Trunk, Lite2Trunk)}


class Features(nn.Module):
    """Normalisation and trunk: photos in, pooled features out.

    Args:
        backbone: which trunk.
        normalisation: of its inputs; an attribute, too.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, backbone: Backbone, normalisation: Normalisation) -> None:
        super().__init__()
        self.normalisation = normalisation
        self.trunk: Trunk = _TRUNKS[backbone]()
        mean, std = torch.tensor(normalisation.mean), torch.tensor(normalisation.std)
        self.register_buffer("scale", 1 / (255 * std).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (mean / std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute the trunk's pooled features: (n, S, S, 3) uint8 -> (n, width) float32."""
        return cast(Tensor, self.trunk(self.prepared(pixels)))

    def prepared(self, pixels: Tensor) -> Tensor:
        """Normalise photos for the first stage: (n, S, S, 3) uint8 -> (n, 3, S, S) float32, mean 0, deviation 1."""
        x = pixels.permute(0, 3, 1, 2).float() * self.scale - self.shift
        return x.contiguous(memory_format=torch.channels_last)


class Projection(nn.Module):
    """Projects pooled features to an embedding in which photos of one item, and of one category, are close.

    The embedding is the concatenation of a linear map of all pooled features, L2-normalised, and of the head's
    probabilities times `evidence`.

    Args:
        width: number of pooled features.
        dim: of the linear map's output.

    Attributes:
        evidence: scalar weight of the category probabilities.
    """

    evidence: Tensor

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, dim)
        self.register_buffer("evidence", torch.zeros(()))

    def forward(self, pooled: Tensor, scores: Tensor) -> Tensor:
        """Project pooled features (n, width) and scores (n, m) to embeddings (n, dim + m), not normalised."""
        mapped = functional.normalize(self.linear(pooled), dim=1)
        return torch.cat([mapped, self.evidence * scores.softmax(1)], dim=1)


class Network(nn.Module):
    """The whole model: normalisation, trunk, a linear head on the last stage's features, and an optional projection.

        network = Network(Backbone(manifest.backbone), manifest.normalisation, len(manifest.categories))
        network.load_tensors(bundle.tensors())
        embeddings, scores = network(torch.zeros(1, 224, 224, 3, dtype=torch.uint8))

    Args:
        backbone: which trunk.
        normalisation: of its inputs.
        n_categories: that the head tells apart.
    """

    def __init__(
        self, backbone: Backbone, normalisation: Normalisation, n_categories: int = len(OLDER_CATEGORIES)
    ) -> None:
        super().__init__()
        self.features = Features(backbone, normalisation)
        self.head = nn.Linear(EMBEDDING_DIM[backbone], n_categories)
        self.projection: Projection | None = None
        self.eval()

    @property
    def embedding_dim(self) -> int:
        """Dimension of the embeddings that `forward` returns."""
        if self.projection is None:
            return self.head.in_features
        return self.projection.linear.out_features + self.head.out_features

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Embed and classify photos.

        Args:
            pixels: (n, S, S, 3) uint8 RGB.

        Returns:
            embeddings (n, embedding_dim), not normalised, and scores (n, n_categories), before softmax; float32.
        """
        return self.answer(self.features(pixels))

    def answer(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Compute embeddings and scores from pooled features (n, width); returns as `forward`."""
        last = pooled[:, : self.head.in_features]
        scores = self.head(last)
        return last if self.projection is None else self.projection(pooled, scores), scores

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return every weight by name, as numpy arrays for a bundle."""
        return _arrays(self)

    def load_tensors(self, tensors: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Load the weights of a bundle, adding a projection if it has one.

        Args:
            tensors: every weight by name.

        Raises:
            RuntimeError: names or shapes are not this network's.
        """
        if (linear := tensors.get("projection.linear.weight")) is not None:
            dim, width = linear.shape
            self.projection = Projection(width, dim).eval()
        self.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})


def _arrays(module: nn.Module) -> dict[str, npt.NDArray[np.generic]]:
    return {name: value.detach().cpu().contiguous().numpy() for name, value in module.state_dict().items()}
