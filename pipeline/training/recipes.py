"""Recipes: everything in which one way of training differs from another, as figures. Knows no network."""

from dataclasses import dataclass, field
from enum import StrEnum

from pipeline.training.dataset import Augmentation


class KeepBest(StrEnum):
    """Which of an epoch's validation figures says whether it is the best so far."""

    ACCURACY = "val_accuracy"
    LOSS = "val_loss"
    PRECISION = "val_precision_at_4"
    SIBLINGS = "val_sibling_recall_at_4"


@dataclass(frozen=True)
class Recipe:
    """One way of training.

    Attributes:
        n_trained_stages: stages of the trunk, from its end, that are trained; 0: the head alone.
        cached: what the frozen stages give is computed once and kept on disk; else every epoch decodes its photos,
            each time as another view, and runs the whole network.
        n_views: views of a training photo that are cached, the plain one among them.
        lr_trunk: peak learning rate of the last stage; each stage before it has `lr_decay` times that of the next.
        lr_head: peak learning rate of head and topics.
        warmup: share of all steps in which the learning rates rise to their peak.
        cosine: they then fall to nothing on half a cosine; else they stay.
        patience: epochs without a better one after which it ends; 0: never.
        update_statistics: BatchNorm of the trained stages follows the batches; else it keeps what it came with.
        logistic_start: the head starts as the logistic regression on plain views; else at zero.
        mixup: a of the Beta(a, a) that photos of a batch are mixed by (arXiv:1710.09412); 0: not at all.
        ema_decay: of the running mean of the weights, which is what is kept; 0: the weights themselves.
        topics: weight of telling whole category paths apart, by a second head that is thrown away.
        pairs: weight of having photos of one listing nearer to each other than to others.
        pairs_temperature: of the softmax over similarities that `pairs` asks for.
        projection: fit one afterwards, and keep it if it finds more on validation; see
            `pipeline/training/projection.py`.
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
        Recipe(
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
        ),
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
        Recipe(
            "metric",
            n_trained_stages=0,
            epochs=30,
            lr_head=1e-3,
            weight_decay=1e-2,
            warmup=0.05,
            cosine=True,
            label_smoothing=0.1,
            logistic_start=True,
        ),
    )
}
