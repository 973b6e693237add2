"""`lookalike train`: train, calibrate and evaluate a bundle from a raw dump."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.common import (
    backbone_option,
    catalogue_option,
    existing_catalogue,
    json_option,
    print_facts,
    print_progress,
    report_errors,
)
from pipeline.cli.feedback import stored_feedback
from pipeline.cli.help import with_examples
from shared.errors import ArtifactUnwritable
from shared.settings import Settings, load_settings

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_RECIPE = "finetune"
_FITS = ("letterbox", "crop", "stretch")


@with_examples(
    "lookalike train --catalogue /data/listings",
    "lookalike train --catalogue /data/listings --recipe metric --out ./my-bundle",
    "lookalike train --catalogue /data/listings --resume",
    "lookalike train --catalogue /data/listings --feedback stored",
)
@click.command()
@catalogue_option
@click.option("--recipe", default=DEFAULT_RECIPE, show_default=True, help="head, metric, finetune or seed; see below.")
@backbone_option
@click.option("--epochs", type=click.IntRange(1, 1000), help="Default: the recipe's.")
@click.option("--size", type=click.IntRange(32, 1024), help="Side of the network's input, px. Default: the backbone's.")
@click.option("--fit", type=click.Choice(_FITS), default="letterbox", show_default=True, help="Into that square.")
@click.option("--fill", type=click.IntRange(0, 255), default=0, show_default=True, help="Grey of a letterbox's bars.")
@click.option(
    "--feedback",
    metavar="stored|FILE",
    help="Learn from feedback: `stored` is what the installation has, else exported tables.",
)
@click.option("--seed", type=click.IntRange(0), default=17, show_default=True, help="Of the split and of all chance.")
@click.option("--resume", is_flag=True, help="Go on where the same run was stopped or killed.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the bundle as this directory, not into the store.")
@json_option
@report_errors
def train(
    catalogue: Path | None,
    recipe: str,
    backbone: str | None,
    epochs: int | None,
    size: int | None,
    fit: str,
    fill: int,
    feedback: str | None,
    seed: int,
    resume: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Clean a raw dump, train on it, and make a bundle of the result. Nothing goes live: `lookalike bundle promote`
    does that.

    Recipes: `head` fits a linear head on a frozen trunk; `metric` also a projection that brings photos of one thing
    together; `finetune` trains the last stages of the trunk as well; `seed` is how the older service was trained.
    `--feedback` takes corrected categories of training listings as labels, and results that were right or bought as
    pairs, as long as the model is not worse by them; a directory of exported tables does as well as one file.
    Checkpoints, TensorBoard's events and frozen activations lie under LOOKALIKE_HOME. Ctrl-C keeps the best so far.
    """
    if out and out.exists():
        raise ArtifactUnwritable(f"{out} is there already; name a directory that is not")
    from shared.model.torch_library import require_torch

    require_torch("training")
    from pipeline.training.factory import TrainingConfig, run_training
    from pipeline.training.recipes import RECIPES

    if recipe not in RECIPES:
        raise click.BadParameter(f"{recipe!r} is not one of {', '.join(RECIPES)}", param_hint="--recipe")
    settings = load_settings(catalogue=catalogue, backbone=backbone)
    wanted = RECIPES[recipe] if epochs is None else replace(RECIPES[recipe], epochs=epochs)
    preprocess = {"fit": fit, "fill": fill, **({"size_px": size} if size else {})}
    told = None if feedback is None else _feedback(feedback, settings)
    config = TrainingConfig(existing_catalogue(settings), wanted, preprocess, seed, told)
    result = run_training(config, settings, out=out, resume=resume, report_progress=print_progress)
    facts = {
        "bundle": result.name,
        "directory": str(result.directory),
        "pictures": str(result.pictures),
        "recipe": recipe,
        "notes": result.notes,
        "metrics": result.metrics,
    }
    lines = [f"bundle {result.name} in {result.directory}", f"pictures: {result.pictures}/index.html"]
    lines += [f"  {name:32} {value}" for name, value in result.metrics.items()]
    lines.append(f"to let it answer: lookalike bundle promote {result.name if out is None else out}")
    print_facts(as_json, json.loads(json.dumps(facts, default=str)), "\n".join(lines))


def _feedback(wanted: str, settings: Settings) -> "pd.DataFrame":
    from pipeline.feedback.table import feedback_table, read_feedback_files

    if wanted == "stored":
        return feedback_table(stored_feedback(settings))
    return read_feedback_files(Path(wanted))
