"""The runtimes behind `Embedder`. Torch is the reference, and the one for GPUs."""

import torch

from shared.errors import BundleDamaged
from shared.images import Pixels
from shared.settings import Backbone
from shared.vision.bundle import BundleManifest, ModelBundle
from shared.vision.embedder import Embeddings
from shared.vision.network import Network


class TorchEmbedder:
    """The network in eager torch: float32 and channels_last, on the GPU where there is one.

    Args:
        bundle: opened, therefore verified.
        threads: CPU threads of one forward pass; 0 leaves torch's choice. Process-wide.

    Raises:
        BundleDamaged: the weights do not fit the backbone the manifest names.
    """

    def __init__(self, bundle: ModelBundle, *, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._manifest = bundle.manifest
        try:
            network = Network(Backbone(bundle.manifest.backbone), bundle.manifest.normalisation)
            network.load_tensors(bundle.tensors())
        except (RuntimeError, ValueError, KeyError) as exc:
            raise BundleDamaged(f"{bundle.version}: weights do not fit {bundle.manifest.backbone}") from exc
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def manifest(self) -> BundleManifest:
        return self._manifest

    def embed(self, pixels: Pixels) -> Embeddings:
        """See `Embedder.embed`."""
        with torch.inference_mode():
            vectors, scores = self._network(torch.from_numpy(pixels).to(self._device))
        return Embeddings(vectors.cpu().numpy(), scores.cpu().numpy())
