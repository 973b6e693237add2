"""Milvus as the place of an index: away, silent, robbed and shared; what is half-built there, and what is pruned."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.cli.main import main
from shared.artifacts.snapshots import IndexKind, bundle_store, index_store, read_index_manifest
from shared.artifacts.store import MANIFEST, ArtifactStore
from shared.errors import FingerprintMismatch, ImageNotFound, IndexDamaged, IndexUnavailable
from shared.index.drafts import collections, draft_index, prune_index
from shared.index.milvus.server import CollectionName, MilvusServer, alias_of
from shared.index.snapshot import open_snapshot
from shared.index.vector_index import VectorIndex
from shared.jobs.contract import SearchRequest
from shared.model.bundle import open_bundle
from tests import ROOT
from tests.support.installation import Installation
from tests.support.milvus import MilvusLite
from tests.support.vectors import FINGERPRINT, PHOTOS, QUERY, VECTORS_OF_PHOTOS, write
from worker.serving.engine import Engine


@pytest.fixture(scope="module")
def own_milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusLite]:
    """A server to be hurt; each test leaves it running."""
    server = MilvusLite(tmp_path_factory.mktemp("milvus"))
    yield server
    server.kill()


@pytest.fixture
def server(milvus: MilvusLite) -> Iterator[MilvusServer]:
    server = milvus.connect()
    yield server
    server.close()


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return index_store(tmp_path)


def test_scipy_is_imported_before_several_threads_can_search_at_once(milvus: MilvusLite) -> None:
    """Otherwise the first searches of a worker failed now and then: SciPy was half imported."""
    code = (
        "import sys; from shared.index.milvus.server import MilvusServer\n"
        f"with MilvusServer({milvus.address!r}).calling(): print('scipy.sparse' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def opened(store: ArtifactStore, version: str, server: MilvusServer | None) -> VectorIndex:
    return open_snapshot(store, fingerprint=FINGERPRINT, version=version, server=server)


def nearest_row(index: VectorIndex) -> int:
    return index.search(QUERY, SearchRequest(k=1))[0].row


# Away


def test_while_milvus_is_away_every_question_says_so_and_afterwards_all_is_as_before(
    own_milvus: MilvusLite, store: ArtifactStore
) -> None:
    server = own_milvus.connect()
    version = write(store, server=server)
    index = opened(store, version, server)
    before = index.search(QUERY, SearchRequest(k=10))
    own_milvus.kill()
    for question in (
        lambda: index.search(QUERY, SearchRequest()),
        lambda: index.stored("p7"),
        lambda: index.check(live=True),
        lambda: opened(store, version, own_milvus.connect()),
        lambda: write(store, server=server),
    ):
        with pytest.raises(IndexUnavailable, match="Milvus at http") as said:
            question()
        assert said.value.retryable
    with pytest.raises(ImageNotFound):  # that can be told without it
        index.stored("nobody")
    own_milvus.start()
    index.check(live=True)
    assert index.search(QUERY, SearchRequest(k=10)) == before
    assert store.versions() == [version]


def test_a_server_that_does_not_answer_holds_nobody_longer_than_its_time(
    own_milvus: MilvusLite, store: ArtifactStore
) -> None:
    version = write(store, server=own_milvus.connect())
    index = opened(store, version, own_milvus.connect(timeout_s=0.5))
    own_milvus.signal(signal.SIGSTOP)
    try:
        with pytest.raises(IndexUnavailable, match="does not answer"):
            index.search(QUERY, SearchRequest())
    finally:
        own_milvus.signal(signal.SIGCONT)
    assert nearest_row(opened(store, version, own_milvus.connect())) == nearest_row(index)


def test_who_has_asked_milvus_can_start_other_processes(milvus: MilvusLite) -> None:
    script = """
import subprocess, sys
from shared.index.milvus.server import MilvusServer
with MilvusServer(sys.argv[1]).calling() as client:
    client.list_collections()
for _ in range(100):
    subprocess.run(["true"], preexec_fn=int, check=True)
