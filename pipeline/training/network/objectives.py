"""The training loss: cross-entropy over categories and topics with soft targets, and a contrastive loss."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.training.network.samples import Samples
from pipeline.training.network.split_network import Tail
from pipeline.training.recipes import Recipe
from shared.array_types import IntArray


class Mixture(NamedTuple):
    """mixup of a batch: each photo is mixed with another one.

    Attributes:
        share: of itself that a photo keeps, 0.5..1.
        partners: (n,) position of the photo that it is mixed with.
    """

    share: float
    partners: Tensor

    def of(self, batch: Tensor) -> Tensor:
        """Mix the rows of a tensor (n, ...)."""
        return batch if self.share == 1 else self.share * batch + (1 - self.share) * batch[self.partners]


def draw_mixture(alpha: float, n_photos: int, rng: np.random.Generator) -> Mixture:
    """Draw the mixup of a batch (arXiv:1710.09412).

    Args:
        alpha: of the Beta distribution; 0: no mixup.
        n_photos: in the batch.
        rng: decides share and partners; the share is at least 0.5, so that a row's label stays the main one.
    """
    share = rng.beta(alpha, alpha) if alpha else 1.0
    return Mixture(max(share, 1 - share), torch.from_numpy(rng.permutation(n_photos)))


class Objective:
    """The loss of a batch, as a recipe weights its terms.

    Args:
        recipe: weights of the terms.
        samples: labels, topics and listings of all rows.
        n_categories: outputs of the head.
        device: of the loss.
    """

    def __init__(self, recipe: Recipe, samples: Samples, n_categories: int, device: torch.device) -> None:
        self._recipe, self._samples, self._device = recipe, samples, device
        self._categories = _soft_targets(samples.labels[samples.train], n_categories, recipe.label_smoothing, device)
        self._topics = _soft_targets(samples.topics[samples.train], samples.n_topics, recipe.label_smoothing, device)

    def __call__(self, tail: Tail, pooled: Tensor, scores: Tensor, rows: IntArray, mixture: Mixture) -> Tensor:
        """Mean loss over a batch, a scalar.

        Args:
            tail: whose topics head is used.
            pooled: (n, dim) of the mixed photos.
            scores: (n, categories) of them.
            rows: (n,) of the photos.
            mixture: how they were mixed.
        """
        labels = torch.from_numpy(self._samples.labels[rows]).to(self._device)
        loss = functional.cross_entropy(scores, mixture.of(self._categories[labels]))
        if tail.topics is not None:
            topics = torch.from_numpy(self._samples.topics[rows]).to(self._device)
            loss = loss + self._recipe.topics * functional.cross_entropy(
                tail.topics(pooled), mixture.of(self._topics[topics])
            )
        if self._recipe.pairs:
            listings = torch.from_numpy(self._samples.listings[rows]).to(self._device)
            loss = loss + self._recipe.pairs * contrast(pooled, listings, self._recipe.pairs_temperature)
        return loss


def _soft_targets(labels: IntArray, n_classes: int, smoothing: float, device: torch.device) -> Tensor:
    """Smoothed targets (n_classes, n_classes), a row for each class; classes without photos get no probability."""
    present = torch.zeros(n_classes)
    present[torch.from_numpy(np.unique(labels))] = 1
    return ((1 - smoothing) * torch.eye(n_classes) + smoothing * present / present.sum()).to(device)


def contrast(embedding: Tensor, listings: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss (arXiv:2004.11362, L_out): photos of one listing against all others of the batch.

    Args:
        embedding: (n, dim), of any norm.
        listings: (n,); photos without a sibling in the batch are only negatives.
        temperature: of the softmax over similarities.
    """
    unit = functional.normalize(embedding.float(), dim=1)
    own = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    likeness = (unit @ unit.T / temperature).masked_fill(own, -torch.inf)
    log_share = likeness.log_softmax(1).masked_fill(own, 0)
    siblings = (listings[:, None] == listings[None]) & ~own
    n_siblings = siblings.sum(1)
    each = (log_share * siblings).sum(1) / n_siblings.clamp(min=1)
    return -each.sum() / (n_siblings > 0).sum().clamp(min=1)
