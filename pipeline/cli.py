"""`lookalike`: one verb for each thing a person does. Parses and prints; the work is done elsewhere."""

import json
from pathlib import Path

import click

from pipeline.cli_common import backbone_option, catalogue_option, json_option, print_facts, reported, say
from pipeline.cli_index import index, prepare, reindex, schedule
from pipeline.cli_operate import audit, jobs, keys
from shared.home import catalogue_directory
from shared.settings import Settings, load_settings


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lookalike")
def main() -> None:
    """Visual search for marketplaces: which category is this photo, and which listings look like it."""


@main.command()
@catalogue_option
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the API. Default: 8080.")
@backbone_option
@json_option
@reported
def up(catalogue: Path | None, port: int | None, backbone: str | None, as_json: bool) -> None:
    """Prepare what is missing, then run Valkey, a worker and the API until Ctrl-C."""
    from pipeline.up import up as run

    settings = load_settings(catalogue=catalogue, port=port, backbone=backbone)

    def say_json(line: str) -> None:
        click.echo(json.dumps({"message": line}))

    run(settings, say_json if as_json else say)


@main.command()
@catalogue_option
@json_option
@reported
def clean(catalogue: Path | None, as_json: bool) -> None:
    """Read a raw dump and report what of it can be used, and why the rest cannot."""
    from shared.catalogue import CATEGORIES
    from shared.indexing.catalogue import read_catalogue

    found = read_catalogue(_existing_catalogue(load_settings(catalogue=catalogue)))
    per_category = {
        name: sum(photo.category == index for photo in found.photos) for index, name in enumerate(CATEGORIES)
    }
    facts = {
        "catalogue": found.name,
        "listings": found.n_listings,
        "photos": len(found.photos),
        "photos_per_category": per_category,
        "unusable": found.unusable,
    }
    lines = [f"{found.name}: {found.n_listings} listings, {len(found.photos)} labelled photos"]
    lines += [f"  {count:6d}  {name}" for name, count in per_category.items()]
    lines += [f"left out: {count} x {reason}" for reason, count in sorted(found.unusable.items())]
    print_facts(as_json, facts, "\n".join(lines))


@main.command()
@click.argument("photo", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-k", type=click.IntRange(1, 100), default=4, show_default=True, help="Neighbours wanted.")
@json_option
@reported
def search(photo: Path, k: int, as_json: bool) -> None:
    """Category of PHOTO and the catalogue photos most similar to it, from the live bundle and index."""
    from shared.images import decode_photo
    from shared.jobs import SearchRequest
    from shared.snapshots import index_store
    from shared.vision.answers import search_result
    from shared.vision.bundle import bundle_store, open_bundle
    from shared.vision.index import open_snapshot

    settings = load_settings()
    bundle = open_bundle(bundle_store(settings.home))
    snapshot = open_snapshot(index_store(settings.home), fingerprint=bundle.manifest.fingerprint)
    pixels = decode_photo(photo.read_bytes(), bundle.manifest.preprocess, max_pixels=settings.max_pixels)
    from shared.vision.runtimes import open_embedder  # heavy: only for a photo that can be decoded

    embedder = open_embedder(bundle, threads=settings.threads)
    result = search_result(embedder.embed(pixels[None]), SearchRequest(k=k), snapshot)
    lines = [f"{score.probability:6.1%}  {score.name}" for score in result.category.top]
    lines += [f"{n.rank:3d}. {n.score:.3f}  {n.image_id}  {n.category}" for n in result.neighbours]
    print_facts(as_json, result.model_dump(mode="json", exclude_none=True), "\n".join(lines))


@main.command("evaluate")
@catalogue_option
@json_option
@reported
def evaluate_command(catalogue: Path | None, as_json: bool) -> None:
    """Measure the live bundle on a catalogue: accuracy on unseen listings, and how good its neighbours are."""
    from pipeline.build_index import embed_catalogue
    from pipeline.evaluate import describe_metrics, evaluate
    from shared.indexing.catalogue import read_catalogue
    from shared.vision.bundle import bundle_store, open_bundle

    settings = load_settings(catalogue=catalogue)
    found = read_catalogue(_existing_catalogue(settings))
    bundle = open_bundle(bundle_store(settings.home))
    photos, embeddings = embed_catalogue(settings, bundle, found, say)
    # A listing the head was never shown is unseen, whether it was held out or came from elsewhere.
    listings = {photo.listing_id for photo in photos}
    unseen = frozenset(listings - (bundle.fitted_on - bundle.held_out))
    metrics = evaluate(photos, embeddings, unseen)
    facts = {"catalogue": found.name, "backbone": bundle.manifest.backbone, **metrics}
    text = f"{found.name} with {bundle.manifest.backbone}: {describe_metrics(metrics)}"
    print_facts(as_json, facts, text)


def _existing_catalogue(settings: Settings) -> Path:
    directory = catalogue_directory(settings)
    if not directory.is_dir():
        raise click.UsageError("name a catalogue: --catalogue DIR, or LOOKALIKE_CATALOGUE")
    return directory


for command in (prepare, index, reindex, schedule, keys, jobs, audit):
    main.add_command(command)


if __name__ == "__main__":
    main()
