"""`lookalike train` in one call: clean a raw dump, train, calibrate, measure, write the bundle and plot it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pipeline.building.bundle import BundleContents, assemble_bundle, wanted_sentences
from pipeline.building.inputs import BundleInputs
from pipeline.cleaning.clean import clean, cleaned_directory
from pipeline.evaluation.gallery import draw_bundle
from pipeline.training.recipes import Recipe
from pipeline.training.train import train
from pipeline.training.weights.loading import load_weights
from shared.catalogue.choice import CategoryChoice
from shared.catalogue.fetching import fetch_with
from shared.model.backbones import INPUT_PX
from shared.model.bundle import ModelBundle, bundle_store, known_categories, open_bundle, open_bundle_directory
from shared.photos.preprocessing import PreprocessSpec
from shared.progress import ReportProgress
from shared.settings import Backbone, Settings

# Measured on 2,527 real photos with Lite0: from 224 to 256 px +0.012 accuracy and +0.018 sibling recall@4 for 1.3 times
# the work; 320 px another +0.01 and +0.01 for 1.6 times that.
_SIZE_PX = {**INPUT_PX, Backbone.EFFICIENTNET_LITE0: 256}


@dataclass(frozen=True)
class TrainingConfig:
    """What to train, on what.

    Attributes:
        catalogue: directory of the raw dump.
        recipe: the hyperparameters.
        preprocess: fields of the preprocessing spec; without a size the backbone's default is used.
        seed: of the split and of training.
        feedback: table of feedback to learn from, see `pipeline.feedback.table`; None: none is used.
    """

    catalogue: Path
    recipe: Recipe
    preprocess: Mapping[str, object]
    seed: int
    feedback: pd.DataFrame | None = None


@dataclass(frozen=True)
class TrainingResult:
    """The bundle that was made; it is not promoted.

    Attributes:
        name: its version.
        directory: where it is.
        pictures: directory of its plots.
        metrics: of its evaluation.
        notes: what was decided on the way.
    """

    name: str
    directory: Path
    pictures: Path
    metrics: Mapping[str, float | int]
    notes: Mapping[str, float | str]


def run_training(
    config: TrainingConfig, settings: Settings, *, out: Path | None, resume: bool, report_progress: ReportProgress
) -> TrainingResult:
    """Make a bundle from a raw dump.

    Args:
        config: what to train.
        settings: of the installation.
        out: a directory to write the bundle as; None: into the installation's store.
        resume: continue the run with the same config, if one was stopped.
        report_progress: receives one line for each step.

    Raises:
        CatalogueUnusable, WeightsUnusable, TrainingFailed, ArtifactUnwritable, CannotStart: as `clean`,
            `load_weights`, `train` and `assemble_bundle` raise them.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    cleaned = clean(
        config.catalogue,
        cleaned_directory(settings.home, config.catalogue),
        report_progress=report_progress,
        wanted=CategoryChoice.by(settings, known_categories(settings.storage)),
        fetch=fetch_with(settings, report_progress),
    )
    loaded = load_weights(
        settings.backbone,
        settings.weights,
        download_timeout_s=settings.download_timeout_s,
        categories=cleaned.catalogue.categories,
    )
    report_progress(f"weights: {loaded.source}")
    sentences = wanted_sentences(settings, cleaned.catalogue, report_progress)
    spec = PreprocessSpec.model_validate({"size_px": _SIZE_PX[loaded.backbone], **config.preprocess})
    trained = train(
        loaded,
        cleaned,
        config.recipe,
        directory=settings.home / "runs" / _run_name(config, loaded.backbone, cleaned.catalogue.digest, spec),
        activations=settings.home / "activations",
        spec=spec,
        resume=resume,
        seed=config.seed,
        report_progress=report_progress,
        feedback=config.feedback,
    )
    inputs = BundleInputs(
        loaded=trained.weights,
        catalogue=cleaned.catalogue,
        split=trained.split,
        recipe=trained.recipe,
        project=config.recipe.projection,
        history=trained.history,
        notes=trained.notes,
        sentences=sentences,
        lessons=trained.lessons,
    )
    contents = assemble_bundle(inputs, spec, settings, report_progress)
    bundle = _write(contents, settings, out)
    pictures = settings.home / "pictures" / bundle.version
    draw_bundle(bundle, contents.evaluation, pictures, contents.embedded)
    return TrainingResult(bundle.version, bundle.directory, pictures, contents.manifest.metrics, contents.notes)


def _write(contents: BundleContents, settings: Settings, out: Path | None) -> ModelBundle:
    if out is None:
        store = bundle_store(settings.storage)
        return open_bundle(store, contents.write(store))
    contents.write_directory(out)
    return open_bundle_directory(out)


def _run_name(config: TrainingConfig, backbone: Backbone, catalogue_digest: str, spec: PreprocessSpec) -> str:
    """Name of the run's directory, the same for the same config, so that `resume` finds the run."""
    decisive: dict[str, Any] = {"recipe": asdict(config.recipe), "spec": spec.model_dump(mode="json")}
    decisive |= {"catalogue": catalogue_digest, "seed": config.seed}
    if config.feedback is not None:
        decisive["feedback"] = hashlib.sha256(config.feedback.to_csv(index=False).encode()).hexdigest()
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()
    return f"{config.recipe.name}-{backbone}-{digest[:12]}"
