"""`lookalike bundle` as an operator types it, and bundles as directories: carried, checked, promoted, and back"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from safetensors.numpy import save_file

from shared.artifacts.snapshots import bundle_store, index_store
from shared.artifacts.store import MANIFEST, ArtifactStore
from shared.catalogue.categories import CATEGORIES
from shared.errors import ArtifactUnwritable, BundleDamaged, BundleMissing
from shared.jobs.store import JobStore
from shared.model.bundle import (
    SPLIT,
    WEIGHTS,
    Split,
    import_bundle,
    open_bundle,
    open_bundle_directory,
    write_bundle,
    write_bundle_directory,
)
from shared.photos.images import PreprocessSpec
from tests.integration.pipeline.test_cli_index import Service, run, run_json, succeed
from tests.support.manifests import manifest
from tests.support.versions import write_version

TENSORS = {"layer.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "layer.steps": np.array(7)}
SPLIT_IN_TWO = Split(train=frozenset({"l1", "l2"}), test=frozenset({"l3"}))
LETTERBOX, CROP = PreprocessSpec(), PreprocessSpec(size_px=160, fit="crop")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOOKALIKE_REDIS_URL", "redis://127.0.0.1:1/0")  # nothing runs
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> ArtifactStore:
    return bundle_store(home)


@pytest.fixture
def carried(tmp_path: Path) -> Path:
    """A bundle as a directory, as another machine wrote it."""
    made = manifest(CROP, recipe="finetune", metrics={"accuracy": 0.61, "n_photos": 12}, temperature=1.3)
    extra = {"metrics.json": b'{"accuracy": 0.61}'}
    write_bundle_directory(tmp_path / "carried", made, TENSORS, split=SPLIT_IN_TWO, extra_files=extra)
    return tmp_path / "carried"


def live_bundle(store: ArtifactStore, **changed: object) -> str:
    """With an index of its own that is live."""
    version = write_bundle(store, manifest(LETTERBOX, **changed), TENSORS, split=Split())
    store.promote(version)
    index = write_version(store.root.parent, fingerprint=open_bundle(store).manifest.fingerprint)
    index_store(store.root.parent).promote(index)
    return version


# --- directories ---


def test_a_bundle_comes_back_from_its_directory_as_it_was_written(carried: Path, store: ArtifactStore) -> None:
    version = import_bundle(store, carried)
    there, here = open_bundle_directory(carried), open_bundle(store, version)
    assert (there.manifest, there.split) == (here.manifest, here.split)
    assert (here.manifest.preprocess, here.split) == (CROP, SPLIT_IN_TWO)
    assert (here.directory / "metrics.json").read_bytes() == b'{"accuracy": 0.61}'
    assert import_bundle(store, carried) == version  # it is there already
    assert len(store.versions()) == 1
    assert store.current() is None


def test_files_for_people_leave_the_fingerprint(carried: Path, store: ArtifactStore) -> None:
    plain = write_bundle(store, manifest(CROP), TENSORS, split=Split())
    assert open_bundle(store, plain).manifest.fingerprint == open_bundle_directory(carried).manifest.fingerprint


def test_a_directory_that_is_there_is_not_written_over(carried: Path) -> None:
    with pytest.raises(ArtifactUnwritable, match="there already"):
        write_bundle_directory(carried, manifest(CROP), TENSORS, split=Split())
    assert [path.name for path in carried.parent.iterdir() if path.name.startswith(".")] == []


def test_weights_that_are_no_numbers_are_not_written(store: ArtifactStore) -> None:
    with pytest.raises(BundleDamaged, match=r"layer\.weight has values that are not finite"):
        write_bundle(store, manifest(CROP), {"layer.weight": np.array([1, np.nan])}, split=Split())
    assert store.versions() == []


def reseal(directory: Path, **changed: object) -> None:
    """As somebody who writes bundles by hand might: every digest fits, the fingerprint too."""
    raw = json.loads((directory / MANIFEST).read_text()) | changed
    names = [name for name in raw["files"] if (directory / name).exists()]
    raw["files"] = {
        name: {"bytes": (directory / name).stat().st_size, "sha256": ArtifactStore.sha256(directory / name)}
        for name in names
    }
    parsed = manifest(CROP).model_validate(raw)
    raw["fingerprint"] = parsed.compute_fingerprint()
    (directory / MANIFEST).write_text(json.dumps(raw))


def not_finite(directory: Path) -> None:
    save_file({**TENSORS, "layer.weight": np.full((2, 3), np.inf, np.float32)}, directory / WEIGHTS)
    reseal(directory, weights_sha256=ArtifactStore.sha256(directory / WEIGHTS))


def flipped(name: str) -> Callable[[Path], None]:
    def flip(directory: Path) -> None:
        content = bytearray((directory / name).read_bytes())
        content[len(content) // 2] ^= 1
        (directory / name).write_bytes(content)

    return flip


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights changed": (flipped(WEIGHTS), WEIGHTS),
    "split gone": (lambda directory: (directory / SPLIT).unlink(), SPLIT),
    "manifest gone": (lambda directory: (directory / MANIFEST).unlink(), MANIFEST),
    "no manifest of ours": (lambda directory: (directory / MANIFEST).write_text('{"files": {"a": 1}}'), MANIFEST),
    "spec changed": (
        lambda d: (d / MANIFEST).write_text((d / MANIFEST).read_text().replace('"crop"', '"stretch"')),
        "fingerprint",
    ),
    "one category twice": (lambda d: reseal(d, categories=(*CATEGORIES[1:], CATEGORIES[1])), "categories"),
    "weights of another": (lambda directory: reseal(directory, weights_sha256="0" * 64), WEIGHTS),
    "graph missing": (lambda directory: reseal(directory, graph_sha256={"graph.xml": "0" * 64}), "graph.xml"),
    "not finite": (not_finite, "finite"),
    "no temperature": (lambda d: (d / MANIFEST).write_text((d / MANIFEST).read_text().replace("1.3", "0")), MANIFEST),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_directory_that_is_not_what_was_written_is_not_taken_in(
    carried: Path, store: ArtifactStore, name: str
) -> None:
    damage, said = WRONG[name]
    damage(carried)
    with pytest.raises(BundleDamaged, match=said):
        import_bundle(store, carried)
    assert store.versions() == []


def test_a_directory_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BundleMissing):
        open_bundle_directory(tmp_path / "nowhere")


# --- the command line ---


def test_bundles_are_listed_and_shown_with_what_was_measured(store: ArtifactStore, carried: Path) -> None:
    assert run_json("bundle", "list") == {"bundles": []}
    live = live_bundle(store)
    other = import_bundle(store, carried)
    newest, oldest = run_json("bundle", "list")["bundles"]
    assert [(b["version"], b["live"], len(b["indexes"])) for b in (newest, oldest)] == [
        (other, False, 0),
        (live, True, 1),
    ]
    assert (newest["spec"], newest["recipe"], newest["metrics"]["accuracy"]) == ("crop 160 px", "finetune", 0.61)
    listed = run("bundle", "list").stdout
    assert f"* {live}" in listed
    assert "accuracy 0.610" in listed
    assert "no index" in listed
    shown: Any = run_json("bundle", "show", other)
    assert shown["split"] == {"train": 2, "validation": 0, "test": 1}
    assert shown == {**run_json("bundle", "show", str(carried)), "version": other}
    assert run_json("bundle", "show")["version"] == live
    assert "on a GPU where there is one" in run("bundle", "show", other).stdout
    (store.path(other) / MANIFEST).write_text("{")
    assert f"{other}  unusable" in run("bundle", "list").stdout


def test_promoting_a_directory_says_what_changes_and_going_back_brings_the_old_index_back(
    store: ArtifactStore, carried: Path, home: Path
) -> None:
    first = live_bundle(store)
    index = index_store(home).current()
    promoted = run_json("bundle", "promote", str(carried))
    assert promoted["live"] == store.current() == store.versions()[-1]
    assert promoted["index"] is None
    assert promoted["changes"]["spec"] == ["letterbox 224 px", "crop 160 px"]
    assert promoted["changes"]["accuracy"] == ["0.500", "0.610"]
    assert promoted["changes"]["n_photos"] == [None, "12"]
    assert "backbone" not in promoted["changes"]
    own = [write_version(home, fingerprint=open_bundle(store).manifest.fingerprint) for _ in range(2)]
    index_store(home).promote(own[0])  # the other was not good enough
    back = run("bundle", "promote", first).stdout
    assert "crop 160 px -> letterbox 224 px" in back
    assert f"and its index {index} is live" in back
    assert (store.current(), index_store(home).current()) == (first, index)
    assert run_json("bundle", "promote", promoted["live"])["index"] == own[0]


def test_a_bundle_goes_to_another_machine_and_back(store: ArtifactStore, carried: Path, tmp_path: Path) -> None:
    live = live_bundle(store)
    assert run_json("bundle", "export", str(tmp_path / "out"))["version"] == live
    other = import_bundle(store, carried)
    run("bundle", "export", other, str(tmp_path / "deep" / "out"))
    shutil.rmtree(store.path(other))
    assert run_json("bundle", "promote", str(tmp_path / "deep" / "out"))["live"].split("-")[1] == other.split("-")[1]
    assert run_json("bundle", "export", str(tmp_path / "out"), code=1)["error"]["code"] == "artifact_unwritable"


def test_what_cannot_be_promoted_or_indexed_ends_with_1_and_changes_nothing(
    store: ArtifactStore, carried: Path
) -> None:
    live = live_bundle(store)
    for verb in (("show",), ("promote",)):
        assert run_json("bundle", *verb, "20260101T000000000000Z-00000000", code=1)["error"]["code"] == "bundle_missing"
    assert run_json("bundle", "promote", str(carried), "--reindex", code=1)["error"]["code"] == "queue_unavailable"
    assert (store.current(), store.versions()) == (live, [live])


@pytest.mark.parametrize(("promoted", "code"), [(True, 0), (False, 3)])
def test_promoting_can_have_the_index_built_and_waits_for_it(
    client: redis.Redis,
    jobs: JobStore,
    valkey_url: str,
    monkeypatch: pytest.MonkeyPatch,
    carried: Path,
    promoted: bool,
    code: int,
) -> None:
    monkeypatch.setenv("LOOKALIKE_REDIS_URL", valkey_url)
    service = Service(client, jobs, succeed(index_version="v2", promoted=promoted, decision="it was measured"))
    service.start()
    printed = run_json("bundle", "promote", str(carried), "--reindex", code=code)
    service.join()
    assert printed["reindex"]["result"]["decision"] == "it was measured"
