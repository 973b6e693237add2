"""`lookalike`: one verb for each thing a person does. Parses and prints; the work is done elsewhere."""

import json
from pathlib import Path

import click

from pipeline.cli_bundle import bundle
from pipeline.cli_clean import clean
from pipeline.cli_common import (
    backbone_option,
    catalogue_option,
    json_option,
    print_facts,
    reported,
    say,
)
from pipeline.cli_evaluate import evaluate, plot
from pipeline.cli_index import index, prepare, reindex, schedule
from pipeline.cli_operate import audit, jobs, keys
from pipeline.cli_train import train
from shared.settings import load_settings


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
@click.argument("photo", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-k", type=click.IntRange(1, 100), default=4, show_default=True, help="Neighbours wanted.")
@json_option
@reported
def search(photo: Path, k: int, as_json: bool) -> None:
    """Category of PHOTO and the catalogue photos most similar to it, from the live index and its model."""
    from shared.images import decode_photo
    from shared.jobs import SearchRequest
    from shared.snapshots import answering_bundle, index_store
    from shared.vision.answers import search_result
    from shared.vision.bundle import bundle_store, open_bundle
    from shared.vision.index import open_snapshot

    settings = load_settings()
    bundle = open_bundle(bundle_store(settings.home), answering_bundle(settings.home))
    snapshot = open_snapshot(index_store(settings.home), fingerprint=bundle.manifest.fingerprint)
    pixels = decode_photo(photo.read_bytes(), bundle.manifest.preprocess, max_pixels=settings.max_pixels)
    from shared.vision.runtimes import open_embedder  # heavy: only for a photo that can be decoded

    embedder = open_embedder(bundle, threads=settings.threads)
    result = search_result(embedder.embed(pixels[None]), SearchRequest(k=k), snapshot, bundle.manifest)
    lines = [f"{score.probability:6.1%}  {score.name}" for score in result.category.top]
    lines += [f"{n.rank:3d}. {n.score:.3f}  {n.image_id}  {n.category}" for n in result.neighbours]
    print_facts(as_json, result.model_dump(mode="json", exclude_none=True), "\n".join(lines))


for command in (clean, train, prepare, index, bundle, reindex, schedule, evaluate, plot, keys, jobs, audit):
    main.add_command(command)


if __name__ == "__main__":
    main()
