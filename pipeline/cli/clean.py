"""`lookalike clean`: clean a raw dump for training, and report what of it can be used."""

import json
from pathlib import Path

import click

from pipeline.cli.common import (
    catalogue_option,
    existing_catalogue,
    json_option,
    print_facts,
    print_progress,
    report_errors,
)
from pipeline.cli.help import with_examples
from shared.settings import load_settings


@with_examples(
    "lookalike clean --catalogue /data/listings", "lookalike clean --catalogue /data/listings --json | jq .left_out"
)
@click.command()
@catalogue_option
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the cleaned files go. Default: clean/ in LOOKALIKE_HOME, under the catalogue's name.",
)
@json_option
@report_errors
def clean(catalogue: Path | None, out: Path | None, as_json: bool) -> None:
    """Read a raw dump, report what of it can be used and why the rest cannot, and write what training starts from."""
    from pipeline.cleaning.clean import clean as run
    from pipeline.cleaning.clean import cleaned_directory

    settings = load_settings(catalogue=catalogue)
    directory = existing_catalogue(settings)
    cleaned = run(directory, out or cleaned_directory(settings.home, directory), report_progress=print_progress)
    found = json.loads((cleaned.directory / "report.json").read_text())
    lines = [f"{found['catalogue']}: {found['listings']} listings, {found['photos']} labelled photos"]
    lines += [f"  {count:6d}  {name}" for name, count in found["photos_per_category"].items()]
    lines += [f"left out: {problem['count']} x {reason}" for reason, problem in found["left_out"].items()]
    lines += [f"odd: {problem['count']} x {reason}" for reason, problem in found["odd"].items()]
    lines += [f"near duplicates across listings: {found['near_duplicate_pairs']} pairs"]
    lines += [f"see {cleaned.directory / 'overview.html'}"]
    print_facts(as_json, {"directory": str(cleaned.directory), **found}, "\n".join(lines))
