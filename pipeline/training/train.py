"""Train a network on a cleaned catalogue by a recipe: split, cache frozen activations, run the loop."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipeline.cleaning.clean import CleanedCatalogue
from pipeline.feedback.gate import judge_labels
from pipeline.feedback.lessons import NO_LESSONS, Lessons, learn, write_report
from pipeline.local.locks import exclusive
from pipeline.training.head import fit_head
from pipeline.training.network.activations import Activations, activations_key, evict_activations, load_batches
from pipeline.training.network.checkpoints import RunDirectory
from pipeline.training.network.dataset import PhotoViews
from pipeline.training.network.loop import Loop
from pipeline.training.network.samples import Samples, plain_batches
from pipeline.training.network.split_network import Front, Tail, front_runner
from pipeline.training.recipes import Recipe
from pipeline.training.split import require_every_side, split_listings
from pipeline.training.weights.loading import LoadedWeights
from shared.catalogue.categories import Categories
from shared.model.bundle import Split
from shared.photos.images import PreprocessSpec
from shared.progress import ReportProgress

_ABSENT = -1e4  # bias of a category without a photo to train on: it never wins


@dataclass(frozen=True)
class TrainedNetwork:
    """The result of a training run.

    Attributes:
        weights: of the best epoch, head included.
        split: listings that were trained, validated and will be tested on.
        recipe: its name.
        history: one entry an epoch: epoch, train_loss, train_accuracy, seconds; with photos to validate on also
            val_loss, val_accuracy, val_precision_at_4, val_sibling_recall_at_1 and _at_4.
        notes: how it ended and what was decided on the way.
        lessons: what was taken from feedback.
    """

    weights: LoadedWeights
    split: Split
    recipe: str
    history: list[dict[str, float]]
    notes: dict[str, float | str]
    lessons: Lessons = NO_LESSONS


def train(
    loaded: LoadedWeights,
    cleaned: CleanedCatalogue,
    recipe: Recipe,
    *,
    directory: Path,
    activations: Path,
    spec: PreprocessSpec,
    resume: bool,
    seed: int,
    report_progress: ReportProgress,
    feedback: pd.DataFrame | None = None,
) -> TrainedNetwork:
    """Train the loaded network, with as many threads as torch is set to.

    Args:
        loaded: the weights to start from; its `network` is trained in place.
        cleaned: photos, labels and near duplicates.
        recipe: the hyperparameters.
        directory: of this run: checkpoints, TensorBoard events, history.
        activations: directory of the cache of frozen activations.
        spec: how photos are preprocessed.
        resume: continue the run in `directory`, to the same result; else start anew.
        seed: of the split and of all random draws.
        report_progress: receives one line for each step and epoch.
        feedback: as `pipeline.feedback.table` makes it, to learn labels and pairs from; None: none is used.

    Raises:
        CatalogueUnusable: there is nothing to train on.
        TrainingFailed: the loss is no longer a number, or `directory` holds another run.
        ArtifactUnwritable: the disk is full.
        CannotStart: another process trains in `directory`, or computes the same activations.
    """
    with exclusive(directory / "lock", f"another process trains in {directory}"):
        split = split_listings(cleaned.catalogue.photos, cleaned.near_duplicates, seed=seed)
        require_every_side(split)
        samples = Samples.of(cleaned.catalogue.photos, cleaned.topics, split)
        _report_split_sizes(samples, cleaned.catalogue.categories, report_progress)
        lessons = NO_LESSONS
        if feedback is not None:
            lessons = learn(feedback, cleaned.catalogue.photos, cleaned.catalogue.categories, split)
        config = {
            "recipe": asdict(recipe),
            "preprocessing": spec.model_dump(mode="json"),
            "catalogue": cleaned.catalogue.digest,
            "split": _digest(split),
            "weights": Front(loaded.network, 0).digest(),
            "seed": seed,
            **({"feedback": lessons.digest()} if feedback is not None else {}),
        }
        run = RunDirectory(directory, config, resume=resume)
        views = PhotoViews(cleaned.catalogue.photos, cleaned.working_copy, spec, recipe.augmentation, seed=seed)
        lessons = _judged(lessons, loaded, recipe, samples, views, activations, report_progress)
        if feedback is not None:
            write_report(lessons, directory, report_progress)
        samples = _taught(samples, lessons, cleaned, split)
        loop = _prepare(loaded, recipe, samples, views, run, activations, report_progress)
        notes: dict[str, float | str] = {"ended": loop.run(report_progress), "best_epoch": loop.position.best_epoch}
        notes |= {f"start_{name}": value for name, value in loop.position.start.items()}
        notes |= {f"feedback: {name}": n for name, n in lessons.counts.items()}
        return TrainedNetwork(loaded.trained(), split, recipe.name, loop.position.history, notes, lessons)


def _judged(
    lessons: Lessons,
    loaded: LoadedWeights,
    recipe: Recipe,
    samples: Samples,
    views: PhotoViews,
    activations: Path,
    report_progress: ReportProgress,
) -> Lessons:
    """The lessons, without the labels if these do not pass the gate."""
    if not lessons.labels:
        return lessons
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = loaded.network.requires_grad_(False).eval()
    front, tail = Front(network, recipe.n_trained_stages), Tail(network, recipe.n_trained_stages, n_topics=0).eval()
    source: Dataset[Tensor] = (
        _cached_activations(front, views, samples, recipe, activations, device, report_progress)
        if recipe.cached
        else views
    )
    network.to(device)
    before_tail = nn.Identity() if recipe.cached else front
    rows = np.concatenate([samples.train, samples.validation])
    with torch.inference_mode():
        pooled = [tail(before_tail(x.to(device))).cpu() for x in load_batches(source, plain_batches(rows))]
    judged, detail = judge_labels(
        lessons,
        torch.cat(pooled).float().numpy(),
        samples.labels[rows],
        np.array([photo.listing_id for photo in views.photos])[rows],
        train=np.arange(len(samples.train)),
        validation=np.arange(len(samples.train), len(rows)),
        n_categories=loaded.network.head.out_features,
    )
    report_progress(f"feedback: {len(judged.labels)} of {len(lessons.labels)} corrected labels pass the gate: {detail}")
    return judged


def _taught(samples: Samples, lessons: Lessons, cleaned: CleanedCatalogue, split: Split) -> Samples:
    """The samples by what was learned; of a corrected listing no more than the category is known."""
    if not (lessons.labels or lessons.pairs):
        return samples
    named = {listing: cleaned.catalogue.categories[category] for listing, category in lessons.labels.items()}
    photos = lessons.taught(cleaned.catalogue.photos)
    return Samples.of(photos, {**cleaned.topics, **named}, split, lessons.pairs)


def _prepare(
    loaded: LoadedWeights,
    recipe: Recipe,
    samples: Samples,
    views: PhotoViews,
    run: RunDirectory,
    activations: Path,
    report_progress: ReportProgress,
) -> Loop:
    """Set up the loop, at the start of the run or at its last checkpoint."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = loaded.network.requires_grad_(False)
    torch.manual_seed(views.seed)  # topics start at random
    n_topics = samples.n_topics if recipe.topics else 0
    front = Front(network, recipe.n_trained_stages)
    tail = Tail(network, recipe.n_trained_stages, n_topics=n_topics)
    if not loaded.has_head:
        _reset_head(tail.head, samples)
    source: Dataset[Tensor] = (
        _cached_activations(front, views, samples, recipe, activations, device, report_progress)
        if recipe.cached
        else views
    )
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    before_tail = nn.Identity() if recipe.cached else front
    loop = Loop(recipe, tail.to(device), samples, source, before_tail, run, device=device, seed=views.seed)
    if recipe.logistic_start and not loop.resumed and not loaded.has_head:
        pooled, _ = loop.outputs(samples.train, loop.tail)
        head = fit_head(pooled, samples.labels[samples.train].tolist(), loop.tail.head.out_features)
        loop.start_head(head.weight, head.bias)
    return loop


