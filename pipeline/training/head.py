"""What follows a trunk: the head, which is fitted here by logistic regression, and a projection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from shared.array_types import FloatArray
from shared.model.embedder import normalised
from shared.model.fusion import softmax

# Measured on 2,527 real photos, 3 of 5 folds: 1e-4 0.437, 1e-3 0.491, 1e-2 0.487, 1e-1 0.471 accuracy.
_C = 3e-3


@dataclass(frozen=True)
class Head:
    """A linear classifier on pooled features."""

    weight: FloatArray  # (n_categories, dim)
    bias: FloatArray  # (n_categories,)

    def scores(self, features: FloatArray) -> FloatArray:
        """Score pooled features of the last stage: (n, dim) -> (n, n_categories), before softmax."""
        return _float32(features @ self.weight.T + self.bias)


@dataclass(frozen=True)
class Projection:
    """A linear map of all pooled features, beside which the head's probabilities stand in an embedding."""

    weight: FloatArray  # (dim, width)
    bias: FloatArray  # (dim,)
    evidence: float  # weight of the probabilities

    def __call__(self, pooled: FloatArray, scores: FloatArray) -> FloatArray:
        """Project pooled features (n, width) and scores (n, m) to embeddings (n, dim + m), not normalised."""
        mapped = normalised(_float32(pooled @ self.weight.T + self.bias))
        return np.concatenate([mapped, np.float32(self.evidence) * _float32(softmax(scores))], axis=1)


@dataclass(frozen=True)
class Heads:
    """The head and the projection, if there is one: pooled features in, embeddings and scores out."""

    head: Head
    projection: Projection | None = None

    @classmethod
    def of(cls, tensors: Mapping[str, npt.NDArray[np.generic]]) -> "Heads":
        """Take them out of all tensors of a network."""
        named = {name: _float32(value) for name, value in tensors.items() if name.startswith(("head.", "projection."))}
        head = Head(named["head.weight"], named["head.bias"])
        if "projection.evidence" not in named:
            return cls(head)
        weight, bias, evidence = (named[f"projection.{name}"] for name in ("linear.weight", "linear.bias", "evidence"))
        return cls(head, Projection(weight, bias, float(evidence)))

    @property
    def embedding_dim(self) -> int:
        """Dimension of the embeddings."""
        if self.projection is None:
            return int(self.head.weight.shape[1])
        return len(self.projection.weight) + len(self.head.weight)

    def answer(self, pooled: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Compute embeddings (n, embedding_dim), not normalised, and scores (n, n_categories) from pooled features."""
        last = pooled[:, : self.head.weight.shape[1]]
        scores = self.head.scores(last)
        return last if self.projection is None else self.projection(pooled, scores), scores

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return every weight by its name in the network."""
        tensors: dict[str, npt.NDArray[np.generic]] = {"head.weight": self.head.weight, "head.bias": self.head.bias}
        if (projection := self.projection) is not None:
            tensors |= {
                "projection.linear.weight": projection.weight,
                "projection.linear.bias": projection.bias,
                "projection.evidence": np.array(projection.evidence, dtype=np.float32),
            }
        return tensors


def fit_head(features: FloatArray, labels: Sequence[int], n_categories: int) -> Head:
    """Fit a multinomial logistic regression on standardised features, and fold the scaling into one linear layer.

    Args:
        features: (n, dim) pooled features, not normalised.
        labels: n positions of categories; a category without a photo gets a bias of -10,000, so that it never wins.
        n_categories: of the catalogue.
    """
    present = sorted(set(labels))
    mean, std = features.mean(0), features.std(0) + 1e-6
    weight = np.zeros((n_categories, features.shape[1]), dtype=np.float64)
    bias = np.full(n_categories, -1e4)
    if len(present) == 1:
        bias[present[0]] = 0.0
        return Head(weight.astype(np.float32), bias.astype(np.float32))
    model = LogisticRegression(C=_C, max_iter=300).fit((features - mean) / std, np.asarray(labels))
    coefficients, intercepts = model.coef_, model.intercept_
    if len(present) == 2:  # scikit-learn keeps one row for two classes
        coefficients = np.concatenate([-coefficients / 2, coefficients / 2])
        intercepts = np.concatenate([-intercepts / 2, intercepts / 2])
    weight[present] = coefficients / std
    bias[present] = intercepts - weight[present] @ mean
    return Head(weight.astype(np.float32), bias.astype(np.float32))


def _float32(values: npt.NDArray[np.generic]) -> FloatArray:
    return np.asarray(values, dtype=np.float32, order="C")
