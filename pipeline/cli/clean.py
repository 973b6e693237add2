"""`lookalike clean`: clean a raw dump for training, and report what of it can be used."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from shared.errors import StoreUnavailable
from shared.settings import load_settings

if TYPE_CHECKING:  # heavy
    from shared.attributes.schema import Attribute


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
    from shared.artifacts.snapshots import live_attributes
    from shared.catalogue.choice import CategoryChoice
    from shared.catalogue.fetching import fetch_with

    settings = load_settings(catalogue=catalogue)
    directory = existing_catalogue(settings)
    types: tuple[Attribute, ...] = ()
    with suppress(StoreUnavailable):  # what is live is only compared with
        types = live_attributes(settings.storage, directory.name)
    cleaned = run(
        directory,
        out or cleaned_directory(settings.home, directory),
        report_progress=print_progress,
        wanted=CategoryChoice.by(settings, attributes=types),
        fetch=fetch_with(settings, print_progress),
    )
    found = json.loads((cleaned.directory / "report.json").read_bytes())
    lines = [f"{found['catalogue']}: {found['listings']} listings, {found['photos']} labelled photos"]
    lines += [f"  {count:6d}  {name}" for name, count in found["photos_per_category"].items()]
    for one in found["attributes"]:
        currencies = "".join(f" {code}" for code in one["currencies"])
        lines.append(f"attribute {one['name']}: {one['type']}{currencies}, {one['listings']} listings have it")
    if found["attributes"] and not any(one["type"] == "text" for one in found["attributes"]):
        lines.append(
            "no attribute is a text, so that searches by words find nothing: where a column holds titles, write "
            '[attributes.title] and column = "COLUMN" into catalogue.toml'
        )
    for title, problems in (("left out", found["left_out"]), ("odd", found["odd"])):
        for reason, problem in problems.items():
            lines += [f"{title}: {problem['count']} x {reason}", f"    {describe(problem['examples'][0])}"]
    lines += [f"near duplicates across listings: {found['near_duplicate_pairs']} pairs"]
    lines += [f"see {cleaned.directory / 'overview.html'}"]
    print_facts(as_json, {"directory": str(cleaned.directory), **found}, "\n".join(lines))


def describe(row: Mapping[str, Any]) -> str:
    """Describe one row of the report in a line: where it stands, what was found and what was looked for."""
    named = f" ({row['row_id']})" if row["row_id"] else ""
    found = f": {row['value']}" if row["value"] else ""
    detail = f": {row['detail']}" if row["detail"] else ""
    line = f"{row['table']} row {row['row']}{named}{found}{detail}"
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in line)
