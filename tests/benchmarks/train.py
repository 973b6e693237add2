"""The older service's training loop against ours, same photos: `python -m tests.benchmarks.train --catalogue DIR`.

The older loop decodes every photo in every epoch and runs the whole network; ours keeps what the frozen stages give.
They take turns, an epoch each, by being interrupted and resumed. Then it is asked how soon the `head` recipe's logistic
regression is as good on validation as the older loop became, from nothing, on growing shares of the photos. ResNet50's
weights are drawn at random where no file is named: its times are real then, its accuracies mean little.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.cleaning.clean import CleanedCatalogue, clean
from pipeline.training.head import fit_head
from pipeline.training.network.activations import Activations
from pipeline.training.network.dataset import PLAIN, PhotoViews
from pipeline.training.network.samples import Samples
from pipeline.training.network.split_network import Front, front_runner
from pipeline.training.recipes import RECIPES, Recipe
from pipeline.training.split import split_listings
from pipeline.training.train import train
from pipeline.training.weights.loading import LoadedWeights, load_weights
from shared.array_types import IntArray
from shared.catalogue.categories import CATEGORIES
from shared.model.backbones import NORMALISATION
from shared.model.network import Network
from shared.photos.images import PreprocessSpec
from shared.settings import Backbone
from tests.benchmarks.support.report import Report

SEED = 17
SPEC = PreprocessSpec()
OLD = RECIPES["seed"]
OURS = dataclasses.replace(RECIPES["finetune"], n_trained_stages=OLD.n_trained_stages, patience=0)
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)


def main() -> None:
    """Print tables; write `var/bench/train.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalogue", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=1000, help="of the catalogue, chosen at random")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--backbone", type=Backbone, action="append", help="default: both")
    parser.add_argument("--weights", type=Path, help="of ResNet50")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        cleaned = _sample(clean(given.catalogue, Path(scratch) / "clean", report_progress=print), given.photos)
        report = Report("train", photos=len(cleaned.catalogue.photos), epochs=given.epochs)
        for backbone in given.backbone or (Backbone.EFFICIENTNET_LITE0, Backbone.RESNET50):
            print(f"--- {backbone}, {len(cleaned.catalogue.photos)} photos")
            home = Path(scratch) / backbone
            row = {"backbone": backbone, **_epochs(cleaned, home, given.epochs, backbone, given.weights)}
            head = _head(cleaned, home, row["old_accuracy"], row["old_s"], backbone, given.weights)
            for step in head.pop("head"):
                report.add("the head on growing shares", backbone=backbone, **step)
            report.add("both loops, and the head", **row, **head)
    report.plot("the head on growing shares", x="seconds", y="accuracy", by="backbone")
    report.finish()


def _sample(cleaned: CleanedCatalogue, n_photos: int) -> CleanedCatalogue:
    photos = cleaned.catalogue.photos
    chosen = np.random.default_rng(SEED).permutation(len(photos))[:n_photos]
    catalogue = dataclasses.replace(cleaned.catalogue, photos=[photos[row] for row in np.sort(chosen)])
    return dataclasses.replace(cleaned, catalogue=catalogue)


def _weights(backbone: Backbone, file: Path | None) -> LoadedWeights:
    if backbone is Backbone.RESNET50 and file is None:
        torch.manual_seed(SEED)
        trunk = Network(backbone, NORMALISATION[backbone]).features.trunk.tensors()
        return LoadedWeights(backbone, trunk, None, len(CATEGORIES), "random")
    return load_weights(backbone, file if backbone is Backbone.RESNET50 else None, download_timeout_s=1)


def _epochs(
    cleaned: CleanedCatalogue, home: Path, n_epochs: int, backbone: Backbone, file: Path | None
) -> dict[str, Any]:
    """So many epochs of both loops, in turns; the first of ours fills its cache, which is told apart."""

    def one_more(recipe: Recipe, n_done: int) -> list[dict[str, float]]:
        def stop_after_it(line: str) -> None:
            print(line)
            if line.startswith(f"epoch {n_done + 1}:"):
                raise KeyboardInterrupt

        return train(
            _weights(backbone, file),
            cleaned,
            dataclasses.replace(recipe, epochs=n_epochs),
            directory=home / recipe.name,
            activations=home / "activations",
            spec=SPEC,
            resume=n_done > 0,
            seed=SEED,
            report_progress=stop_after_it,
        ).history

    for n_done in range(n_epochs):
        old, ours = one_more(OLD, n_done), one_more(OURS, n_done)
    old_epoch_s, our_epoch_s = (statistics.median(entry["seconds"] for entry in epochs) for epochs in (old, ours))
    return {
        "old_epoch_s": old_epoch_s,
        "our_epoch_s": our_epoch_s,
        "epoch_ratio": old_epoch_s / our_epoch_s,
        "old_s": sum(entry["seconds"] for entry in old),
        "old_accuracy": max(entry["val_accuracy"] for entry in old),
    }


def _head(
    cleaned: CleanedCatalogue, home: Path, wanted: float, old_s: float, backbone: Backbone, file: Path | None
) -> dict[str, Any]:
    """How soon the head is as good; measuring it on validation is not counted, as it is not for the older loop."""
    photos = cleaned.catalogue.photos
    samples = Samples.of(photos, cleaned.topics, split_listings(photos, cleaned.near_duplicates, seed=SEED))
    views = PhotoViews(photos, cleaned.working_copy, SPEC, OLD.augmentation, seed=SEED)
    loaded = _weights(backbone, file)
    began = time.perf_counter()
    forward = front_runner(Front(loaded.network, 0), SPEC.size_px, torch.device("cpu"))
    spent = time.perf_counter() - began
    activations = Activations(home / "head", [photo.sha256 for photo in photos], (loaded.network.head.in_features,))

    def features(rows: IntArray) -> np.ndarray[Any, np.dtype[np.float32]]:
        wanted_views = [(int(row), PLAIN) for row in rows]
        activations.fill(views, wanted_views, lambda: forward, lambda _: None)
        return activations.__getitems__(wanted_views).numpy()

    order = np.random.default_rng(SEED).permutation(samples.train)
    seen: list[dict[str, float]] = []
    for share in SHARES:
        began = time.perf_counter()
        rows = order[: round(len(order) * share)]
        head = fit_head(features(rows), samples.labels[rows].tolist(), len(CATEGORIES))
        spent += time.perf_counter() - began
        scores = features(samples.validation) @ head.weight.T + head.bias
        accuracy = float((scores.argmax(1) == samples.labels[samples.validation]).mean())
        seen.append({"share": share, "seconds": spent, "accuracy": accuracy})
        print(f"head on {len(rows)} photos: {accuracy:.3f} after {spent:.1f} s")
    reached_s = next((turn["seconds"] for turn in seen if turn["accuracy"] >= wanted), float("nan"))
    return {"head": seen, "head_s": reached_s, "accuracy_ratio": old_s / reached_s}


if __name__ == "__main__":
    main()
