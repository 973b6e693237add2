"""Matches over a whole catalogue: how right their probabilities are, and how often they are certain.

`--catalogue DIR`: the listings are cut into ten parts. Each is the test part once, asked with its things in the index
and without them, while the next one calibrates and the others fit head and projection, as a build does. All ten are
measured together, for the calibration that searches answer by and for the one that earlier builds know; the difference
is paired. Nothing here is asserted.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.building.embed import run_over_photos
from pipeline.building.export import runner
from pipeline.building.trunks import trunk_graph
from pipeline.demo.catalogue import generate
from pipeline.evaluation.intervals import bootstrap
from pipeline.evaluation.matches import measure_answers
from pipeline.training.calibration.fusion import Labelled
from pipeline.training.calibration.matching import MatchCases, fit_matching, match_cases
from pipeline.training.head import fit_head
from pipeline.training.projection import fit_projection
from pipeline.training.split import linked_listings
from pipeline.training.weights.loading import load_weights
from shared.array_types import BoolArray, DoubleArray, FloatArray
from shared.catalogue.categories import CataloguePhoto
from shared.catalogue.tables import read_catalogue
from shared.model.backbones import EMBEDDING_DIM, INPUT_PX, LEVELS, NORMALISATION
from shared.model.bundle import PROJECTED, Split
from shared.model.embedder import Embeddings, normalised
from shared.photos.images import PreprocessSpec
from shared.settings import Backbone
from tests.benchmarks.support.report import Report

_PARTS = 10
_BACKBONE = Backbone.EFFICIENTNET_LITE0


def main() -> None:
    """Print tables; write `var/bench/matches.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--catalogue", type=Path, help="default: the demo catalogue")
    parser.add_argument("--seed", type=int, default=17, help="of the cutting")
    parser.add_argument("--quick", action="store_true", help="two parts")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        catalogue = given.catalogue or Path(scratch) / "demo"
        if given.catalogue is None:
            generate(catalogue)
        photos, pooled = _features(catalogue)
        cut = StratifiedGroupKFold(_PARTS, shuffle=True, random_state=given.seed)
        groups, labels = linked_listings(photos), [photo.category for photo in photos]
        cuts = cut.split(np.zeros(len(photos)), labels, groups)
        parts = [frozenset(photos[row].listing_id for row in rows) for _, rows in cuts]
        measured = [_Part(photos, pooled, parts, number) for number in range(2 if given.quick else _PARTS)]
    report = Report("matches", photos=len(photos), seed=given.seed, parts=len(measured))
    cases = MatchCases(*(np.concatenate(values) for values in zip(*(part.cases for part in measured), strict=True)))
    losses = {}
    for name in ("by_lead", "by_doubt"):
        chances, certain = (np.concatenate([part.answers[name][i] for part in measured]) for i in range(2))
        found = measure_answers(cases, chances, certain.astype(np.bool_))
        losses[name] = -np.log(np.where(cases.same, chances, 1 - chances))
        alone = [measure_answers(part.cases, *part.answers[name]) for part in measured]
        report.add(
            "probabilities", calibration=name, queries=found.n_queries, ece=round(found.ece, 4),
            interval=f"[{found.ece_interval.low:.3f}, {found.ece_interval.high:.3f}]",
            of_one_part=round(float(np.mean([one.ece for one in alone])), 4),
            of_one_part_if_exact=round(float(np.mean([one.ece_if_exact for one in alone])), 4),
            log_loss=round(float(losses[name].mean()), 4),
        )  # fmt: skip
        for says, one in (("the same", found.same), ("not here", found.absent)):
            report.add(
                "certain", calibration=name, says=says, coverage=round(one.coverage, 4), precision=one.precision,
                interval=None if one.interval is None else f"[{one.interval.low:.3f}, {one.interval.high:.3f}]",
            )  # fmt: skip
    gain = losses["by_lead"] - losses["by_doubt"]
    interval = bootstrap(gain, cases.things)
    report.add(
        "log-loss", less_by_doubt=round(float(gain.mean()), 4), interval=f"[{interval.low:+.4f}, {interval.high:+.4f}]"
    )
    report.finish()


class _Part:
    """One part as the test part: its searches, and the probabilities and certainties by each calibration."""

    def __init__(
        self, photos: Sequence[CataloguePhoto], pooled: FloatArray, parts: Sequence[frozenset[str]], number: int
    ) -> None:
        test, validation = parts[number], parts[(number + 1) % len(parts)]
        split = Split(train=frozenset().union(*parts) - test - validation, validation=validation, test=test)
        trained = [row for row, photo in enumerate(photos) if photo.listing_id in split.train]
        n_categories = 1 + max(photo.category for photo in photos)
        last = pooled[trained, : EMBEDDING_DIM[_BACKBONE]]
        head = fit_head(last, [photos[row].category for row in trained], n_categories)
        heads, _ = fit_projection(head, LEVELS[_BACKBONE], photos, pooled, split)
        vectors, scores = heads.answer(pooled)
        labelled = Labelled.of(photos, Embeddings(normalised(vectors), scores), PROJECTED)
        fitted = fit_matching(labelled, photos, split, print)
        rows = np.flatnonzero(np.isin(labelled.listings, sorted(test)))
        cases = match_cases(labelled, photos, rows)
        if fitted is None or cases is None:
            raise SystemExit("the catalogue has too few listings of several photos")
        self.cases = cases._replace(things=cases.things + number * len(photos))
        self.answers: dict[str, tuple[DoubleArray, BoolArray]] = {}
        for name, matching in fitted._asdict().items():
            chances = matching.probability(*cases.evidence)
            self.answers[name] = chances, np.array([matching.certain(chance) for chance in chances.tolist()])


def _features(catalogue: Path) -> tuple[list[CataloguePhoto], FloatArray]:
    """The photos that can be decoded, and their pooled features (n, width)."""
    read = read_catalogue(catalogue)
    loaded = load_weights(_BACKBONE, None, download_timeout_s=1, categories=read.categories)
    spec = PreprocessSpec(size_px=INPUT_PX[_BACKBONE])
    forward = runner(trunk_graph(_BACKBONE, NORMALISATION[_BACKBONE], loaded.trunk, spec.size_px))
    photos, batches, _ = run_over_photos(read.photos, spec, lambda pixels: forward(pixels)[0], desc="features")
    return photos, np.concatenate(batches)


if __name__ == "__main__":
    main()