def _cached_activations(
    front: Front,
    views: PhotoViews,
    samples: Samples,
    recipe: Recipe,
    root: Path,
    device: torch.device,
    report_progress: ReportProgress,
) -> Activations:
    key = activations_key(front.digest(), views.spec, views.augmentation, views.seed)
    evict_activations(root, keep=key)
    size_px = views.spec.size_px
    with torch.inference_mode():
        shape = front(torch.zeros((1, size_px, size_px, 3), dtype=torch.uint8)).shape[1:]
    source = Activations(root / key, [photo.sha256 for photo in views.photos], tuple(shape))
    source.fill(views, samples.cached_views(recipe), lambda: front_runner(front, size_px, device), report_progress)
    return source


def _reset_head(head: nn.Linear, samples: Samples) -> None:
    present = set(samples.labels[samples.train].tolist())
    nn.init.zeros_(head.weight)
    with torch.no_grad():
        head.bias.copy_(
            torch.tensor([0.0 if category in present else _ABSENT for category in range(head.out_features)])
        )


def _report_split_sizes(samples: Samples, categories: Categories, report_progress: ReportProgress) -> None:
    n_held_out = len(samples.labels) - len(samples.train) - len(samples.validation)
    report_progress(
        f"photos: {len(samples.train)} to train on, {len(samples.validation)} to choose by, {n_held_out} to measure on"
    )
    if not len(samples.validation):
        report_progress("too few listings to hold any out: the last epoch is kept, and how good it is cannot be said")
    present = set(samples.labels[samples.train].tolist())
    if absent := [name for category, name in enumerate(categories) if category not in present]:
        report_progress(f"no photo to train on, so these are never answered: {', '.join(absent)}")


def _digest(split: Split) -> str:
    sides = {side: sorted(listings) for side, listings in split.model_dump().items()}
    return hashlib.sha256(json.dumps(sides, sort_keys=True).encode()).hexdigest()
