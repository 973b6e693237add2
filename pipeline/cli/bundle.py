"""`lookalike bundle`: list, show, promote and export model bundles. They need no running service."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from pipeline.cli.common import json_option, print_facts, report_errors, running_jobs
from pipeline.cli.completion import bundle_versions
from pipeline.cli.help import with_examples
from pipeline.cli.reindex import exit_code, outcome, run_reindex
from shared.artifacts import Location
from shared.artifacts.snapshots import answering_bundle, bundle_store, index_store, read_index_manifest
from shared.artifacts.store import ArtifactStore
from shared.artifacts.versions import promote_version
from shared.errors import ArtifactError, BundleMissing
from shared.jobs.reindex_contract import ReindexRequest
from shared.jobs.view import view
from shared.model.bundle import (
    BundleManifest,
    ModelBundle,
    Runtime,
    export_bundle,
    import_bundle,
    open_bundle,
    open_bundle_directory,
    read_manifest,
)
from shared.settings import load_settings

_RUNS = {
    Runtime.OPENVINO: "on the CPU",
    Runtime.TORCH: "on a GPU where there is one; without, in torch on the CPU, slower than a bundle made there",
}
_Changes = dict[str, tuple[str | None, str | None]]
_NO_INDEX = (
    "it has no index yet, and until it has, the old model and its index answer:\n"
    "`lookalike reindex` has the running service make it, `lookalike index build` makes it here"
)


@click.group()
def bundle() -> None:
    """See model bundles and promote one; a bundle is a directory, made by `lookalike train` here or elsewhere."""


@with_examples("lookalike bundle list")
@bundle.command("list")
@json_option
@report_errors
def bundle_list(as_json: bool) -> None:
    """Every version, newest first; the live one has a star."""
    storage = load_settings().storage
    store = bundle_store(storage)
    found = [_facts(store, version) for version in reversed(store.versions())]
    lines = [f"{'*' if facts['live'] else ' '} {_line(facts)}" for facts in found]
    print_facts(as_json, {"bundles": found}, "\n".join(lines) or "no bundles yet: `lookalike prepare` makes one")


@with_examples("lookalike bundle show", "lookalike bundle show ./my-bundle --json | jq .metrics")
@bundle.command("show")
@click.argument("bundle", metavar="[VERSION|DIR]", required=False, shell_complete=bundle_versions)
@json_option
@report_errors
def bundle_show(bundle: str | None, as_json: bool) -> None:
    """VERSION, a bundle in a directory DIR, or the live one: what it is, what was measured, and whether it is whole."""
    storage = load_settings().storage
    found = open_named(bundle_store(storage), bundle)
    manifest = found.manifest
    sides = {side: len(listings) for side, listings in found.split.model_dump().items()}
    indexes = _indexes(storage, manifest.fingerprint)
    facts = {
        "version": found.version,
        **manifest.model_dump(mode="json"),
        "split": sides,
        "files": sorted(path.name for path in found.directory.iterdir()),
        "indexes": indexes,
    }
    shown = {
        **_described(manifest),
        "runs": _RUNS[manifest.runtime],
        "listings": ", ".join(f"{count} {side}" for side, count in sides.items()),
        "indexes": ", ".join(indexes) or "none: once promoted, `lookalike reindex` makes one",
        **({"notice": manifest.notice} if manifest.notice else {}),
    }
    lines = [found.version, *(f"  {name:16} {value}" for name, value in shown.items())]
    print_facts(as_json, facts, "\n".join(lines))


@with_examples("lookalike bundle promote VERSION --reindex", "lookalike bundle promote ./my-bundle")
@bundle.command("promote")
@click.argument("bundle", metavar="VERSION|DIR", shell_complete=bundle_versions)
@click.option("--reindex", is_flag=True, help="Have the running service build its index, and wait for that.")
@json_option
@report_errors
def bundle_promote(bundle: str, reindex: bool, as_json: bool) -> None:
    """Check VERSION, or the bundle in DIR, which is taken in; show what changes; and promote it.

    An index is of one model. If one of this model is kept, as after a rollback, it goes live at once. Else the old
    model and index keep answering until `lookalike reindex` has made the new one: then both change together.

    Exit code: 0 when it is promoted; with --reindex as `lookalike reindex`: 3 when its index was built but is not live.
    """
    jobs = running_jobs() if reindex else None
    if jobs:
        jobs.depth()  # before anything is changed: does Redis answer?
    storage = load_settings().storage
    store = bundle_store(storage)
    version = bundle if bundle in store.versions() else import_bundle(store, _directory(bundle))
    changes, index = _promote(storage, store, version)
    facts: dict[str, Any] = {"live": version, "index": index, "changes": changes}
    lines = [f"  {name:16} {old or '-'} -> {new or '-'}" for name, (old, new) in changes.items()]
    lines.append(f"{version} is promoted" + (f", and its index {index} is live" if index else ""))
    if jobs is None:
        lines += [] if index else [_NO_INDEX]
        print_facts(as_json, facts, "\n".join(lines))
        return
    if not as_json:
        click.echo("\n".join(lines))
    request = ReindexRequest()
    job = run_reindex(jobs, request, wait=True)
    print_facts(as_json, {**facts, "reindex": view(job).model_dump(mode="json")}, outcome(job))
    sys.exit(exit_code(job, request))


def _promote(storage: Location, store: ArtifactStore, version: str) -> tuple[_Changes, str | None]:
    """Promote a bundle, and the index of it that was live last if there is one.

    Returns:
        what differs from the old bundle, old and new value by name; and the index version.
    """
    new = open_bundle(store, version).manifest
    was, now = _described_live(store), _described(new)
    store.promote(version)
    index = _last_live(storage, new.fingerprint)
    if index:
        promote_version(storage, index)
    store.prune(load_settings().keep_snapshots, protect=[answering_bundle(storage) or version])
    names = dict.fromkeys((*was, *now))
    return {name: (was.get(name), now.get(name)) for name in names if was.get(name) != now.get(name)}, index


@with_examples("lookalike bundle export ./my-bundle", "lookalike bundle export VERSION ./my-bundle")
@bundle.command("export")
@click.argument("version", metavar="[VERSION]", nargs=-1)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@json_option
@report_errors
def bundle_export(version: tuple[str, ...], directory: Path, as_json: bool) -> None:
    """Copy VERSION, or the live bundle, into a new directory DIR, which `promote DIR` takes in on another machine."""
    if len(version) > 1:
        raise click.UsageError("name one VERSION and one DIR")
    store = bundle_store(load_settings().storage)
    wanted = version[0] if version else open_named(store, None).version
    export_bundle(store, wanted, directory)
    print_facts(as_json, {"version": wanted, "directory": str(directory)}, f"{wanted} is in {directory}")


def open_named(store: ArtifactStore, name: str | None) -> ModelBundle:
    """Open and verify the bundle of a version or in a directory, or the live one.

    Raises:
        BundleMissing, BundleDamaged: it is not there, or not whole.
    """
    if name is None or name in store.versions():
        return open_bundle(store, name)
    return open_bundle_directory(_directory(name))


def _directory(name: str) -> Path:
    if not Path(name).is_dir():
        raise BundleMissing(f"{name!r} is neither a version, see `lookalike bundle list`, nor a directory")
    return Path(name)


def _facts(store: ArtifactStore, version: str) -> dict[str, Any]:
    history = store.history()
    named = {"version": version, "live": bool(history) and history[-1].version == version}
    try:
        manifest = read_manifest(store, version)
    except ArtifactError as exc:
        return {**named, "problem": str(exc)}
    kept = {
        "backbone",
        "recipe",
        "runtime",
        "precision",
        "preprocess",
        "fingerprint",
        "catalogue",
        "metrics",
        "built_at",
    }
    facts = manifest.model_dump(mode="json", include=kept)
    indexes = _indexes(load_settings().storage, manifest.fingerprint)
    return {**named, "problem": None, **facts, "spec": str(manifest.preprocess), "indexes": indexes}


def _line(facts: dict[str, Any]) -> str:
    if facts["problem"]:
        return f"{facts['version']}  unusable: {facts['problem']}"
    accuracy = facts["metrics"].get("accuracy")
    cells = [
        facts["version"],
        f"{facts['backbone']} {facts['recipe']}",
        f"{facts['runtime']} {facts['precision']}",
        facts["spec"],
        f"accuracy {accuracy:.3f}" if accuracy is not None else "accuracy not known",
        f"model {facts['fingerprint'][:12]}",
        facts["catalogue"],
    ]
    return "  ".join(cells) + ("" if facts["indexes"] else "  no index")


def _described(manifest: BundleManifest) -> dict[str, str]:
    """Describe a bundle as text by name, so that two can be compared."""
    metrics = {
        name: f"{value:.3f}" if isinstance(value, float) else str(value) for name, value in manifest.metrics.items()
    }
    return {
        "model": manifest.fingerprint[:12],
        "backbone": manifest.backbone,
        "weights": manifest.weights,
        "words": _words(manifest),
        "recipe": manifest.recipe,
        "runtime": f"{manifest.runtime} {manifest.precision}",
        "spec": str(manifest.preprocess),
        "embedding_dim": str(manifest.embedding_dim),
        "temperature": f"{manifest.temperature:.3f}",
        "abstain_below": f"{manifest.abstain_below:.3f}",
        "built_at": manifest.built_at,
        "measured on": manifest.catalogue,
        **metrics,
    }


def _words(manifest: BundleManifest) -> str:
    """Describe what a bundle knows of words: the attributes they are in, and the sentence encoder."""
    if (text := manifest.text) is None:
        return "none"
    return ", ".join(text.attributes) + (f"; {text.sentences.source}" if text.sentences else "")


def _described_live(store: ArtifactStore) -> dict[str, str]:
    """Describe the live bundle; empty where there is none, or it cannot be read, which must not stop a promotion."""
    try:
        live = store.current()
        return _described(read_manifest(store, live)) if live else {}
    except ArtifactError:
        return {}


def _indexes(storage: Location, fingerprint: str) -> list[str]:
    """Index versions that were made by the model with that fingerprint, newest first."""
    store, found = index_store(storage), []
    for version in reversed(store.versions()):
        with suppress(ArtifactError):  # `lookalike index list` says what is wrong with it
            if read_index_manifest(store, version).fingerprint == fingerprint:
                found.append(version)
    return found


def _last_live(storage: Location, fingerprint: str) -> str | None:
    """The index of that model that was live last, if it is whole; one that was never live may have failed its gates."""
    store, of_model = index_store(storage), _indexes(storage, fingerprint)
    for promotion in reversed(store.history()):
        with suppress(ArtifactError):
            if promotion.version in of_model:
                store.verify(promotion.version)
                return promotion.version
    return None
