"""`lookalike reranker`: train one on feedback, list them, promote one, and go back."""

import sys

import click

from pipeline.cli.common import json_option, print_facts, print_progress, report_errors, when
from pipeline.cli.feedback import stored_feedback
from pipeline.cli.help import with_examples
from shared.artifacts.rerankers import RerankerManifest, read_reranker, reranker_store
from shared.artifacts.snapshots import answering_bundle, bundle_store, index_store
from shared.artifacts.store import MANIFEST
from shared.errors import BundleMissing, PromotionRefused, RerankerDamaged, RerankerMissing
from shared.model.bundle import BundleManifest, read_manifest
from shared.settings import Settings, load_settings


@click.group()
def reranker() -> None:
    """The order of results by what people chose: train it on feedback, promote it, go back."""


@with_examples("lookalike reranker train", "lookalike reranker train --json | jq .gates")
@reranker.command("train")
@json_option
@report_errors
def reranker_train(as_json: bool) -> None:
    """Fit a re-ranker on the feedback for the model that answers, and promote it if it passes the quality gates.

    A running service takes it up within seconds. Exit code: 3 where it did not pass; then nothing changes.
    """
    from pipeline.ranking.train import train_reranker
    from shared.index.delta.index import DeltaIndex
    from shared.index.milvus.server import open_server
    from shared.index.snapshot import open_snapshot

    settings = load_settings()
    model = _answering_model(settings)
    snapshot = open_snapshot(index_store(settings.storage), fingerprint=model.fingerprint, server=open_server(settings))
    trained = train_reranker(
        settings.storage, stored_feedback(settings), DeltaIndex(snapshot, lambda put: None), model, print_progress
    )
    store = reranker_store(settings.storage)
    if trained.version is not None:
        store.prune(settings.keep_snapshots)
    facts = {**trained.manifest.model_dump(mode="json"), "live": trained.version}
    lines = [
        f"  {'passed' if gate.passed else 'FAILED'}  {gate.name}: {gate.detail}" for gate in trained.manifest.gates
    ]
    if weights := trained.manifest.weights:
        lines += [f"  {value:10.4f}  {name}" for name, value in weights.model_dump().items()]
    lines.insert(0, f"{trained.version} is live" if trained.version else "not promoted; what was live goes on")
    print_facts(as_json, facts, "\n".join(lines))
    sys.exit(0 if trained.version else 3)


@with_examples("lookalike reranker list")
@reranker.command("list")
@json_option
@report_errors
def reranker_list(as_json: bool) -> None:
    """Every version, newest first; one that is damaged says so."""
    store = reranker_store(load_settings().storage)
    live = store.current()
    promoted = {entry.version: entry.at for entry in store.history()}
    versions, lines = [], []
    for version in reversed(store.versions()):
        since = f", live since {when(promoted[version])}" if version == live else ""
        try:
            manifest = read_reranker(store, version)
            facts = manifest.model_dump(mode="json")
            told = f"{manifest.n_searches} searches" if manifest.weights else "changes nothing"
        except RerankerMissing:  # pruned meanwhile
            continue
        except RerankerDamaged as exc:
            facts = {"problem": str(exc)}
            told = f"damaged: {MANIFEST} is not what was written"
        versions.append({"version": version, "live": version == live, **facts})
        lines.append(f"{'*' if version == live else ' '} {version}  {told}{since}")
    text = "\n".join(lines) or "none yet: `lookalike reranker train` makes one"
    print_facts(as_json, {"versions": versions}, text)


@with_examples("lookalike reranker promote VERSION")
@reranker.command("promote")
@click.argument("version")
@json_option
@report_errors
def reranker_promote(version: str, as_json: bool) -> None:
    """Check VERSION and make it live; a running service takes it up."""
    settings = load_settings()
    store = reranker_store(settings.storage)
    if version not in store.versions():
        raise RerankerMissing(f"there is no re-ranker {version[:100]!r}; `lookalike reranker list` names them")
    _require_usable(read_reranker(store, version), version)
    store.promote(version)
    print_facts(as_json, {"live": version}, f"{version} is live")


@with_examples("lookalike reranker rollback")
@reranker.command("rollback")
@json_option
@report_errors
def reranker_rollback(as_json: bool) -> None:
    """Make live what was live before; a second time goes back two. Before the first is one that changes nothing."""
    version = reranker_store(load_settings().storage).rollback()
    print_facts(as_json, {"live": version}, f"{version} is live again")


def _require_usable(manifest: RerankerManifest, version: str) -> None:
    model = _answering_model(load_settings())
    if manifest.fingerprint != model.fingerprint:
        raise PromotionRefused(
            f"{version} ranks searches of model {manifest.fingerprint[:12]}, and {model.fingerprint[:12]} answers; "
            "train one: `lookalike reranker train`"
        )


def _answering_model(settings: Settings) -> BundleManifest:
    bundle = answering_bundle(settings.storage)
    if bundle is None:
        raise BundleMissing("no model bundle has been promoted yet; `lookalike prepare` makes one")
    return read_manifest(bundle_store(settings.storage), bundle)
