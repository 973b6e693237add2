"""Split a network into its frozen stages (`Front`) and the stages and heads that are trained (`Tail`)."""

import hashlib

import torch
from torch import Tensor, nn

from pipeline.building.export import Forward, runner
from pipeline.building.trunks import trunk_graph
from shared.array_types import FloatArray
from shared.model.network import Network
from shared.photos.images import Pixels


class Front(nn.Module):
    """The frozen stages of a network, whose weights it shares.

    Args:
        network: to be split.
        n_trained_stages: stages of the trunk, from its end, that are not part of this.

    Raises:
        ValueError: the trunk has fewer stages.
    """

    def __init__(self, network: Network, n_trained_stages: int) -> None:
        super().__init__()
        self.features = network.features
        n_stages = len(self.features.trunk.stages())
        if not 0 <= n_trained_stages <= n_stages:
            raise ValueError(f"the trunk has {n_stages} stages, of which {n_trained_stages} cannot be trained")
        self.n_frozen, self.pooled = n_stages - n_trained_stages, n_trained_stages == 0
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (n, S, S, 3) uint8 -> feature maps (n, c, h, w), or (n, dim) pooled if every stage is frozen."""
        x = self.features.prepared(pixels)
        for stage in self.features.trunk.stages()[: self.n_frozen]:
            x = stage(x)
        return x.mean((2, 3)) if self.pooled else x

    def digest(self) -> str:
        """SHA-256 of the frozen weights and of where the network is split."""
        digest = hashlib.sha256(f"{self.n_frozen} {self.pooled}".encode())
        for stage in self.features.trunk.stages()[: self.n_frozen]:
            for name, value in stage.state_dict().items():
                digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


class Tail(nn.Module):
    """The trained stages of a network, whose weights it shares, with the heads on the pooled features.

    Args:
        network: to be split.
        n_trained_stages: stages of the trunk, from its end.
        n_topics: outputs of an auxiliary head that classifies whole category paths; 0: there is none.
    """

    def __init__(self, network: Network, n_trained_stages: int, *, n_topics: int) -> None:
        super().__init__()
        stages = network.features.trunk.stages()
        self.stages = nn.ModuleList(stages[len(stages) - n_trained_stages :])
        self.head = network.head
        dim = network.head.in_features
        self.topics = nn.Linear(dim, n_topics) if n_topics else None

    def forward(self, x: Tensor) -> Tensor:
        """The output of the front, (n, c, h, w) or (n, dim) -> pooled features (n, dim)."""
        for stage in self.stages:
            x = stage(x)
        return x.mean((2, 3)) if self.stages else x


def front_runner(front: Front, size_px: int, device: torch.device) -> Forward:
    """Make a function that runs the front in float32: with torch on a GPU, with OpenVINO on a CPU.

    Args:
        front: moved to the device.
        size_px: side S of the input, px.
        device: cuda or cpu.
    """
    if device.type == "cpu":
        features, n_stages = front.features, None if front.pooled else front.n_frozen
        tensors, dim = features.trunk.tensors(), features.trunk.levels[0]
        graph = trunk_graph(features.trunk.backbone, features.normalisation, tensors, size_px, n_stages=n_stages)
        run = runner(graph, torch.get_num_threads())
        return run if n_stages is not None else lambda pixels: [run(pixels)[0][:, :dim]]
    front = front.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(pixels: Pixels) -> list[FloatArray]:
        with torch.inference_mode():
            return [front(torch.from_numpy(pixels).to(device)).cpu().numpy()]

    return forward
