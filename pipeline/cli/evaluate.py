"""`lookalike evaluate` measures a bundle, or compares two; `lookalike plot` draws one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import ValidationError

from pipeline.cli.bundle import open_named
from pipeline.cli.common import (
    catalogue_option,
    existing_catalogue,
    json_option,
    print_facts,
    print_progress,
    report_errors,
)
from pipeline.cli.help import with_examples
from shared.artifacts.snapshots import bundle_store
from shared.artifacts.store import unwritable
from shared.errors import BundleDamaged, CatalogueUnusable
from shared.model.bundle import ModelBundle
from shared.settings import Settings, load_settings

if TYPE_CHECKING:  # heavy: only for what is asked for
    from pipeline.evaluation.evaluate import Difference, Evaluation

_LIVE = "live"
bundle_option = click.option(
    "--bundle", "name", metavar="VERSION|DIR", default=_LIVE, help="A version, or a directory. Default: the live one."
)


@with_examples("lookalike evaluate", "lookalike evaluate --bundle VERSION --against live")
@click.command()
@bundle_option
@catalogue_option
@click.option("--against", metavar="VERSION|DIR|live", help="Another bundle, on the photos that neither has seen.")
@json_option
@report_errors
def evaluate(name: str, catalogue: Path | None, against: str | None, as_json: bool) -> None:
    """Measure a bundle on a catalogue: accuracy on unseen listings, and how good its neighbours are.

    Unseen are listings that the bundle was neither fitted nor chosen on. What `low` and `high` name, and what stands
    in brackets, are 95 % intervals of a bootstrap over listings.
    """
    from pipeline.building.index import embed_catalogue
    from pipeline.evaluation.evaluate import SPLIT_UNKNOWN, compare, joint_split
    from pipeline.evaluation.words import measure_served
    from pipeline.training.calibration.fusion import Labelled, Worded
    from shared.catalogue.categories import Categories
    from shared.catalogue.choice import CategoryChoice
    from shared.catalogue.fetching import fetch_with
    from shared.catalogue.tables import read_catalogue

    settings = load_settings(catalogue=catalogue)
    bundles = [_open(settings, wanted) for wanted in (name, against) if wanted]
    categories = Categories(bundles[0].manifest.categories)
    if against and bundles[1].manifest.categories != categories.names:
        raise CatalogueUnusable("the two bundles tell other categories apart, so they cannot be compared")
    choice = CategoryChoice.by(settings, categories.names, grow=False)
    found = read_catalogue(existing_catalogue(settings), choice, fetch=fetch_with(settings, print_progress))
    split = joint_split([bundle.split for bundle in bundles])
    if against and not {photo.listing_id for photo in found.photos} - split.train - split.validation:
        raise CatalogueUnusable(f"every listing of {found.name} was seen by one of the bundles; name another catalogue")
    measured = []
    for bundle in bundles:
        photos, embeddings = embed_catalogue(settings, bundle, found, print_progress)
        labelled = Labelled.of(photos, embeddings, bundle.manifest.embedding_layer)
        encoder = bundle.text_encoder()
        worded = Worded.of(encoder, photos, labelled) if encoder else None
        measured.append(measure_served(labelled, photos, bundle.manifest, split, categories, worded))
    evaluation, summaries = measured[0].evaluation, [each.evaluation.summary() for each in measured]
    differences = compare(*measured) if against else {}
    unknown = [SPLIT_UNKNOWN for bundle in bundles if not bundle.split.listings]
    notes = list(dict.fromkeys([*evaluation.notes, *unknown]))
    facts: dict[str, object] = {"catalogue": found.name, **_named(bundles[0]), **summaries[0], "notes": notes}
    facts["evaluation"] = evaluation.model_dump()
    lines = [f"{found.name} with {bundles[0].version} ({bundles[0].manifest.backbone})"]
    if against:
        facts["against"] = {**_named(bundles[1]), **summaries[1]}
        facts["differences"] = {figure: difference.model_dump() for figure, difference in differences.items()}
        lines.append(f"beside {bundles[1].version} ({bundles[1].manifest.backbone}), on photos that neither has seen")
    lines += [
        *_rows(summaries, differences),
        *([] if against else [*_listing_queries(evaluation), *_matches(evaluation), *_categories(evaluation)]),
    ]
    print_facts(as_json, facts, "\n".join([*lines, *(f"note: {note}" for note in notes)]))


@with_examples(
    "lookalike plot --out ./pictures", "lookalike plot --bundle VERSION --catalogue /data/listings --out ./pictures"
)
@click.command()
@bundle_option
@catalogue_option
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where the PNGs go.")
@json_option
@report_errors
def plot(name: str, catalogue: Path | None, out: Path, as_json: bool) -> None:
    """Draw a bundle: how it was trained, how good its answers are, and the page index.html that shows it all.

    Without a catalogue the figures are those stored in the bundle. With one they are measured on it, and it is drawn
    too: some queries with their similar photos, and a map of all photos.
    """
    from pipeline.building.index import embed_catalogue
    from pipeline.evaluation.evaluate import METRICS, Evaluation
    from pipeline.evaluation.gallery import draw_bundle
    from pipeline.evaluation.words import measure_served
    from pipeline.training.calibration.fusion import Labelled, Worded
    from shared.catalogue.categories import Categories
    from shared.catalogue.choice import CategoryChoice
    from shared.catalogue.fetching import fetch_with
    from shared.catalogue.tables import read_catalogue

    settings = load_settings(catalogue=catalogue)
    bundle = _open(settings, name)
    stored = bundle.directory / METRICS
    embedded = None
    if settings.catalogue is not None:
        categories = Categories(bundle.manifest.categories)
        choice = CategoryChoice.by(settings, categories.names, grow=False)
        found = read_catalogue(existing_catalogue(settings), choice, fetch=fetch_with(settings, print_progress))
        embedded = embed_catalogue(settings, bundle, found, print_progress)
        labelled = Labelled.of(*embedded, bundle.manifest.embedding_layer)
        encoder = bundle.text_encoder()
        worded = Worded.of(encoder, embedded.photos, labelled) if encoder else None
        measured = measure_served(labelled, embedded.photos, bundle.manifest, bundle.split, categories, worded)
        evaluation = measured.evaluation
    elif stored.is_file():
        try:
            evaluation = Evaluation.model_validate_json(stored.read_bytes())
        except ValidationError as exc:
            raise BundleDamaged(f"{bundle.version}: {METRICS} is not of this Lookalike; name a catalogue") from exc
    else:
        raise click.UsageError(
            f"{bundle.version} holds no {METRICS}: name a catalogue to measure it on, --catalogue DIR"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        pictures = draw_bundle(bundle, evaluation, out, embedded)
    except OSError as exc:
        raise unwritable(out, exc) from exc
    facts = {**_named(bundle), "out": str(out), "pictures": pictures, "notes": evaluation.notes}
    lines = [f"{out / picture}" for picture in pictures] + [f"note: {note}" for note in evaluation.notes]
    print_facts(as_json, facts, "\n".join(lines))


def _open(settings: Settings, name: str) -> ModelBundle:
    return open_named(bundle_store(settings.storage), None if name == _LIVE else name)


def _named(bundle: ModelBundle) -> dict[str, str]:
    return {"bundle": bundle.version, "backbone": bundle.manifest.backbone, "recipe": bundle.manifest.recipe}


def _rows(summaries: Sequence[Mapping[str, float | int]], differences: Mapping[str, "Difference"]) -> list[str]:
    """One line for each figure: its value for every bundle that has it, and their difference with its interval."""
    lines = []
    for name in dict.fromkeys(name for summary in summaries for name in summary):
        values = [summary.get(name, "-") for summary in summaries]
        cells = [f"{value:>10.3f}" if isinstance(value, float) else f"{value:>10}" for value in values]
        if found := differences.get(name):
            cells.append(f"{found.difference:+10.3f} [{found.interval.low:+.3f}, {found.interval.high:+.3f}]")
        lines.append(f"  {name:34}{''.join(cells)}")
    return lines


def _listing_queries(evaluation: "Evaluation") -> list[str]:
    """What a query of all photos of a listing gains over one of a single photo."""
    if (found := evaluation.listing_queries) is None:
        return []
    lines = [f"all photos of a listing as one query, {found.n_listings} unseen listings of several photos"]
    for name, gain in (("accuracy", found.accuracy), ("precision_at_4", found.precision_at_4)):
        if gain:
            between = f"[{gain.difference.low:+.3f}, {gain.difference.high:+.3f}]"
            lines.append(f"  {name:24} {gain.all_photos:.3f}, of one photo {gain.one_photo:.3f}, difference {between}")
    return lines


def _matches(evaluation: "Evaluation") -> list[str]:
    """How well it is known whether a search found the same thing."""
    if (found := evaluation.matches) is None:
        return []
    error = f"{found.ece:.3f} [{found.ece_interval.low:.3f}, {found.ece_interval.high:.3f}]"
    lines = [
        f"the same thing or not here, {found.n_queries} unseen queries, half of them without their thing",
        f"  {'calibration error':24} {error}, of exact probabilities {found.ece_if_exact:.3f}",
    ]
    for name, answer in (("certainly the same", found.same), ("certainly not here", found.absent)):
        right = "" if answer.precision is None else f", right for {answer.precision:.3f}"
        between = f" [{answer.interval.low:.3f}, {answer.interval.high:.3f}]" if answer.interval else ""
        lines.append(f"  {name:24} {answer.coverage:.3f} of the queries{right}{between}")
    return lines


def _categories(evaluation: "Evaluation") -> list[str]:
    if evaluation.classification is None:
        return []
    head = f"  {'category, unseen photos':34}{'photos':>8}{'precision':>11}{'recall':>8}{'F1':>7}"
    return [head] + [
        f"  {c.name:34}{c.n:8d}{c.precision:11.3f}{c.recall:8.3f}{c.f1:7.3f}"
        for c in evaluation.classification.categories
    ]
