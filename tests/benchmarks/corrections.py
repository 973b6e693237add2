"""What corrected categories do to a model that was trained on a table with wrong ones, and what random ones do.

`--catalogue DIR`: 15 % of the listings get a wrong category, at random. People with 40 API keys search by the photos of
training listings and correct the answer: of half of those that are wrong; or, as many, at random; or one key says one
category of half of all; or both the first and the last. A logistic head on EfficientNet-Lite0 is fitted by the table
and by what was learned, and measured on test listings by their true categories, on several splits. Nothing here is
asserted.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from pipeline.building.export import runner
from pipeline.building.trunks import trunk_graph
from pipeline.cleaning.clean import clean
from pipeline.demo.catalogue import generate
from pipeline.feedback import gate
from pipeline.feedback.gate import judge_labels
from pipeline.feedback.lessons import learn
from pipeline.feedback.table import feedback_table
from pipeline.training.head import Head, fit_head
from pipeline.training.split import split_listings
from pipeline.training.weights.loading import load_weights
from shared.array_types import FloatArray, IntArray
from shared.catalogue.categories import CataloguePhoto, Categories
from shared.catalogue.decode import decode_file
from shared.feedback.contract import FeedbackEvent, Impression, JobFeedback, StoredEvent
from shared.model.backbones import EMBEDDING_DIM, INPUT_PX, NORMALISATION
from shared.photos.images import PreprocessSpec
from shared.reindex.paired import compare_pairs
from shared.settings import Backbone
from tests.benchmarks.support.report import Report

_WRONG, _CORRECTED = 0.15, 0.5
_KEYS = 40
_BATCH = 32


def main() -> None:
    """Print a table; write `var/bench/corrections.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--catalogue", type=Path, help="default: the demo catalogue")
    parser.add_argument("--splits", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="two splits")
    given = parser.parse_args()
    splits = 2 if given.quick else given.splits
    with tempfile.TemporaryDirectory() as scratch:
        catalogue = given.catalogue or Path(scratch) / "demo"
        if given.catalogue is None:
            generate(catalogue, n_listings=52 if given.quick else 403)
        cleaned = clean(catalogue, Path(scratch) / "clean", report_progress=print)
        photos, categories = cleaned.catalogue.photos, cleaned.catalogue.categories
        features = _features(photos, categories)
        report = Report("corrections", photos=len(photos), categories=len(categories), splits=splits, wrong=_WRONG)
        measured: dict[str, list[tuple[Sequence[Any], ...]]] = {}
        passed: dict[str, list[bool]] = {}
        taken: dict[str, list[int]] = {}
        for seed in range(splits):
            case = _Case(photos, categories, features, cleaned.near_duplicates, seed)
            for name, said in case.feedback().items():
                now, then, ok, n = case.measure(said)
                measured.setdefault(name, []).append((now, then, case.tested))
                passed.setdefault(name, []).append(ok)
                taken.setdefault(name, []).append(n)
    for name, runs in measured.items():
        now, then, listings = ([value for run in runs for value in run[part]] for part in range(3))
        found = compare_pairs(now, then, listings)
        assert found
        report.add(
            "accuracy of the head on test listings", feedback=name, labels=round(float(np.mean(taken[name])), 1),
            passed=f"{sum(passed[name])} of {splits}", before=round(found.then, 4), after=round(found.now, 4),
            gain=f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]",
        )  # fmt: skip
    report.finish()


class _Case:
    """One split and one choice of wrong categories."""

    def __init__(
        self,
        photos: Sequence[CataloguePhoto],
        categories: Categories,
        features: FloatArray,
        near_duplicates: list[tuple[str, str]],
        seed: int,
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._photos, self._categories, self._features = photos, categories, features
        self._split = split_listings(photos, near_duplicates, seed=seed)
        self._truth = {photo.listing_id: photo.category for photo in photos}
        wrong = [one for one in sorted(self._truth) if self._rng.random() < _WRONG]
        self._table = self._truth | {one: self._other_than(self._truth[one]) for one in wrong}
        self._trained_wrong = [one for one in wrong if one in self._split.train]
        listings = [photo.listing_id for photo in photos]
        self._rows = {
            side: np.array([row for row, one in enumerate(listings) if one in getattr(self._split, side)])
            for side in ("train", "validation", "test")
        }
        self.tested = [listings[row] for row in self._rows["test"]]
        self._listings = np.array(listings)
        self._fitted: dict[bytes, Head] = {}

    def feedback(self) -> dict[str, list[JobFeedback]]:
        """By what people say."""
        rng, train = self._rng, sorted(self._split.train)
        half = [one for one in self._trained_wrong if rng.random() < _CORRECTED]
        any_of_them = [train[i] for i in rng.permutation(len(train))[: len(half)]]
        most = [train[i] for i in rng.permutation(len(train))[: len(train) // 2]]
        target = int(rng.integers(len(self._categories)))
        return {
            "half of the wrong ones, right": self._said({one: self._truth[one] for one in half}),
            "any, as many, at random": self._said({one: self._other_than(self._table[one]) for one in any_of_them}),
            "half of all, as one category, by one key": self._said(dict.fromkeys(most, target), n_keys=1),
            "the first and the last": [
                *self._said({one: self._truth[one] for one in half}),
                *self._said({one: target for one in most if one not in half}, n_keys=1, first=10_000),
            ],
        }

    def measure(self, said: list[JobFeedback]) -> tuple[list[float], list[float], bool, int]:
        """Right answers on test photos with what was learned and without; whether it passed; how many labels."""
        photos = [
            CataloguePhoto(one.image_id, one.listing_id, self._table[one.listing_id], one.path) for one in self._photos
        ]
        lessons = learn(feedback_table(said), photos, self._categories, self._split)
        table = np.array([one.category for one in photos])
        rows, n = self._rows, len(self._categories)
        with mock.patch.object(gate, "fit_head", self._fit):
            judged, detail = judge_labels(
                lessons, self._features, table, self._listings,
                train=rows["train"], validation=rows["validation"], n_categories=n,
            )  # fmt: skip
        print(f"{len(judged.labels)} of {len(lessons.labels)}: {detail}", flush=True)
        taught = np.array([one.category for one in judged.taught(photos)])

        def right(labels: IntArray) -> list[float]:
            head = self._fit(self._features[rows["train"]], labels[rows["train"]].tolist(), n)
            answers = (self._features[rows["test"]] @ head.weight.T + head.bias).argmax(1)
            truth = np.array([self._truth[one] for one in self.tested])
            found: list[float] = (answers == truth).astype(float).tolist()
            return found

        return right(taught), right(table), bool(judged.labels), len(judged.labels)

    def _fit(self, features: FloatArray, labels: Sequence[int], n_categories: int) -> Head:
        key = np.array([len(features), *labels]).tobytes()
        if key not in self._fitted:
            self._fitted[key] = fit_head(features, labels, n_categories)
        return self._fitted[key]

    def _other_than(self, category: int) -> int:
        return int((category + self._rng.integers(1, len(self._categories))) % len(self._categories))

    def _said(self, categories: Mapping[str, int], n_keys: int = _KEYS, first: int = 1) -> list[JobFeedback]:
        return [
            JobFeedback(
                impression=Impression(
                    job_id=f"{number:032x}", owner=f"key {number % n_keys} of {n_keys}", searched_at=number,
                    index_version="v", model_fingerprint="f", listing_id=listing,
                ),
                events=(
                    StoredEvent(event=FeedbackEvent.CATEGORY, category=self._categories[category], at=number),
                ),
            )
            for number, (listing, category) in enumerate(categories.items(), start=first)
        ]  # fmt: skip


def _features(photos: Sequence[CataloguePhoto], categories: Categories) -> FloatArray:
    """(n, dim) of the last stage."""
    backbone = Backbone.EFFICIENTNET_LITE0
    loaded = load_weights(backbone, None, download_timeout_s=1, categories=categories)
    spec = PreprocessSpec(size_px=INPUT_PX[backbone])
    forward = runner(trunk_graph(backbone, NORMALISATION[backbone], loaded.trunk, spec.size_px))
    pooled = []
    for start in range(0, len(photos), _BATCH):
        pixels = np.stack([decode_file(photo.path, spec) for photo in photos[start : start + _BATCH]])
        pooled.append(forward(pixels)[0][:, : EMBEDDING_DIM[backbone]])
    return np.concatenate(pooled)


if __name__ == "__main__":
    main()
