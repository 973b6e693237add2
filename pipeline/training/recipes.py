"""Training recipes: named sets of hyperparameters."""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from pipeline.training.network.dataset import Augmentation


class KeepBest(StrEnum):
    """The validation figure that the best epoch is chosen by."""

    ACCURACY = "val_accuracy"
    LOSS = "val_loss"
    SIBLINGS = "val_sibling_recall_at_4"


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of one way of training.

    Attributes:
        name: for `--recipe`.
        n_trained_stages: stages of the trunk, from its end, that are trained; 0: the head alone.
        cached: activations of the frozen stages are computed once and kept on disk; else every epoch decodes its
            photos, each time as another view, and runs the whole network.
        n_views: views of a training photo that are cached, the plain one included.
        lr_trunk: peak learning rate of the last stage; each stage before it has `lr_decay` times that of the next.
        lr_head: peak learning rate of head and topics.
        warmup: share of all steps in which the learning rates rise to their peak.
        cosine: cosine decay to zero after the warmup; else the learning rates stay at their peak.
        patience: early stopping after so many epochs without a better one; 0: never.
        update_statistics: BatchNorm of the trained stages updates its running statistics; else they stay frozen.
        logistic_start: the head starts as the logistic regression on plain views; else at zero.
        mixup: a of the Beta(a, a) distribution of mixup (arXiv:1710.09412); 0: none.
        ema_decay: of the exponential moving average of the weights, which is what is kept; 0: no average.
        topics: weight of the loss of an auxiliary head that classifies whole category paths and is dropped later.
        pairs: weight of the contrastive loss between photos of one listing and all others.
        pairs_temperature: of the softmax in that loss.
        projection: fit a projection afterwards, and keep it if retrieval on validation gets better; see
            `pipeline/training/projection.py`.
        keep_best: what the best epoch is chosen by.
    """

    name: str
    n_trained_stages: int
    epochs: int
    batch: int = 200
    cached: bool = True
    n_views: int = 3
    lr_trunk: float = 3e-4
    lr_decay: float = 1.0
    lr_head: float = 2e-3
    weight_decay: float = 0.0
    warmup: float = 0.0
    cosine: bool = False
    patience: int = 0
    update_statistics: bool = False
    logistic_start: bool = False
    label_smoothing: float = 0.0
    mixup: float = 0.0
    ema_decay: float = 0.0
    topics: float = 0.0
    pairs: float = 0.0
    pairs_temperature: float = 0.1
    projection: bool = True
    keep_best: KeepBest = KeepBest.ACCURACY
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.mixup and self.pairs:
            raise ValueError("a photo mixed of two is of no listing: mixup and pairs exclude one another")


_HEAD = Recipe(
    "head",
    n_trained_stages=0,
    epochs=30,
    lr_head=1e-3,
    weight_decay=1e-2,
    warmup=0.05,
    cosine=True,
    label_smoothing=0.1,
    logistic_start=True,
    projection=False,
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        # As the older service was trained (`Recipe.batch` is its batch too), but for its head, which it left random.
        Recipe(
            "seed",
            n_trained_stages=2,
            epochs=20,
            cached=False,
            lr_trunk=1e-3,
            lr_head=1e-3,
            update_statistics=True,
            projection=False,
            augmentation=Augmentation(min_area=1, stretch=1, p_upside_down=0.5, rotation_deg=30, colour=0, hue=0),
        ),
        _HEAD,
        Recipe(
            "finetune",
            n_trained_stages=6,
            epochs=8,
            batch=64,
            weight_decay=1e-2,
            lr_decay=0.8,
            warmup=0.1,
            cosine=True,
            patience=3,
            label_smoothing=0.1,
            mixup=0.3,
            ema_decay=0.99,
            topics=0.5,
        ),
        replace(_HEAD, name="metric", projection=True),
    )
}