"""
    done = subprocess.run([sys.executable, "-c", script, milvus.address], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_version_in_milvus_cannot_be_opened_without_saying_where_it_is(
    store: ArtifactStore, server: MilvusServer
) -> None:
    with pytest.raises(IndexUnavailable, match="LOOKALIKE_INDEX"):
        opened(store, write(store, server=server), None)


# Not what was written


def test_a_collection_that_is_gone_is_told_of_to_who_had_it_open_and_to_who_opens_it(
    store: ArtifactStore, server: MilvusServer
) -> None:
    version = write(store, server=server)
    index = opened(store, version, server)
    server.drop(collections(store)[version])
    for question in (lambda: index.search(QUERY, SearchRequest()), lambda: opened(store, version, server)):
        with pytest.raises(IndexDamaged, match="lost collection"):
            question()


def test_a_collection_that_has_lost_rows_is_refused(store: ArtifactStore, server: MilvusServer) -> None:
    version = write(store, server=server)
    with server.calling() as client:
        client.delete(collections(store)[version], ids=[3, 4])
    with pytest.raises(IndexDamaged, match="and 298 of dimension 64"):
        opened(store, version, server)


def test_a_collection_of_another_model_is_refused(store: ArtifactStore, server: MilvusServer) -> None:
    of_other = write(store, fingerprint="a" * 64, server=server)
    other = collections(store)[of_other]
    original = store.path(write(store, server=server))
    with store.write() as draft:
        for path in original.iterdir():
            (draft.directory / path.name).write_bytes(path.read_bytes())
        manifest = json.loads((original / MANIFEST).read_text())
        manifest["index"]["collection"] = other
        (draft.directory / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(FingerprintMismatch, match="of another model"):
        opened(store, draft.version, server)


# Half-built, and pruned


def leave(server: MilvusServer, *, alias: str, age: timedelta = timedelta(), job: str = "") -> str:
    """A collection as a killed builder leaves it."""
    new = CollectionName.new(alias, FINGERPRINT, job)
    name = str(CollectionName(alias, datetime.now(UTC) - age, new.fingerprint, new.job, new.salt))
    server.create(name, 64, 13)
    return name


def test_what_fails_half_built_leaves_no_version_and_no_collection(
    store: ArtifactStore, server: MilvusServer, milvus: MilvusLite
) -> None:
    before = milvus.collections()
    vectors = VECTORS_OF_PHOTOS.copy()
    vectors[-1, 0] = np.nan
    with pytest.raises(IndexDamaged, match="finite"):
        write(store, vectors=vectors, server=server)
    with suppress(KeyboardInterrupt), draft_index(store, server, fingerprint=FINGERPRINT) as draft:
        server.create(draft.collection, 64, 13)
        raise KeyboardInterrupt
    assert (store.versions(), milvus.collections()) == ([], before)


def test_what_a_killed_builder_left_goes_with_the_next_build_and_nothing_else_does(
    store: ArtifactStore, server: MilvusServer, milvus: MilvusLite
) -> None:
    version = write(store, server=server)
    collection = collections(store)[version]
    ours = alias_of(store.place)
    day = timedelta(days=1, minutes=1)
    gone = {leave(server, alias=ours, age=day), leave(server, alias=ours, job="this")}
    kept = {
        collection,
        leave(server, alias=ours),  # perhaps somebody builds it just now
        leave(server, alias=ours, job="another"),
        leave(server, alias="lookalike_of_others", age=day),
    }
    with server.calling() as client:
        client.create_collection("no_name_of_ours", dimension=8)
    with suppress(KeyboardInterrupt), draft_index(store, server, fingerprint=FINGERPRINT, made_by="this"):
        raise KeyboardInterrupt
    there = set(milvus.collections())
    assert there & gone == set()
    assert kept | {"no_name_of_ours"} <= there


def test_pruning_drops_collections_but_never_the_one_that_was_live_until_now(
    store: ArtifactStore, server: MilvusServer, milvus: MilvusLite
) -> None:
    versions = []
    for _ in range(3):
        versions.append(write(store, PHOTOS[:5], VECTORS_OF_PHOTOS[:5], server=server))
        store.promote(versions[-1])
    all_of_them = collections(store)
    assert prune_index(store, 1, server) == versions[:1]
    there = set(milvus.collections())
    assert all_of_them[versions[0]] not in there
    assert {all_of_them[versions[1]], all_of_them[versions[2]]} <= there


def moved(built: Installation, milvus: MilvusLite, directory: Path) -> Installation:
    """An installation whose index was brought from files into Milvus."""
    installation = built.copy(directory)
    installation.prepare(index=milvus.address)
    return installation


def test_a_copy_of_an_installation_takes_nothing_from_the_original(
    built: Installation, milvus: MilvusLite, server: MilvusServer, tmp_path: Path
) -> None:
    original = moved(built, milvus, tmp_path / "original")
    copy = original.copy(tmp_path / "copy")
    store = index_store(original.home)
    shared = store.current()
    for _ in range(2):
        copy.prepare(rebuild_index=True, index=milvus.address, keep_snapshots=1)
    assert shared not in index_store(copy.home).versions()
    fingerprint = open_bundle(bundle_store(original.home)).manifest.fingerprint
    assert len(open_snapshot(store, fingerprint=fingerprint, server=server)) == 52


# In the service


def test_prepare_moves_the_index_to_where_it_is_wanted_without_embedding_anything(
    built: Installation, milvus: MilvusLite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation = moved(built, milvus, tmp_path)
    assert installation.heard("rebuilding the index", "milvus+http")
    store = index_store(installation.home)
    version = store.current()
    assert version
    manifest = read_index_manifest(store, version)
    assert manifest.index
    assert manifest.index.kind is IndexKind.MILVUS
    assert manifest.report
    assert manifest.report.counts.embedded == 0
    assert all(gate.passed for gate in manifest.report.gates)
    assert not {"vectors.npy", "scores.npy"} & {path.name for path in store.path(version).iterdir()}
    assert not installation.prepare(index=milvus.address).built
    monkeypatch.setenv("LOOKALIKE_HOME", str(installation.home))
    shown = CliRunner().invoke(main, ["index", "show"]).output
    assert manifest.index.collection in shown
    assert alias_of(store.place) in shown


def test_prepare_builds_nothing_anew_because_milvus_is_away(
    built: Installation, own_milvus: MilvusLite, tmp_path: Path
) -> None:
    installation = moved(built, own_milvus, tmp_path)
    own_milvus.kill()
    try:
        with pytest.raises(IndexUnavailable):
            installation.prepare(index=own_milvus.address)
    finally:
        own_milvus.start()
    assert not installation.prepare(index=own_milvus.address).built


def test_files_and_milvus_find_the_same_neighbours(
    built: Installation, milvus: MilvusLite, server: MilvusServer, tmp_path: Path
) -> None:
    store = index_store(moved(built, milvus, tmp_path).home)
    fingerprint = open_bundle(bundle_store(built.home)).manifest.fingerprint
    in_files, in_milvus = (
        open_snapshot(store, fingerprint=fingerprint, version=version, server=server) for version in store.versions()
    )
    for query in in_files.vectors(slice(None)):
        for request in (SearchRequest(k=20), SearchRequest.model_validate({"k": 20, "distinct": "listing"})):
            one, other = in_files.search(query, request), in_milvus.search(query, request)
            # Sums of 1280 float32 products in another order.
            np.testing.assert_allclose([n.score for n in one], [n.score for n in other], atol=3e-6)
            differ = [a.score for a, b in zip(one, other, strict=True) if a.image_id != b.image_id]
            scores = [n.score for n in one]
            assert all(sum(abs(score - tied) < 1e-5 for tied in scores) > 1 for score in differ)


def test_the_alias_follows_what_is_live_there_and_back(built: Installation, milvus: MilvusLite, tmp_path: Path) -> None:
    installation = moved(built, milvus, tmp_path)
    store = index_store(installation.home)
    first = store.current()
    assert first
    installation.prepare(rebuild_index=True, index=milvus.address)
    second = store.current()
    assert second
    engine = Engine(installation.home, server=milvus.connect())
    for version in (second, first, second):
        store.promote(version)
        engine.refresh()
        assert engine.problem is None
        assert milvus.alias(alias_of(store.place)) == collections(store)[version]
    engine.close()


def test_an_engine_says_that_milvus_is_away_and_answers_again_by_itself(
    built: Installation, own_milvus: MilvusLite, tmp_path: Path
) -> None:
    installation = moved(built, own_milvus, tmp_path)
    photo = np.random.default_rng(3).integers(0, 256, 224 * 224 * 3, dtype=np.uint8).tobytes()
    engine = Engine(installation.home, server=own_milvus.connect())
    engine.refresh()
    before = engine.run(SearchRequest(), photo)
    own_milvus.kill()
    with pytest.raises(IndexUnavailable):
        engine.run(SearchRequest(), photo)
    engine.refresh()
    assert engine.problem
    assert "Milvus at" in engine.problem
    late = Engine(installation.home, server=own_milvus.connect())  # of a worker that starts meanwhile
    late.refresh()
    assert (late.ready, "Milvus at" in str(late.problem)) == (False, True)
    own_milvus.start()
    for one in (engine, late):
        deadline = time.monotonic() + 30
        while one.problem and time.monotonic() < deadline:
            one.refresh()
        assert one.run(SearchRequest(), photo) == before
        one.close()
